"""Going back: saves of a session at hand on disk, from which any frame is tracked again.

A snapshot is taken at the start of each pass, when prompts have taken effect, and every n frames on
its way. Between two snapshots of a pass nothing happens but tracking, so tracking these frames once
more gives the outputs that were forgotten, bit for bit.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Step = tuple[int, list[Any], Any]


@dataclass
class Pass:
    """A pass, as far as it can be gone back to.

    Attributes:
        number: Counts passes; a later one has tracked its frames anew.
        start: Its first frame.
        last: The frame that it tracked last; start - 1 (in reverse + 1) before the first.
        reverse: Its direction.
        snapshots: Files by the frame tracked last when they were taken, in the pass's order.
    """

    number: int
    start: int
    last: int
    reverse: bool
    snapshots: dict[int, Path] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return -1 if self.reverse else 1

    def has_tracked(self, frame_idx: int) -> bool:
        return 0 <= (frame_idx - self.start) * self.step <= (self.last - self.start) * self.step

    def nearest(self, frame_idx: int) -> int | None:
        """The frame of the last snapshot before a frame."""
        before = [f for f in self.snapshots if (frame_idx - f) * self.step > 0]
        return before[-1] if before else None


class Snapshots:
    """The snapshots of one session.

    Args:
        folder: Where they are kept, by no other session meanwhile; None is a temporary folder that
            goes with the session.
        every: Frames between two of a pass.
        max_bytes: How much disk they may take; None is no bound. Where it is reached, snapshots are
            left out so that those that stay lie far apart, and then the oldest passes.

    Raises:
        ValueError: `every` or `max_bytes` is no whole number above 0.
    """

    def __init__(self, folder: Path | None, every: int, max_bytes: int | None):
        for name, number in (("snapshot_every", every), ("max_snapshot_bytes", max_bytes)):
            is_number = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (is_number and number > 0):
                raise ValueError(f"{name} is {number!r}; it must be a whole number above 0.")
        self.every = every
        self.max_bytes = max_bytes
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="longsam-snapshots-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.passes: list[Pass] = []
        self._is_tidy = False  # whether the folder holds nothing but these

    @property
    def num_bytes(self) -> int:
        """Disk that is taken now."""
        return sum(p.stat().st_size for one in self.passes for p in one.snapshots.values())

    def taken(
        self,
        steps: Generator[Step, None, None],
        start: int,
        save: Callable[[Path], object],
        *,
        reverse: bool,
    ) -> Generator[Step, None, None]:
        """The steps of a pass, with snapshots taken on its way by `save`."""
        running = self.begin(start, reverse=reverse)
        try:
            with closing(steps):
                self.add(running, save)
                for step in steps:
                    running.last = step[0]
                    if self.is_due(running):
                        self.add(running, save)
                    yield step
        finally:
            self._forget_replaced(running)

    def begin(self, start: int, *, reverse: bool) -> Pass:
        """Note that a pass begins."""
        self._tidy()
        number = self.passes[-1].number + 1 if self.passes else 0
        new = Pass(number, start, start + (1 if reverse else -1), reverse)
        self.passes.append(new)
        return new

    def is_due(self, running: Pass) -> bool:
        """Whether a snapshot should be taken now."""
        return (
            not running.snapshots
            or abs(running.last - next(reversed(running.snapshots))) >= self.every
        )

    def add(self, running: Pass, save: Callable[[Path], object]) -> None:
        """Take a snapshot: `save` writes it to the path that it is given."""
        path = self.folder / f"pass_{running.number:05d}_frame_{running.last + 1:08d}.pt"
        save(path)
        running.snapshots[running.last] = path
        self._forget_replaced(running)
        self._keep_within_bytes(running)

    def find(self, frame_idx: int) -> tuple[Pass, int]:
        """The latest pass that has tracked a frame, and the frame of the snapshot before it.

        Raises:
            ValueError: No pass has tracked it, or its snapshots are gone.
        """
        for one in reversed(self.passes):
            if one.has_tracked(frame_idx):
                nearest = one.nearest(frame_idx)
                if nearest is None:
                    raise ValueError(
                        f"The snapshots before frame {frame_idx} are gone, because all together "
                        f"they may take {self.max_bytes} bytes (max_snapshot_bytes)."
                    )
                return one, nearest
        raise ValueError(f"Frame {frame_idx} was not tracked by a pass with snapshots.")

    def to_plain(self) -> list[dict[str, Any]]:
        """Which snapshots there are, to be saved with the session."""
        return [
            {
                "number": one.number,
                "start": one.start,
                "last": one.last,
                "reverse": one.reverse,
                "snapshots": {frame_idx: path.name for frame_idx, path in one.snapshots.items()},
            }
            for one in self.passes
        ]

    def from_plain(self, saved: list[dict[str, Any]]) -> None:
        """Take up those of a saved session that are still in the folder."""
        for one in saved:
            paths = {frame_idx: self.folder / name for frame_idx, name in one["snapshots"].items()}
            there = {frame_idx: path for frame_idx, path in paths.items() if path.exists()}
            if there:
                self.passes.append(Pass(**{**one, "snapshots": there}))

    def _tidy(self) -> None:
        """Remove what an interrupted session has left in the folder, once."""
        if self._is_tidy:
            return
        known = {path for one in self.passes for path in one.snapshots.values()}
        for path in self.folder.glob("pass_*_frame_*.pt*"):
            if path not in known:
                path.unlink(missing_ok=True)
        self._is_tidy = True

    def _forget_replaced(self, running: Pass) -> None:
        """Remove what lies on frames that the running pass has tracked anew.

        The first snapshot of an older pass stays while frames of it are not tracked anew.
        """
        for old in self.passes[: self.passes.index(running)]:
            if running.has_tracked(old.start) and running.has_tracked(old.last):
                for frame_idx in list(old.snapshots):
                    self._remove(old, frame_idx)
                continue
            for frame_idx in list(old.snapshots)[1:]:
                if running.has_tracked(frame_idx):
                    self._remove(old, frame_idx)
        self.passes = [one for one in self.passes if one.snapshots or one is running]

    def _keep_within_bytes(self, running: Pass) -> None:
        while self.max_bytes is not None and self.num_bytes > self.max_bytes:
            gaps = [
                (abs(frames[at + 1] - frames[at - 1]), one.number, frames[at])
                for one in self.passes
                for frames in [list(one.snapshots)]
                for at in range(1, len(frames) - 1)
            ]
            if gaps:
                _, number, frame_idx = min(gaps)
                self._remove(next(p for p in self.passes if p.number == number), frame_idx)
                continue
            oldest = self.passes[0]
            if oldest is running and len(oldest.snapshots) <= 1:
                return  # one snapshot is the least
            self._remove(oldest, next(iter(oldest.snapshots)))
            if not oldest.snapshots and oldest is not running:
                self.passes.pop(0)

    @staticmethod
    def _remove(one: Pass, frame_idx: int) -> None:
        one.snapshots.pop(frame_idx).unlink(missing_ok=True)
