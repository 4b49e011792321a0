"""Rewinding: what was tracked, in segments that can be tracked again from files on disk.

Upstream holds the latest output for each object and frame, so we note which segment wrote it
(`Memory.segment_of`). A segment is a stretch of one pass during which nothing else changed what is
remembered, so it can be tracked again from its snapshots, bit for bit.
"""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from longsam import storage
from longsam.frame_map import FrameMap
from longsam.options import Snapshots

FORMAT = 1
_PREFIX = "longsam-snapshots-"
_FILE_NAME = re.compile(r"segment_\d{5,12}_frame_\d{8,12}\.pt")


@dataclass
class Segment:
    """A stretch of a pass that can be tracked again.

    Attributes:
        number: Its number, from 1.
        reverse: The direction of its pass.
        obj_ids: The objects that it tracks.
        snapshots: Files, by the frame that is tracked next from each, in the order of the pass.
        tried: The frame before which a snapshot was last taken, or tried and failed.
    """

    number: int
    reverse: bool
    obj_ids: list[Any]
    snapshots: dict[int, Path] = field(default_factory=dict)
    tried: int | None = None

    def serves(self) -> list[tuple[int, range]]:
        """For each snapshot, the frames that are tracked again from it (the last is open)."""
        step = -1 if self.reverse else 1
        firsts = [*self.snapshots, -1 if self.reverse else 1 << 62]
        return [(first, range(first, end, step)) for first, end in pairwise(firsts)]

    def snapshot_before(self, frame_idx: int) -> int | None:
        """The frame of the last snapshot from which a frame can be reached."""
        return next((first for first, frames in self.serves() if frame_idx in frames), None)


class History:
    """The segments of one session, and their snapshots on disk.

    Only files with this session's key are read, and only files in its own folder with our names are
    removed.
    """

    def __init__(self, options: Snapshots):
        self.every = options.every
        self.max_bytes = options.max_bytes
        if options.folder is None:
            self.folder, self._remove_folder = storage.temporary_folder(self, _PREFIX)
        else:
            self.folder = Path(os.path.abspath(options.folder))
            if self.folder.is_symlink():
                raise ValueError(f"{self.folder} is a link; name the folder for snapshots itself.")
            self.folder.mkdir(parents=True, exist_ok=True)
        self.is_temporary = options.folder is None
        self.segments: dict[int, Segment] = {}
        self._key = secrets.token_hex(16)  # tells this session's files from others'
        self._num_ever = 0
        self.has_failed = False  # whether the last write of a snapshot failed
        self._is_tidy = False  # whether the folder holds nothing but these

    @property
    def num_bytes(self) -> int:
        """Disk space in use."""
        return sum(
            path.stat().st_size
            for segment in self.segments.values()
            for path in segment.snapshots.values()
            if path.exists()
        )

    def new_segment(self, obj_ids: list[Any], *, reverse: bool) -> Segment:
        """A pass begins, or continues after something else happened."""
        self._tidy()
        self._num_ever += 1
        segment = Segment(self._num_ever, reverse, list(obj_ids))
        self.segments[segment.number] = segment
        return segment

    def is_due(self, segment: Segment, next_frame_idx: int) -> bool:
        """Whether a snapshot should be taken before a frame is tracked."""
        return segment.tried is None or abs(next_frame_idx - segment.tried) >= self.every

    def add(self, segment: Segment, next_frame_idx: int, content: dict[str, Any]) -> None:
        """Write a snapshot.

        Raises:
            OSError: It cannot be written. The next attempt comes `every` frames later.
        """
        self._tidy()
        segment.tried = next_frame_idx
        path = self.folder / f"segment_{segment.number:05d}_frame_{next_frame_idx:08d}.pt"
        storage.write({"longsam_snapshot": FORMAT, "key": self._key, "memories": content}, path)
        self.has_failed = False
        segment.snapshots[next_frame_idx] = path
        self._keep_within_bytes(segment)

    def read(self, segment: Segment, first: int) -> dict[str, Any]:
        """The content that `add` was given.

        Raises:
            ValueError: The file is damaged, or another session's.
            FileNotFoundError: It is gone.
        """
        path = segment.snapshots[first]
        content = storage.read(path, "longsam_snapshot", "snapshot", FORMAT)
        if content.get("key") != self._key:
            raise ValueError(f"{path} is a snapshot of another session.")
        memories: dict[str, Any] = content["memories"]
        return memories

    def drop_replaced(self, writers: Iterable[FrameMap], running: set[int]) -> None:
        """Remove each snapshot if later segments have tracked all its frames again.

        Args:
            writers: For each object, the segment that tracked each frame last.
            running: The segments that may still grow; their last snapshot stays.
        """
        written: dict[int, list[range]] = {}
        for frames in writers:
            for start, stop, number in frames.runs():
                written.setdefault(number, []).append(range(start, stop))
        for segment in list(self.segments.values()):
            for first, served in segment.serves():
                is_last = first == next(reversed(segment.snapshots))
                is_needed = any(_overlap(served, run) for run in written.get(segment.number, []))
                if not is_needed and not (is_last and segment.number in running):
                    self._remove(segment, first)
            if not segment.snapshots and segment.number not in running:
                del self.segments[segment.number]

    def close(self) -> None:
        """Remove the folder if it is temporary; the user's own stays, so that it can be loaded."""
        if self.is_temporary:
            self._remove_folder()

    def to_plain(self) -> dict[str, Any]:
        """The list of snapshots, to be saved with the session."""
        return {
            "key": self._key,
            "num_ever": self._num_ever,
            "folder": None if self.is_temporary else self.folder.name,
            "segments": [
                {
                    "number": segment.number,
                    "reverse": segment.reverse,
                    "obj_ids": segment.obj_ids,
                    "tried": segment.tried,
                    "snapshots": {first: p.name for first, p in segment.snapshots.items()},
                }
                for segment in self.segments.values()
            ],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore a saved session's list of snapshots, as far as they are still in the folder.

        Raises:
            ValueError: A file's name is not one of ours.
        """
        self._key = str(saved["key"])
        self._num_ever = int(saved["num_ever"])
        for one in saved["segments"]:
            names = {int(first): name for first, name in one["snapshots"].items()}
            for name in names.values():
                if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
                    raise ValueError(f"a snapshot is named {name!r}")
            snapshots = {
                first: self.folder / name
                for first, name in names.items()
                if _is_plain_file(self.folder / name)
            }
            number = int(one["number"])
            # Where the last one is gone, the next is due at once.
            tried = one["tried"] if snapshots.keys() == names.keys() else None
            self.segments[number] = Segment(
                number, bool(one["reverse"]), list(one["obj_ids"]), snapshots, tried
            )

    def _tidy(self) -> None:
        """Remove what an interrupted session left in the folder, once."""
        if self._is_tidy:
            return
        known = {path for one in self.segments.values() for path in one.snapshots.values()}
        for path in self.folder.glob("segment_*_frame_*.pt*"):
            name = re.sub(r"\.\d+\.partial$", "", path.name)
            if path not in known and _FILE_NAME.fullmatch(name) and _is_plain_file(path):
                path.unlink(missing_ok=True)
        self._is_tidy = True

    def _keep_within_bytes(self, running: Segment) -> None:
        """Remove snapshots until `max_bytes` holds: those closest to others, then the oldest."""
        while self.max_bytes is not None and self.num_bytes > self.max_bytes:
            gaps = [
                (abs(firsts[at + 1] - firsts[at - 1]), segment.number, firsts[at])
                for segment in self.segments.values()
                for firsts in [list(segment.snapshots)]
                for at in range(1, len(firsts) - 1)
            ]
            if gaps:
                _, number, first = min(gaps)
                self._remove(self.segments[number], first)
                continue
            oldest = next(one for one in self.segments.values() if one.snapshots)
            if oldest is running and len(oldest.snapshots) <= 1:
                return  # keep at least one
            self._remove(oldest, next(iter(oldest.snapshots)))

    @staticmethod
    def _remove(segment: Segment, first: int) -> None:
        segment.snapshots.pop(first).unlink(missing_ok=True)


def _overlap(served: range, run: range) -> bool:
    """Whether a range, in either direction, shares a frame with a run."""
    if not served:
        return False
    low, high = min(served[0], served[-1]), max(served[0], served[-1])
    return low < run.stop and run.start <= high


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
