"""Which frames of a folder have masks, and what the timeline shows of them."""

import math
import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longsam.masks.files import open_regular
from longsam.masks.formats import Rle
from longsam.masks.index import naming, read_chunks, read_header
from longsam.masks.lines import INDEX, FrameLine, Header, parse_frame, parse_json

TILE_BINS = 256

Codes = npt.NDArray[np.uint8]


class Tracked:
    """The index of a mask folder that may still grow: 9 bytes a frame, and 2 for each object.

    Args:
        folder: Where a `MaskWriter` writes. It need not exist yet.
        num_frames: Of the video.

    Attributes:
        version: Grows whenever more was read.
        obj_ids: The objects of all frames, in order of appearance.
    """

    def __init__(self, folder: Path, num_frames: int):
        self.folder, self.num_frames = folder, num_frames
        self.version = 0
        self.obj_ids: list[int | str] = []
        self._starts = np.full(num_frames, -1, np.int64)
        self._is_reverse = np.zeros(num_frames, bool)
        self._areas: dict[Any, Codes] = {}
        self._scores: dict[Any, Codes] = {}
        self._header: Header | None = None
        self._end = 0
        self._last = -2  # the frame of the last line
        self._is_first = False  # whether that line did not continue the one before

    def refresh(self) -> list[int]:
        """Read the lines that are new; gives their frames, as they were written."""
        path = self.folder / INDEX
        if self._header is None:
            self._header, self._end = read_header(path)
            if self._header is None:
                return []
        frames: list[int] = []
        for chunk in read_chunks(path, self._end):
            starts, lines = [chunk.start, *chunk.ends.tolist()], []
            for (start, end), frame_idx in zip(
                pairwise(starts), chunk.frames.tolist(), strict=True
            ):
                with naming(path, start):
                    line = parse_frame(
                        chunk.data[start - chunk.start : end - chunk.start], self._header
                    )
                    if line.frame_idx != frame_idx:
                        raise ValueError(f'"frame" is there twice: {frame_idx}, {line.frame_idx}')
                    if frame_idx >= self.num_frames:
                        raise ValueError(
                            f"frame {frame_idx}, but the video has {self.num_frames} frames"
                        )
                lines.append(line)
            self._note_order(chunk.frames)
            self._starts[chunk.frames] = starts[:-1]
            self._note_objects({line.frame_idx: line for line in lines})  # the last one counts
            frames += chunk.frames.tolist()
            self._end = starts[-1]
        self.version += bool(frames)
        return frames

    def __contains__(self, frame_idx: int) -> bool:
        return 0 <= frame_idx < self.num_frames and bool(self._starts[frame_idx] >= 0)

    def is_reverse(self, frame_idx: int) -> bool:
        """Whether the pass that wrote a frame last ran towards frame 0."""
        return bool(self._is_reverse[frame_idx])

    def spans(self) -> list[tuple[int, int]]:
        """First and last frame of each run of frames with masks."""
        there = np.concatenate([[False], self._starts >= 0, [False]])
        edges = np.flatnonzero(there[1:] != there[:-1])
        return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def end_of_span(self, frame_idx: int, *, reverse: bool) -> int:
        """The last frame that has masks without a gap from this one."""
        rest = self._starts[: frame_idx + 1][::-1] if reverse else self._starts[frame_idx:]
        gaps = np.flatnonzero(rest < 0)
        distance = (int(gaps[0]) if len(gaps) else len(rest)) - 1
        return frame_idx - distance if reverse else frame_idx + distance

    def masks(self, frame_idx: int) -> list[dict[str, Any]]:
        """The objects of a frame: id, counts (COCO's run lengths), area, score, iou.

        Raises:
            ValueError: The folder is damaged, or holds no run lengths.
        """
        assert self._header is not None
        path, start = self.folder / INDEX, int(self._starts[frame_idx])
        with open_regular(path) as file:
            file.seek(start)
            content = file.readline()
        with naming(path, start):
            line = parse_frame(content, self._header)
            if line.rle is None:
                raise ValueError(
                    'the folder has no masks in the format "rle", which the page shows'
                )
        with open_regular(self.folder / Rle.FILE) as file:
            file.seek(line.rle[0])
            described = parse_json(file.read(line.rle[1]))
        entries = described.get("objects")
        if described.get("frame") != frame_idx or not isinstance(entries, list):
            raise ValueError(f"{self.folder / Rle.FILE} does not hold frame {frame_idx} there.")
        masks = []
        for obj_id, area, score, iou, entry in zip(
            line.obj_ids, line.areas, line.scores, line.ious, entries, strict=True
        ):
            counts = entry.get("segmentation", {}).get("counts", "")
            masks.append({"id": obj_id, "counts": counts, "area": area, "score": score, "iou": iou})
        return masks

    def tile(self, level: int, number: int, obj_ids: Iterable[Any]) -> bytes:
        """A part of the timeline: for each object least and greatest area, and least score.

        Args:
            level: A bin is 2 ** level frames.
            number: The tile starts at frame number * 256 * 2 ** level.
            obj_ids: The rows.

        Returns:
            Two uint32 (rows, version), then 3 x 256 bytes a row (`area_codes`, `score_codes`).
        """
        rows = list(obj_ids)
        first, size = number * TILE_BINS << level, TILE_BINS << level
        parts = [struct.pack("<II", len(rows), self.version)]
        parts += [part for obj_id in rows for part in self._row(obj_id, first, size, level)]
        return b"".join(parts)

    def _row(self, obj_id: Any, first: int, size: int, level: int) -> Iterator[bytes]:
        areas = self._areas.get(obj_id)
        if areas is None or first >= self.num_frames:
            yield bytes(3 * TILE_BINS)
            return
        areas, scores = (
            np.pad(part, (0, size - len(part))).reshape(TILE_BINS, 1 << level)
            for part in (codes[first : first + size] for codes in (areas, self._scores[obj_id]))
        )
        yield _least(areas)
        yield bytes(areas.max(axis=1))
        yield _least(scores)

    def _note_order(self, frames: npt.NDArray[np.int64]) -> None:
        """Tell lines that a pass wrote towards frame 0."""
        before = np.concatenate([[self._last], frames[:-1]])
        is_back = frames == before - 1
        is_first = np.concatenate([[self._is_first], np.abs(frames - before) != 1])
        begins_one = is_back & is_first[:-1]  # the line before began a pass towards frame 0
        if begins_one[0]:
            self._is_reverse[self._last] = True
        self._is_reverse[frames] = is_back | np.concatenate([begins_one[1:], [False]])
        self._last, self._is_first = int(frames[-1]), bool(is_first[-1])

    def _note_objects(self, lines: dict[int, FrameLine]) -> None:
        """Note areas and scores of frames, by their index."""
        for obj_id in dict.fromkeys(obj_id for line in lines.values() for obj_id in line.obj_ids):
            if obj_id not in self._areas:
                self.obj_ids.append(obj_id)
                self._areas[obj_id] = np.zeros(self.num_frames, np.uint8)
                self._scores[obj_id] = np.zeros(self.num_frames, np.uint8)
        assert self._header is not None
        pixels = self._header.size[0] * self._header.size[1]
        frames = np.fromiter(lines, np.int64, len(lines))
        rows = {obj_id: number for number, obj_id in enumerate(self.obj_ids)}
        places = [rows[obj_id] for line in lines.values() for obj_id in line.obj_ids]
        columns = np.repeat(np.arange(len(lines)), [len(line.obj_ids) for line in lines.values()])
        codes = np.zeros((2, len(rows), len(lines)), np.uint8)  # 0 for one that is not there
        for code, numbers in (
            (
                codes[0],
                area_codes([area for line in lines.values() for area in line.areas], pixels),
            ),
            (codes[1], score_codes([score for line in lines.values() for score in line.scores])),
        ):
            code[places, columns] = numbers
        for obj_id, row in rows.items():
            self._areas[obj_id][frames], self._scores[obj_id][frames] = codes[:, row]


def _least(codes: Codes) -> bytes:
    """The least of each bin that is known; 0 where none is."""
    least = (codes - np.uint8(1)).min(axis=1) + np.uint8(1)  # 0 wraps around to 255
    return bytes(least.astype(np.uint8))


def area_codes(areas: list[int], pixels: int) -> Codes:
    """1 for an empty mask, then 2 to 255 by the logarithm, from one pixel to the whole frame."""
    numbers = np.array(areas, np.float64)
    codes = 2 + np.rint(253 * np.log(np.maximum(numbers, 1)) / max(math.log(pixels), 1))
    return np.where(numbers == 0, 1, codes).astype(np.uint8)


def score_codes(scores: list[float | None]) -> Codes:
    """0 where it is not known, else 1 to 255 for object scores from -10 to 10."""
    numbers = np.array(scores, np.float64)  # NaN where there is none
    codes = 1 + np.rint(254 * np.clip((numbers + 10) / 20, 0, 1))
    return np.where(np.isnan(numbers), 0, codes).astype(np.uint8)
