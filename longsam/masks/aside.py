"""Keep what a writer drops in a separate folder."""

import datetime
import shutil
from array import array
from pathlib import Path

from longsam.masks.copying import copy_overlay, copy_records
from longsam.masks.files import AppendFile, sync
from longsam.masks.index import Extent, Scan
from longsam.masks.lines import INDEX, Header
from longsam.masks.output import frames_between, remove_pngs
from longsam.masks.overlay_file import FINISHED


def keep_aside(folder: Path, found: Scan, kept: Extent) -> Path:
    """Move the frames after an extent into a dated folder within the folder.

    `read_masks` reads it. An overlay there begins at the last keyframe before them, so it may show
    up to 60 more frames.

    Args:
        folder: The masks' folder.
        found: What its index holds.
        kept: What stays.

    Returns:
        The new folder, `dropped-20261124-231500`.
    """
    assert found.header is not None
    aside = _new_folder(folder)
    try:
        dropped = _copy(folder, aside, found, kept)
    except BaseException:  # nothing has been moved yet
        shutil.rmtree(aside, ignore_errors=True)
        raise
    index = AppendFile(folder / INDEX, kept.end)
    index.sync()
    index.close()
    remove_pngs(folder, found, kept, dropped)
    return aside


def _new_folder(folder: Path) -> Path:
    stem = f"dropped-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"{folder} holds too many folders {stem}-...; remove some.")


def _copy(folder: Path, aside: Path, found: Scan, kept: Extent) -> "array[int]":
    """Copy what is dropped; returns its frames."""
    assert found.header is not None
    formats = tuple(name for name in found.header.formats if name != "overlay")
    header = Header(formats, found.header.size, found.header.video)
    copy_records(folder, aside, found, kept, found.whole, header)
    if "overlay" in found.header.formats:
        start, stop = kept.num_records, found.whole.num_records
        copy_overlay(folder, aside / FINISHED, found.header, stop, start)
    sync(aside)
    return frames_between(folder / INDEX, kept.end, found.whole.end)
