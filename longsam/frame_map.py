"""A map from frame indices to numbers that stays small where equal numbers come in runs."""

from bisect import bisect_right
from collections.abc import Iterator


class FrameMap:
    """Frame index -> number, kept as runs of consecutive frames with the same number."""

    def __init__(self, runs: Iterator[tuple[int, int, int]] | None = None):
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._numbers: list[int] = []
        for start, stop, number in runs or ():
            if stop <= start or (self._stops and start < self._stops[-1]):
                raise ValueError(f"the run {start} to {stop} is out of order")
            self._starts.append(int(start))
            self._stops.append(int(stop))
            self._numbers.append(int(number))

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """(first frame, frame after the last, number) of each run, in order."""
        return zip(self._starts, self._stops, self._numbers, strict=True)

    def get(self, frame_idx: int) -> int | None:
        """The number of a frame; None if it has none."""
        at = bisect_right(self._starts, frame_idx) - 1
        return self._numbers[at] if at >= 0 and frame_idx < self._stops[at] else None

    def __contains__(self, frame_idx: int) -> bool:
        return self.get(frame_idx) is not None

    def __setitem__(self, frame_idx: int, number: int) -> None:
        if self.get(frame_idx) == number:
            return
        self.discard(frame_idx)
        at = bisect_right(self._starts, frame_idx)
        joins_left = at > 0 and self._stops[at - 1] == frame_idx and self._numbers[at - 1] == number
        joins_right = (
            at < len(self._starts)
            and self._starts[at] == frame_idx + 1
            and self._numbers[at] == number
        )
        if joins_left and joins_right:
            self._stops[at - 1] = self._stops[at]
            self._delete(at)
        elif joins_left:
            self._stops[at - 1] += 1
        elif joins_right:
            self._starts[at] -= 1
        else:
            self._insert(at, frame_idx, frame_idx + 1, number)

    def discard(self, frame_idx: int) -> None:
        """Remove a frame; nothing happens if it has no number."""
        at = bisect_right(self._starts, frame_idx) - 1
        if at < 0 or frame_idx >= self._stops[at]:
            return
        start, stop = self._starts[at], self._stops[at]
        if stop - start == 1:
            self._delete(at)
        elif frame_idx == start:
            self._starts[at] += 1
        elif frame_idx == stop - 1:
            self._stops[at] -= 1
        else:
            self._stops[at] = frame_idx
            self._insert(at + 1, frame_idx + 1, stop, self._numbers[at])

    def _insert(self, at: int, start: int, stop: int, number: int) -> None:
        self._starts.insert(at, start)
        self._stops.insert(at, stop)
        self._numbers.insert(at, number)

    def _delete(self, at: int) -> None:
        del self._starts[at], self._stops[at], self._numbers[at]
