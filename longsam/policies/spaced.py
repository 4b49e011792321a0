"""longsam's own: memories some frames apart, of frames that show the object."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from longsam.policies.checking import check_fraction, check_number, check_whole
from longsam.policies.protocol import History, Memo, Recall, TrackedFrame
from longsam.policies.upstream import Upstream


@dataclass(frozen=True)
class Spaced(Upstream):
    """Memories some frames apart, of frames that show the object.

    longsam's own, from what DAM4SAM (memories further apart) and SAMURAI (memories of sure frames)
    teach; docs/policies.md says how it was chosen and how it did on other videos.

    Memories are of the last frame that shows the object, and of earlier ones that surely show it,
    at least `stride` frames apart, however long ago that was. Object pointers are read of the
    recent frames that show it. In reverse everything is mirrored.

    Args:
        stride: How many frames memories are apart.
        memory_iou: The predicted IoU that a memory must exceed; the last one need not.
        presence: The object score above which the object counts as present. SAM 2's is 0.

    Raises:
        ValueError: A value is out of range.
    """

    name: ClassVar[str] = "spaced"
    stride: int = 2
    memory_iou: float = 0.5
    presence: float = 0.5

    def __post_init__(self) -> None:
        check_whole(self, "stride", least=1)
        check_fraction(self, "memory_iou")
        check_number(self, "presence")

    def start(self) -> Memo:
        """Nothing seen."""
        return {"spaced": [], "shown": []}

    def recall(self, memo: Memo, history: History) -> Recall:
        """All conditioning frames, spaced frames, and the last one that shows the object."""
        last = memo["shown"][-1:]
        frames = [f for f in memo["spaced"] if f not in last] + last
        read = [f for f in frames if f not in history.conditioning][-history.num_memories :]
        recent = (history.back(distance) for distance in range(1, history.num_pointers + 1))
        pointers = [history.get(f) if f in memo["shown"] else None for f in recent]
        return Recall(dict(history.conditioning), [history.get(f) for f in read], pointers)

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """Whether the frame shows the object, and surely."""
        now = frame.frame_idx
        spaced, shown = frame.earlier(memo["spaced"]), frame.earlier(memo["shown"])
        if not frame.is_prompt and frame.object_score > self.presence:
            shown = [*shown, now][-_NUM_POINTERS:]
            is_apart = not spaced or abs(now - spaced[-1]) >= self.stride
            if is_apart and frame.predicted_iou > self.memory_iou:
                spaced = [*spaced, now][-_NUM_SPACED:]
        return {"spaced": spaced, "shown": shown}

    def holds(self, memo: Memo) -> Collection[int]:
        """Those of the memories."""
        return {*memo["spaced"], *memo["shown"][-1:]}


_NUM_POINTERS = 15
_NUM_SPACED = 7
"""One more than memories that are read: the last one may be among them."""
