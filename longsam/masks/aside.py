"""Keep what a writer drops, and formats that are given up, in a separate folder."""

import datetime
import os
import shutil
from array import array
from dataclasses import replace
from pathlib import Path

from longsam.masks.copying import copy_bytes, copy_overlay, copy_records
from longsam.masks.files import AppendFile, sync
from longsam.masks.index import Extent, Scan, read_header
from longsam.masks.lines import INDEX, Header
from longsam.masks.lock import FolderLock
from longsam.masks.output import frames_between, remove_pngs
from longsam.masks.overlay_file import ENDS, FINISHED, STREAM

FILES_BESIDE_RLE = ("png", "object_png", FINISHED, STREAM, ENDS)
"""Files and folders of the other formats."""


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
    aside = _new_folder(folder, "dropped")
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


def keep_only_rle(folder: Path) -> list[Path]:
    """Give up all formats but "rle": their files are moved into a dated folder within the folder.

    A writer then continues with "rle" alone. If killed, calling it again continues. Links stay.

    Args:
        folder: A folder of masks that has "rle" among its formats.

    Returns:
        Where the files are now; none if there are none.

    Raises:
        RuntimeError: A writer holds the folder.
    """
    lock = FolderLock(folder)
    try:
        header, start = read_header(folder / INDEX)
        if header is None:
            return []
        if header.formats != ("rle",):
            _write_header(folder, replace(header, formats=("rle",)), start)
        paths = [folder / name for name in FILES_BESIDE_RLE]
        there = [path for path in paths if path.exists() and not path.is_symlink()]
        if not there:
            return []
        aside = _new_folder(folder, "moved")
        moved = [path.rename(aside / path.name) for path in there]
        sync(aside)
        sync(folder)
        return moved
    finally:
        lock.release()


def _write_header(folder: Path, header: Header, start: int) -> None:
    """Replace the header of an index, whose frames begin at a byte."""
    path, partial, line = folder / INDEX, folder / f"{INDEX}.partial", header.to_line()
    index = AppendFile(partial)
    try:
        index.write(line)
    finally:
        index.close()
    copy_bytes(path, start, path.stat().st_size, partial, len(line))
    os.replace(partial, path)
    sync(folder)


def _new_folder(folder: Path, word: str) -> Path:
    stem = f"{word}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
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
