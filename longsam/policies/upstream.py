"""SAM 2's own rule, to build others on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import ClassVar

from longsam._upstream import Output
from longsam.policies.protocol import Candidates, History, Memo, Recall, TrackedFrame


class Upstream:
    """What SAM 2 does without a policy: the last frames are read, whatever they show.

    (Ravi et al., "SAM 2: Segment Anything in Images and Videos", arXiv 2408.00714.) Its masks are
    bit for bit those of `memory_policy=None`, which is faster. A policy of your own is a subclass
    that overrides some of these; make it a frozen dataclass if it has options.
    """

    name: ClassVar[str] = "upstream"
    presence: float = 0.0
    num_paths: int = 1

    def options(self) -> Mapping[str, bool | int | float | str | None]:
        """A dataclass's fields; nothing for other classes."""
        return asdict(self) if is_dataclass(self) and not isinstance(self, type) else {}

    def start(self) -> Memo:
        """Nothing."""
        return {}

    def choose(self, memo: Memo, candidates: Candidates) -> int:
        """The candidate with the highest predicted IoU."""
        return candidates.best

    def recall(self, memo: Memo, history: History) -> Recall:
        """All conditioning frames, the previous frame, and before it every `stride`-th frame."""
        return Recall(dict(history.conditioning), self.memories(history), history.pointers)

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """The memo, unchanged."""
        return memo

    def holds(self, memo: Memo) -> Collection[int]:
        """None."""
        return ()

    def anchors(self, memo: Memo) -> Mapping[int, Output]:
        """None."""
        return {}

    def branch(
        self, memos: Sequence[Memo], offers: Sequence[Candidates]
    ) -> Sequence[tuple[int, int]]:
        """Never asked: one hypothesis is followed."""
        raise NotImplementedError(f"{type(self).__name__} follows one hypothesis.")

    @staticmethod
    def memories(history: History) -> list[Output | None]:
        """The tracked frames that upstream reads, oldest first."""
        return [history.get(frame_idx) for frame_idx in memory_frames(history)]


def memory_frames(history: History) -> list[int]:
    """The tracked frames that upstream reads, oldest first, whether or not they are remembered.

    The previous frame, and before it those whose index is a multiple of the stride.
    """
    stride, two_back = history.stride, history.back(2)
    nearest = -(-two_back // stride) * stride if history.reverse else two_back // stride * stride
    step = stride if history.reverse else -stride
    others = [nearest + step * i for i in range(history.num_memories - 1)]
    return [*reversed(others), history.back(1)][-history.num_memories :]
