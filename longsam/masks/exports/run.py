"""export: a folder of masks as files that another tool reads."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from longsam.masks.exports.names import names_of
from longsam.masks.exports.source import Source, numbered
from longsam.masks.exports.target import check_target, whole_folder, write_table
from longsam.masks.reader import MaskFolder

FORMATS = MappingProxyType(
    {
        "coco": "COCO instances: one JSON, run lengths, track ids",
        "ytvis": "YouTube-VIS: one JSON, run lengths by object",
        "yolo": "YOLO segmentation: a text file of polygons for each frame; holes are kept",
        "davis": "DAVIS: an indexed PNG for each frame",
        "cvat": "CVAT for video 1.1: one XML, polygons by object; holes are kept",
        "labelstudio": "Label Studio: one JSON of tasks with brush masks, and one with boxes",
        "napari": "OME-Zarr labels, which napari opens without reading them all",
    }
)


class _Exporter(Protocol):
    def write(self, source: Source, folder: Path) -> None: ...


def export(
    folder: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str] | None = None,
    *,
    video: str | os.PathLike[str] | None = None,
    category: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write the masks of a folder in another tool's format.

    The masks are read frame by frame, so memory does not grow with their number. The new folder is
    complete or not there at all. Its `objects.json` has the integer for each id.

    Polygon formats keep holes: each is cut open by a slit that encloses nothing, so that filling
    the polygon gives the mask. Parts and holes of less than 0.1 % of the mask's area are left out.

    Args:
        folder: A `MaskWriter`'s folder. It need not be trusted.
        to: One of `FORMATS`.
        out: The new folder; None takes one of the format's name in `folder`.
        video: The video or folder of images whose names are used; None takes the one named by the
            masks. The file names of images are kept; frames of a video are named 00000.jpg,
            00001.jpg ...
        category: One category for all objects; None gives each object its own category.
        overwrite: Replace an earlier export.
        progress: Called with the number of frames done.

    Returns:
        The new folder.

    Raises:
        FileExistsError: `out` exists already, or is not an export.
        FileNotFoundError: `folder` holds no masks.
        ValueError: The format is unknown, cannot hold these masks, or they are damaged.
        ImportError: A package that the format needs is not installed; the message names it.
    """
    if to not in FORMATS:
        raise ValueError(f"to is {to!r}; it must be one of {', '.join(FORMATS)}.")
    target = Path(folder) / to if out is None else Path(out)
    check_target(target, overwrite)
    masks = _labelled(folder) if to in {"davis", "napari"} else MaskFolder(folder)
    source = Source(
        masks,
        numbered(masks.all_obj_ids()),
        names_of(masks, video),
        category,
        progress or (lambda _: None),
    )
    module = importlib.import_module(f"longsam.masks.exports.{to}")
    with whole_folder(target, overwrite) as partial:
        cast(_Exporter, module).write(source, partial)
        objects = [{"number": number, "id": obj_id} for obj_id, number in source.numbers.items()]
        height, width = source.size
        table = {"format": to, "width": width, "height": height, "frames": len(masks)}
        write_table(partial, table | {"objects": objects})
    return target


def _labelled(folder: str | os.PathLike[str]) -> MaskFolder:
    """Read from indexed PNGs if there are any: they know which object is in front."""
    masks = MaskFolder(folder)
    return MaskFolder(folder, "png") if "png" in masks.formats else masks
