"""CVAT for video 1.1: `annotations.xml`, where an object is a track with a polygon on each frame.

Holes are kept, cut open by a slit that encloses nothing, and parts are joined by a line in the same
way, since a track has one polygon per frame. Where an object is absent, its polygon is "outside".
"""

from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from pycocotools import mask as coco

from longsam.masks import rle
from longsam.masks.exports.polygons import Ring, polygons_of
from longsam.masks.exports.source import Source
from longsam.masks.exports.spools import Spools
from longsam.masks.record import MaskArray

FILE = "annotations.xml"

_HALF = 0.5
"""A pixel spans from one whole number to the next, so its centre is half a pixel further."""


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    spools = Spools(folder / "spools")
    _spool(source, spools)
    with open(folder / FILE, "w", encoding="utf-8") as file:
        _write_head(source, file)
        names = source.categories()
        for obj_id, number in source.numbers.items():
            label = quoteattr(names[source.category_of(obj_id)])
            file.write(f'  <track id="{number}" label={label} source="auto">\n')
            spools.copy(str(number), file)
            file.write("  </track>\n")
        file.write("</annotations>\n")
    spools.close()


def _spool(source: Source, spools: Spools) -> None:
    """Collect the polygons of each object."""
    seen: dict[int, tuple[int, str]] = {}  # frame and polygon of the objects that are visible
    for frame in source:
        frame_idx = frame.line.frame_idx
        now: dict[int, tuple[int, str]] = {}
        for at, (obj_id, box) in enumerate(zip(frame.line.obj_ids, frame.line.boxes, strict=True)):
            if box is None:
                continue
            (ring,) = polygons_of(frame.masks[at], box, _filled, reach=0.5, longest_joint=None)
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in (ring + _HALF).tolist())
            number = source.numbers[obj_id]
            now[number] = frame_idx, points
            spools.add(str(number), _polygon(frame_idx, points, outside=False))
        for number in seen.keys() - now.keys():
            last, points = seen[number]
            spools.add(str(number), _polygon(last + 1, points, outside=True))
        seen = now


def _polygon(frame_idx: int, points: str, *, outside: bool) -> str:
    return (
        f'    <polygon frame="{frame_idx}" keyframe="1" outside="{int(outside)}" occluded="0" '
        f'points="{points}" z_order="0"></polygon>\n'
    )


def _write_head(source: Source, file: IO[str]) -> None:
    height, width = source.size
    frames = source.folder.frames
    last = frames[-1] if frames else 0
    labels = "".join(
        f"<label><name>{escape(name)}</name><attributes></attributes></label>"
        for name in source.categories().values()
    )
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta><task><name>{escape(source.names.video)}</name><size>{last + 1}</size>"
        "<mode>interpolation</mode><overlap>0</overlap><start_frame>0</start_frame>"
        f"<stop_frame>{last}</stop_frame><frame_filter></frame_filter><labels>{labels}</labels>"
        f"<original_size><width>{width}</width><height>{height}</height></original_size>"
        f"</task><source>{escape(source.names.video)}</source></meta>\n"
    )


def _filled(rings: list[Ring], size: tuple[int, int]) -> MaskArray:
    """As COCO's tools fill a polygon."""
    lists = [(ring + _HALF).ravel().tolist() for ring in rings]
    merged = coco.merge(coco.frPyObjects(lists, *size))
    return rle.decode({"size": list(size), "counts": merged["counts"].decode()}, size)
