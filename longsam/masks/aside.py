"""What a writer drops, kept in a folder of its own."""

import datetime
import os
import shutil
from array import array
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from longsam.masks.files import AppendFile, open_regular, sync
from longsam.masks.formats import ObjectPng, Png, Rle
from longsam.masks.index import Extent, Scan, naming, read_chunks
from longsam.masks.lines import INDEX, Header, NewObject, parse_frame
from longsam.masks.output import frames_between, remove_pngs
from longsam.masks.overlay import DEFAULT_FRAME_RATE
from longsam.masks.overlay_file import FINISHED, STREAM, copy_packets


def keep_aside(folder: Path, found: Scan, kept: Extent) -> Path:
    """Move the frames after an extent into a dated folder within the folder.

    `read_masks` reads it. An overlay there begins with the last keyframe before, so it may show up
    to 60 frames more.

    Args:
        folder: Of the masks.
        found: What its index holds.
        kept: What stays.

    Returns:
        The new folder, `dropped-20261124-231500`.
    """
    assert found.header is not None
    aside = _new_folder(folder)
    try:
        dropped = _copy(folder, aside, found, kept)
    except BaseException:  # nothing has been taken away yet
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
    numbers: dict[object, NewObject] = {new.obj_id: new for new in found.whole.objects}
    named: set[object] = set()
    index, first_byte = AppendFile(aside / INDEX), None
    index.write(header.to_line())
    for chunk in read_chunks(folder / INDEX, kept.end, found.whole.end):
        starts = np.concatenate([[chunk.start], chunk.ends[:-1]])
        for start, end in zip(starts.tolist(), chunk.ends.tolist(), strict=True):
            with naming(folder / INDEX, start):
                line = parse_frame(
                    chunk.data[start - chunk.start : end - chunk.start], found.header
                )
            rle = None
            if line.rle is not None:
                first_byte = line.rle[0] if first_byte is None else first_byte
                rle = line.rle[0] - first_byte, line.rle[1]
            new = [numbers[i] for i in line.obj_ids if i in numbers and i not in named]
            named.update(line.obj_ids)
            index.write(replace(line, rle=rle, new=new).to_line(formats))
            _link(Png.path(folder, line.frame_idx), Png.path(aside, line.frame_idx))
            for obj_id in line.obj_ids:
                paths = (ObjectPng.path(where, obj_id, line.frame_idx) for where in (folder, aside))
                _link(*paths)
    index.sync()
    index.close()
    if first_byte is not None:
        with open_regular(folder / Rle.FILE) as source, open(aside / Rle.FILE, "wb") as target:
            source.seek(first_byte)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    if "overlay" in found.header.formats:
        stream = folder / STREAM
        source_path = stream if stream.exists() else folder / FINISHED
        rate: Fraction = found.header.frame_rate or DEFAULT_FRAME_RATE
        copy_packets(source_path, aside / FINISHED, rate, kept.num_records, found.whole.num_records)
    sync(aside)
    return frames_between(folder / INDEX, kept.end, found.whole.end)


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    if source.is_symlink() or not source.is_file() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
