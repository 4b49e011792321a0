"""Scan `frames.jsonl` at constant memory, and name the line that is damaged."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from longsam.masks.files import open_regular
from longsam.masks.lines import (
    MAX_LINE_BYTES,
    Header,
    NewObject,
    parse_frame,
    parse_header,
)

_BLOCK_BYTES = 1 << 20
_FRAME = re.compile(rb'^\{"frame":(0|[1-9]\d{0,17}),.*\}$', re.MULTILINE)
_NEW = re.compile(rb'^\{"frame":\d{1,18},"new":.*$', re.MULTILINE)


@dataclass(frozen=True)
class Extent:
    """The first lines of an index.

    Args:
        num_records: How many frames' lines.
        end: Where the last of them ends, in bytes.
        last_frame_idx: The frame of the last one.
        last_line: The last line, in bytes.
        objects: The table of the objects in them.
    """

    num_records: int = 0
    end: int = 0
    last_frame_idx: int | None = None
    last_line: bytes = b""
    objects: list[NewObject] = field(default_factory=list)


class Chunk(NamedTuple):
    """Complete lines of an index: the frame of each, where each ends, and their bytes."""

    frames: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    data: bytes
    start: int


def read_header(path: Path) -> tuple[Header | None, int]:
    """The header and where the first frame's line begins; None while no line is complete.

    Raises:
        ValueError: It is not an index, or of another version.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return None, 0
    with file:
        line = file.readline(MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        if len(line) == MAX_LINE_BYTES:
            raise ValueError(f"{path}, line 1: longer than {MAX_LINE_BYTES} bytes.")
        return None, 0
    with naming(path, 0):
        return parse_header(line), len(line)


def read_chunks(path: Path, start: int, stop: int | None = None) -> Iterator[Chunk]:
    """Read the frames' lines; what comes after the last newline is an incomplete line.

    Args:
        path: The index.
        start: Where a line begins, in bytes.
        stop: Where a line ends, in bytes; None reads to the last whole line.

    Raises:
        ValueError: A line is damaged; the message names it.
    """
    with open_regular(path) as file:
        file.seek(start)
        rest = b""
        while block := file.read(
            _BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - start - len(rest))
        ):
            data = rest + block
            end = data.rfind(b"\n") + 1
            data, rest = data[:end], data[end:]
            if len(rest) > MAX_LINE_BYTES:
                raise _damaged(path, start + end, f"longer than {MAX_LINE_BYTES} bytes")
            if not data:
                continue
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
            frames = _FRAME.findall(data)
            if len(frames) != len(ends):
                first = next(
                    at
                    for at, to in zip([0, *ends[:-1]], ends, strict=True)
                    if not _FRAME.fullmatch(data[at : to - 1])
                )
                raise _damaged(path, start + int(first), 'not of the form {"frame":0,...}')
            yield Chunk(np.array(frames, "S18").astype(np.int64), ends + start, data, start)
            start += end


class Scan(NamedTuple):
    """What an index holds.

    Args:
        header: The first line; None if there is no index.
        start: Where the first frame's line begins, in bytes.
        whole: The extent of all lines.
        cut: The extent up to the last line of the frame asked for; None if it has none.
    """

    header: Header | None
    start: int
    whole: Extent
    cut: Extent | None


def scan(path: Path, until: int | None = None, stop: int | None = None) -> Scan:
    """Scan an index at constant memory.

    Args:
        path: The index; it may be missing.
        until: A frame; -1 means the beginning.
        stop: Where a line ends, in bytes; None reads to the last whole line.

    Raises:
        ValueError: A line is damaged; the message names it.
    """
    header, start = read_header(path)
    if header is None:
        return Scan(None, 0, Extent(), None)
    whole = Extent(end=start)
    cut = whole if until == -1 else None
    table: list[tuple[int, NewObject]] = []  # and the record in which each first came
    num_records = 0
    for chunk in read_chunks(path, start, stop):
        for match in _NEW.finditer(chunk.data):
            at = chunk.start + match.start()
            with naming(path, at):
                record = num_records + int(np.searchsorted(chunk.ends, at, side="right"))
                table += [(record, new) for new in parse_frame(match[0], header).new]
        if until is not None and (chunk.frames == until).any():
            last = int(np.flatnonzero(chunk.frames == until)[-1])
            cut = _extent(chunk, last, num_records, table)
        whole = _extent(chunk, len(chunk.frames) - 1, num_records, table)
        num_records += len(chunk.frames)
    return Scan(header, start, whole, cut)


def _extent(chunk: Chunk, at: int, num_before: int, table: list[tuple[int, NewObject]]) -> Extent:
    """Up to the n-th line of a chunk."""
    first = int(chunk.ends[at - 1]) if at else chunk.start
    end = int(chunk.ends[at])
    objects = [new for record, new in table if record <= num_before + at]
    line = chunk.data[first - chunk.start : end - chunk.start]
    return Extent(num_before + at + 1, end, int(chunk.frames[at]), line, objects)


@contextmanager
def naming(path: Path, start: int) -> Iterator[None]:
    """Make errors about a line name the file and the line.

    Args:
        path: The file.
        start: Where the line begins, in bytes.
    """
    try:
        yield
    except ValueError as error:
        raise _damaged(path, start, str(error)) from error


def _damaged(path: Path, start: int, why: str) -> ValueError:
    """The error; lines are counted only when it is needed."""
    with open_regular(path) as file:
        return ValueError(f"{path}, line {_num_lines(file, start) + 1}: {why}.")


def _num_lines(file: BinaryIO, stop: int) -> int:
    count = 0
    while stop > 0 and (block := file.read(min(stop, _BLOCK_BYTES))):
        count += block.count(b"\n")
        stop -= len(block)
    return count
