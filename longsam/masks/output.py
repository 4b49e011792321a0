"""All files of one writer: a frame is in all of them or in none."""

from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from longsam.masks.files import AppendFile, sync
from longsam.masks.formats import MaskFormat, ObjectPng, Png, Rle, free_number
from longsam.masks.ids import ObjectId
from longsam.masks.index import Extent, Scan, naming, read_chunks
from longsam.masks.lines import INDEX, FrameLine, Header, NewObject, parse_frame
from longsam.masks.overlay import DEFAULT_FRAME_RATE, Overlay
from longsam.masks.record import Record


class Output:
    """Files cut back to the frames that are kept, and open for more.

    Args:
        folder: Where they are.
        header: Formats and sizes; written if no frame is kept.
        found: What the index holds now.
        kept: The part of it that is kept.
        video: The frames of an overlay; None if they come with the records. It is closed with the
            files.

    Attributes:
        num_records: How many frames are complete.
        last_frame_idx: The last frame written.

    Raises:
        OSError: A file cannot be opened.
        RuntimeError: A file holds less than the index says.
        ValueError: The index is damaged.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        found: Scan,
        kept: Extent,
        video: Any = None,
    ):
        self.folder, self._header, self._video = folder, header, video
        self.num_records, self.last_frame_idx = kept.num_records, kept.last_frame_idx
        self._numbers: dict[ObjectId, int | None] = dict(kept.objects)
        self._rle: Rle | None = None
        self._formats: list[MaskFormat] = []
        self._index: AppendFile | None = None
        path = folder / INDEX
        rle_size = 0
        if kept.num_records:
            with naming(path, kept.end - len(kept.last_line)):
                start, length = parse_frame(kept.last_line, header).rle or (0, 0)
            rle_size = start + length
        dropped = frames_between(path, kept.end, found.whole.end)
        try:
            # Before the index, so that every frame in the index is complete in every format.
            self._index = AppendFile(path, kept.end if kept.num_records else 0)
            remove_pngs(folder, found, kept, dropped)
            for name in header.formats:
                self._formats.append(self._open(name, rle_size))
            if not kept.num_records:
                self._index.write(header.to_line())
        except BaseException:
            with suppress(Exception):  # the first error is raised
                self.close(complete=False)
            raise

    def write(self, record: Record) -> None:
        """Write the masks of a frame in every format, and then its line."""
        new = self._add(record.obj_ids)
        for mask_format in self._formats:
            mask_format.write(record)
        rle = self._rle.written if self._rle is not None else None
        scores = record.scores or [(None, None)] * len(record.obj_ids)
        line = FrameLine(
            record.frame_idx,
            record.obj_ids,
            record.areas,
            record.boxes,
            [object_score for object_score, _ in scores],
            [predicted_iou for _, predicted_iou in scores],
            self._time(record),
            rle,
            new,
        )
        assert self._index is not None
        self._index.write(line.to_line(self._header.formats))
        self.num_records += 1
        self.last_frame_idx = record.frame_idx

    def sync(self) -> None:
        """Wait until everything is on the disk itself, not only in the system's cache."""
        assert self._index is not None
        for mask_format in self._formats:
            mask_format.sync()
        self._index.sync()
        sync(self.folder)

    def close(self, *, complete: bool) -> None:
        """Close all files.

        Args:
            complete: No more frames follow; False leaves the files as a kill would.

        Raises:
            Exception: The first error; the other files are closed nevertheless.
        """
        first: BaseException | None = None
        for mask_format in self._formats:
            try:
                mask_format.close(complete=complete)
            except BaseException as error:
                first = first or error
        for other in (self._index, self._video):
            if other is not None:
                other.close()
        if first is not None:
            raise first

    def _open(self, name: str, rle_size: int) -> MaskFormat:
        if name == "rle":
            self._rle = Rle(self.folder, rle_size)
            return self._rle
        if name == "png":
            return Png(self.folder, self._numbers)
        if name == "object_png":
            return ObjectPng(self.folder)
        rate = self._header.frame_rate or DEFAULT_FRAME_RATE
        return Overlay(self.folder, self.num_records, rate, self._video)

    def _time(self, record: Record) -> float | None:
        if record.time is not None or self._video is None:
            return record.time
        time: float | None = self._video.time(record.frame_idx)  # the overlay has read the frame
        return time

    def _add(self, obj_ids: list[ObjectId]) -> list[NewObject]:
        """Add new objects to the table, which only PNGs need."""
        has_numbers = "png" in self._header.formats
        if not has_numbers and "object_png" not in self._header.formats:
            return []
        new = []
        for obj_id in obj_ids:
            if obj_id not in self._numbers:
                number = free_number(obj_id, self._numbers.values()) if has_numbers else None
                self._numbers[obj_id] = number
                new.append(NewObject(obj_id, number))
        return new


def frames_between(index: Path, start: int, stop: int) -> "array[int]":
    """The frames of some lines of an index, eight bytes each."""
    frames: array[int] = array("q")
    if stop > start:
        for chunk in read_chunks(index, start, stop):
            frames.frombytes(chunk.frames.tobytes())
    return frames


def remove_pngs(folder: Path, found: Scan, kept: Extent, dropped: "array[int]") -> None:
    """Remove the images of frames that are dropped.

    Args:
        folder: Where the index is, cut already.
        found: What it held.
        kept: What it holds now.
        dropped: The frames of the lines that were cut.
    """
    formats = found.header.formats if found.header else ()
    if not dropped or not {"png", "object_png"} & set(formats):
        return
    gone = np.unique(np.frombuffer(dropped, np.int64))
    if kept.num_records:  # a frame written twice and kept once still needs its image
        for chunk in read_chunks(folder / INDEX, found.start, kept.end):
            gone = gone[~np.isin(gone, chunk.frames)]
    for frame_idx in gone.tolist():
        if "png" in formats:
            _unlink(Png.path(folder, frame_idx))
        if "object_png" in formats:
            for obj_id, _ in found.whole.objects:
                _unlink(ObjectPng.path(folder, obj_id, frame_idx))


def _unlink(path: Path) -> None:
    if not path.parent.is_symlink() and not path.parent.parent.is_symlink():
        path.unlink(missing_ok=True)
