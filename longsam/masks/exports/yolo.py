"""YOLO segmentation: `labels/NAME.txt` beside the images' folder, and `data.yaml`.

A line is a class and a polygon, in fractions of the frame's width and height. Each object is its
own class, so that the file says which one it is; with one category, all are class 0. Holes are
kept, cut open by a slit that encloses nothing. Parts of a mask are joined by a line where that
changes the mask by less than 0.2 %; otherwise each has its own line, with the same class. A frame
without objects has an empty file.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longsam.masks.exports.polygons import Ring, polygons_of
from longsam.masks.exports.source import Source
from longsam.masks.record import MaskArray

_REACH = 0.2
_SHIFT = 0.25
"""Readers truncate or round to whole pixels, and fill the line too: with outlines 0.05 to 0.45 past
whole numbers, both give exactly the mask's pixels."""

_LONGEST_JOINT = 0.002


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    source.names.check_stems(source.folder.frames)
    labels = folder / "labels"
    labels.mkdir()
    classes = {number: at for at, number in enumerate(source.categories())}
    height, width = source.size
    for frame in source:
        lines = []
        for at, (obj_id, box) in enumerate(zip(frame.line.obj_ids, frame.line.boxes, strict=True)):
            if box is None:
                continue
            rings = polygons_of(
                frame.masks[at], box, _filled, reach=_REACH, longest_joint=_LONGEST_JOINT
            )
            for ring in rings:
                points = ((ring + _SHIFT) / (width, height)).ravel()
                numbers = " ".join(f"{number:.6f}" for number in points)
                lines.append(f"{classes[source.category_of(obj_id)]} {numbers}\n")
        path = labels / f"{source.names.stem(frame.line.frame_idx)}.txt"
        with path.open("w", encoding="ascii") as file:
            file.writelines(lines)
    names = (f"  {classes[n]}: {json.dumps(name)}\n" for n, name in source.categories().items())
    # The frames go to a folder images; JSON's quoted text is valid YAML too.
    content = f"path: .\ntrain: images\nval: images\nnames:\n{''.join(names)}"
    (folder / "data.yaml").write_text(content, encoding="ascii")


def _filled(rings: list[Ring], size: tuple[int, int]) -> MaskArray:
    """As readers of YOLO's polygons fill them."""
    import cv2

    filled: npt.NDArray[np.uint8] = np.zeros(size, np.uint8)
    for ring in rings:
        cv2.fillPoly(filled, [(ring + _SHIFT).astype(np.int32)], 1)
    return filled > 0
