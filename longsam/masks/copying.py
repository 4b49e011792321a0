"""Masks from one folder to another, without decoding them."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longsam.masks.files import AppendFile, open_regular, sync
from longsam.masks.formats import ObjectPng, Png, Rle
from longsam.masks.index import Extent, Scan, naming, read_chunks, scan
from longsam.masks.lines import INDEX, FrameLine, Header, NewObject, parse_frame
from longsam.masks.overlay import DEFAULT_FRAME_RATE
from longsam.masks.overlay_file import ENDS, FINISHED, STREAM, copy_packets

_BLOCK_BYTES = 1 << 20


def copy_frames(folder: Path, target: Path, *, after: int = -1, until: int | None = None) -> int:
    """Copy frames in the order in which they were written, or append them to a target's.

    A copy from the beginning is complete: a `MaskWriter` can continue it.

    Args:
        folder: A `MaskWriter`'s folder.
        target: Another folder; existing masks in it must be of the same video and objects.
        after: The frame written just before the first one copied; -1 is the beginning.
        until: The last frame to copy; -1 copies none, None all.

    Returns:
        How many frames were copied.

    Raises:
        ValueError: A frame is not there, or the folder is damaged.
    """
    found = scan(folder / INDEX)
    if found.header is None:
        raise FileNotFoundError(f"{folder} holds no masks: there is no {INDEX} in it.")
    start, stop = (_up_to(folder, frame_idx) for frame_idx in (after, until))
    copy_records(folder, target, found, start, stop, found.header)
    if "overlay" in found.header.formats and stop.num_records and not start.num_records:
        copy_overlay(folder, target / STREAM, found.header, stop.num_records)
    sync(target)
    return stop.num_records - start.num_records


def copy_records(
    folder: Path, target: Path, found: Scan, start: Extent, stop: Extent, header: Header
) -> None:
    """Copy the lines between two extents and their masks, without the overlay.

    Args:
        folder: The masks' folder.
        target: Where they go.
        found: What the folder's index holds.
        start: The extent before the first frame.
        stop: The extent up to the last frame.
        header: For the target, if it has none.
    """
    assert found.header is not None
    there = scan(target / INDEX)
    numbers: dict[object, NewObject] = {new.obj_id: new for new in found.whole.objects}
    named: set[object] = {new.obj_id for new in there.whole.objects}
    size = 0
    if there.header is not None and there.whole.last_line:
        size = sum(parse_frame(there.whole.last_line, there.header).rle or (0, 0))
    index = AppendFile(target / INDEX, there.whole.end)
    first_byte = last_byte = None
    try:
        if there.header is None:
            index.write(header.to_line())
        for chunk in read_chunks(folder / INDEX, max(start.end, found.start), stop.end):
            starts = np.concatenate([[chunk.start], chunk.ends[:-1]])
            for at, end in zip(starts.tolist(), chunk.ends.tolist(), strict=True):
                with naming(folder / INDEX, at):
                    line = parse_frame(
                        chunk.data[at - chunk.start : end - chunk.start], found.header
                    )
                rle = None
                if line.rle is not None:
                    first_byte = line.rle[0] if first_byte is None else first_byte
                    last_byte = sum(line.rle)
                    rle = line.rle[0] - first_byte + size, line.rle[1]
                new = [numbers[i] for i in line.obj_ids if i in numbers and i not in named]
                named.update(line.obj_ids)
                copy = replace(line, rle=rle, new=new)
                index.write(copy.to_line(header.formats))
                _link_pngs(folder, target, line)
        index.sync()
    finally:
        index.close()
    if first_byte is not None and last_byte is not None:
        copy_bytes(folder / Rle.FILE, first_byte, last_byte, target / Rle.FILE, size)


def copy_overlay(folder: Path, target: Path, header: Header, stop: int, start: int = 0) -> None:
    """Copy frames of an overlay; see `copy_packets`.

    Args:
        folder: The masks' folder.
        target: `overlay.ts`, which a writer continues, or an MP4.
        header: The masks' header.
        stop: The frame after the last, counted as they were written.
        start: The first frame.
    """
    stream = folder / STREAM
    source = stream if stream.exists() else folder / FINISHED
    rate = header.frame_rate or DEFAULT_FRAME_RATE
    if target.name != STREAM:
        copy_packets(source, target, rate, start, stop)
        return
    ends = AppendFile(target.parent / ENDS)
    try:
        copy_packets(source, target, rate, start, stop, ends)
        ends.sync()
    finally:
        ends.close()


def _up_to(folder: Path, frame_idx: int | None) -> Extent:
    found = scan(folder / INDEX, frame_idx)
    extent = found.whole if frame_idx is None else found.cut
    if extent is None:
        raise ValueError(f"{folder} holds no masks of frame {frame_idx}.")
    return extent


def copy_bytes(source: Path, start: int, stop: int, target: Path, size: int) -> None:
    """Append a part of a file to what is kept of another one, and sync it.

    Args:
        source: The file.
        start: The first byte.
        stop: The byte after the last one.
        target: The other file.
        size: How many of its bytes are kept.

    Raises:
        ValueError: The file is shorter than that.
    """
    file = AppendFile(target, size)
    try:
        with open_regular(source) as source_file:
            source_file.seek(start)
            while start < stop:
                block = source_file.read(min(_BLOCK_BYTES, stop - start))
                if not block:
                    raise ValueError(f"{source} is cut off: {stop - start} bytes are missing.")
                start += file.write(block)
        file.sync()
    finally:
        file.close()


def _link_pngs(folder: Path, target: Path, line: FrameLine) -> None:
    _link(Png.path(folder, line.frame_idx), Png.path(target, line.frame_idx))
    for obj_id in line.obj_ids:
        _link(*(ObjectPng.path(where, obj_id, line.frame_idx) for where in (folder, target)))


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy if the file system has no links."""
    if source.is_symlink() or not source.is_file() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def frames_written(folder: Path, until: int | None = None) -> npt.NDArray[np.int64]:
    """The frames of a folder in the order in which they were written.

    Args:
        folder: A `MaskWriter`'s folder.
        until: Up to the last writing of this frame; None is all.

    Raises:
        ValueError: The frame is not there, or the folder is damaged.
    """
    start, stop = scan(folder / INDEX).start, _up_to(folder, until).end
    chunks = [chunk.frames for chunk in read_chunks(folder / INDEX, start, stop)]
    return np.concatenate(chunks) if chunks else np.empty(0, np.int64)
