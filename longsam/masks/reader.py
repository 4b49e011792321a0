"""read_masks: masks from disk, as they were. The folder need not be trusted."""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from longsam.masks import png, rle
from longsam.masks.files import open_regular
from longsam.masks.formats import ObjectPng, Png, Rle
from longsam.masks.ids import ObjectId
from longsam.masks.index import Extent, naming, read_chunks, scan
from longsam.masks.lines import (
    INDEX,
    MAX_LINE_BYTES,
    Box,
    FrameLine,
    parse_frame,
    parse_json,
)
from longsam.masks.record import MaskArray

READABLE = ("rle", "object_png", "png")


class FrameMasks(NamedTuple):
    """The masks of one frame: bool, num_objects x height x width."""

    frame_idx: int
    obj_ids: list[ObjectId]
    masks: MaskArray


class MaskFolder:
    """What a `MaskWriter` wrote: 16 bytes per frame in memory, everything else read on demand.

    The folder may come from anybody: all sizes are checked before anything is decoded, and nothing
    outside it is opened. (`video` was given by the writer; open it only if you trust the folder.)

    Args:
        folder: The writer's folder. It may still be written to; later frames are not seen.
        format: "rle", "object_png" or "png"; None takes the first of these that exists. "png" gives
            masks without overlap.
        max_frame_bytes: How much memory the masks of one frame may take, at one byte per pixel and
            object.

    Attributes:
        formats: What was written.
        size: (height, width) of the masks.
        video: The path of the video, if the writer was given it.

    Raises:
        FileNotFoundError: The folder holds no masks.
        ValueError: It holds no masks in this format, or its index is damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: str | None = None,
        *,
        max_frame_bytes: int = 1 << 29,
    ):
        self.folder = Path(folder)
        self._path = self.folder / INDEX
        self._max_frame_bytes = max_frame_bytes
        header, start, whole, _ = scan(self._path)
        if header is None:
            raise FileNotFoundError(f"{self.folder} holds no masks: there is no {INDEX} in it.")
        there = [known for known in READABLE if known in header.formats]
        if format is not None and format not in there:
            raise ValueError(
                f"{self.folder} holds the formats {list(header.formats)}; {format!r} cannot be "
                f"read from it, but {' or '.join(map(repr, there)) or 'none'} can."
            )
        if not there:
            raise ValueError(
                f"{self.folder} holds only an overlay, from which masks cannot be read."
            )
        self.format = format or there[0]
        self.formats = header.formats
        self.size = header.size
        self.video = header.video
        self._header = header
        self._numbers = {new.obj_id: new.number for new in whole.objects}
        self._frames, self._starts = _frames(self._path, start, whole)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[FrameMasks]:
        return map(self.read, self.frames)

    @cached_property
    def frames(self) -> list[int]:
        """The indices of all complete frames, ascending."""
        frames: list[int] = self._frames.tolist()
        return frames

    def obj_ids(self, frame_idx: int) -> list[ObjectId]:
        """The objects of a frame."""
        return self._line(frame_idx).obj_ids

    def all_obj_ids(self) -> list[ObjectId]:
        """The objects of all frames, in order of appearance."""
        return list(dict.fromkeys(obj_id for line in self.lines() for obj_id in line.obj_ids))

    def lines(self, frames: Iterable[int] | None = None) -> Iterator[FrameLine]:
        """The index's line for each frame, without the masks; fast over many frames.

        Args:
            frames: Indices of frames; None is all.

        Raises:
            KeyError: One of them was never written.
            ValueError: A line is damaged.
        """
        with open_regular(self._path) as file:
            if frames is not None:
                yield from (self._read_line(file, frame_idx) for frame_idx in frames)
                return
            at = 0  # most lines are adjacent and need no seek
            for frame_idx, start in zip(self.frames, self._starts.tolist(), strict=True):
                if start != at:
                    file.seek(start)
                content = file.readline(MAX_LINE_BYTES)
                at = start + len(content)
                yield self._parsed(content, start, frame_idx)

    def areas(self, frame_idx: int) -> list[int]:
        """Number of pixels of each object's mask on a frame."""
        return self._line(frame_idx).areas

    def boxes(self, frame_idx: int) -> list[Box | None]:
        """x0, y0, x1, y1 around each object's mask, x1 and y1 exclusive; None for an empty mask."""
        return self._line(frame_idx).boxes

    def scores(self, frame_idx: int) -> list[float | None]:
        """The object score of each object, above 0 where the model saw it; None if the writer was
        not given it.
        """
        return self._line(frame_idx).scores

    def ious(self, frame_idx: int) -> list[float | None]:
        """The IoU with the truth that the model predicted for each mask; None as in `scores`."""
        return self._line(frame_idx).ious

    def time(self, frame_idx: int) -> float | None:
        """The frame's time stamp in seconds; None if the writer was not given it."""
        return self._line(frame_idx).time

    def read(self, frame_idx: int) -> FrameMasks:
        """The masks of one frame.

        Raises:
            KeyError: No masks of this frame were written.
            ValueError: They are damaged, or take more than `max_frame_bytes`.
        """
        line = self._line(frame_idx)
        ids = line.obj_ids
        num_bytes = len(ids) * self.size[0] * self.size[1]
        if num_bytes > self._max_frame_bytes:
            raise ValueError(
                f"{self._path}: the masks of frame {frame_idx} take {num_bytes} bytes, and "
                f"max_frame_bytes is {self._max_frame_bytes}. If you trust the folder, give "
                "MaskFolder more."
            )
        masks = np.zeros((len(ids), *self.size), bool)
        if self.format == "rle":
            self._read_rle(line, masks)
        elif self.format == "png":
            path = Png.path(self.folder, frame_idx)
            labels = png.read(path, self.size, "P")
            for mask, obj_id in zip(masks, ids, strict=True):
                if obj_id not in self._numbers:
                    raise ValueError(f"{self._path}: no line has the number of object {obj_id!r}.")
                mask[:] = labels == self._numbers[obj_id]
        else:
            for mask, obj_id in zip(masks, ids, strict=True):
                mask[:] = png.read(ObjectPng.path(self.folder, obj_id, frame_idx), self.size, "1")
        return FrameMasks(frame_idx, ids, masks)

    def _line(self, frame_idx: int) -> FrameLine:
        with open_regular(self._path) as file:
            return self._read_line(file, frame_idx)

    def _read_line(self, file: BinaryIO, frame_idx: int) -> FrameLine:
        at = int(np.searchsorted(self._frames, frame_idx))
        if at == len(self._frames) or self._frames[at] != frame_idx:
            raise KeyError(frame_idx)
        start = int(self._starts[at])
        file.seek(start)
        return self._parsed(file.readline(MAX_LINE_BYTES), start, frame_idx)

    def _parsed(self, content: bytes, start: int, frame_idx: int) -> FrameLine:
        with naming(self._path, start):
            line = parse_frame(content, self._header)
            if line.frame_idx != frame_idx:
                raise ValueError(f"it is no longer frame {frame_idx}: the file has changed")
            return line

    def _read_rle(self, line: FrameLine, masks: MaskArray) -> None:
        assert line.rle is not None
        start, length = line.rle
        path = self.folder / Rle.FILE
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(start, size))
            content = file.read(length)
        with naming(path, min(start, size)):
            if len(content) < length:
                raise ValueError(
                    f"the file has {size} bytes, but frame {line.frame_idx} should be the "
                    f"{length} from {start}"
                )
            described = parse_json(content)
            objects = described.get("objects")
            if described.get("frame") != line.frame_idx or not isinstance(objects, list):
                raise ValueError(f"not the masks of frame {line.frame_idx}")
            ids = [entry.get("id") for entry in objects if isinstance(entry, dict)]
            if ids != line.obj_ids or len(ids) != len(objects):
                raise ValueError(f"other objects than {INDEX} has for frame {line.frame_idx}")
            for mask, entry in zip(masks, objects, strict=True):
                mask[:] = rle.decode(entry.get("segmentation"), self.size)


def _frames(
    path: Path, start: int, whole: Extent
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All frames, ascending, and where the last line of each begins."""
    all_frames, all_starts = (np.empty(whole.num_records, np.int64) for _ in range(2))
    at = 0
    for chunk in read_chunks(path, start, whole.end):
        to = at + len(chunk.frames)
        all_frames[at:to] = chunk.frames
        all_starts[at], all_starts[at + 1 : to] = chunk.start, chunk.ends[:-1]
        at = to
    if at < whole.num_records:
        raise ValueError(f"{path} was cut while it was being read; open it again.")
    if not (np.diff(all_frames) > 0).all():
        order = np.argsort(all_frames, kind="stable")
        ordered = all_frames[order]
        # If a frame was written twice, the later one counts.
        is_last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
        all_frames, all_starts = ordered[is_last], all_starts[order][is_last]
    return all_frames, all_starts


def read_masks(folder: str | os.PathLike[str], format: str | None = None) -> Iterator[FrameMasks]:
    """Iterate over what a `MaskWriter` wrote, by frame index.

    Args:
        folder: The writer's folder.
        format: As in `MaskFolder`.

    Yields:
        (frame_idx, obj_ids, masks), the masks bool, num_objects x height x width.
    """
    return iter(MaskFolder(folder, format))
