"""DAM4SAM: memories of moments in which a look-alike was told apart."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

from longsam._upstream import Output
from longsam.policies.boxes import Box, box_iou, boxes
from longsam.policies.checking import check_fraction, check_number, check_whole
from longsam.policies.parts import largest_part
from longsam.policies.protocol import Candidates, History, Memo, Recall, TrackedFrame
from longsam.policies.upstream import Upstream

NUM_SIZES = 10
"""Of how many sizes the median is taken."""

MAX_AGE = 300
"""From how many frames these sizes are."""


@dataclass(frozen=True)
class Dam4Sam(Upstream):
    """DAM4SAM's distractor-aware memory.

    Videnovic, Lukezic, Kristan, "A Distractor-Aware Memory for Visual Object Tracking with SAM2",
    arXiv 2411.17576; defaults are the paper's and its authors' published settings. Written from the
    method's description.

    Masks are chosen as SAM 2 does. There are two memories. One is of recent frames that show the
    object: the last one, and before it every `stride`-th. The other is of anchors: frames that are
    sure of the object while another candidate mask reaches out to something beside it. They are
    encoded as prompts are and read as conditioning frames, `max_conditioning` of these at most.

    In reverse all is mirrored, but for the first 15 frames, whose object pointers are placed in
    time as SAM 2 does.

    Args:
        anchor_iou: The predicted IoU that an anchor must exceed.
        least_size: An anchor's size over the median of the last sizes, at least.
        greatest_size: The same, at most.
        anchor_box_iou: A frame is an anchor if the box around its mask and what another candidate
            has beside it overlaps the box of the mask at most so much.
        anchor_gap: How many frames lie between two anchors.
        stride: How far recent memories lie apart.
        max_conditioning: How many prompts and anchors are read, at least 2.

    Raises:
        ValueError: A value is out of range.
    """

    name: ClassVar[str] = "dam4sam"
    anchor_iou: float = 0.8
    least_size: float = 0.8
    greatest_size: float = 1.2
    anchor_box_iou: float = 0.7
    anchor_gap: int = 5
    stride: int = 5
    max_conditioning: int = 4

    def __post_init__(self) -> None:
        check_fraction(self, "anchor_iou")
        check_fraction(self, "anchor_box_iou")
        check_number(self, "least_size", 0.0)
        check_number(self, "greatest_size", 0.0)
        check_whole(self, "anchor_gap", least=0)
        check_whole(self, "stride", least=1)
        check_whole(self, "max_conditioning", least=2, most=6)

    def start(self) -> Memo:
        """No anchors, and nothing seen."""
        return {
            "anchors": {},
            "last_anchor": None,
            "sizes": [],
            "num_frames": 0,
            "visible": [],
            "spread": [],
            "last_visible": None,
        }

    def recall(self, memo: Memo, history: History) -> Recall:
        """Anchors and prompts, then recent frames that show the object."""
        conditioning = self._conditioning(memo, history)
        anchors = memo["anchors"]
        recent = []
        newest = memo["last_visible"]
        if newest is not None and newest not in conditioning:
            spread = [
                f
                for f in memo["spread"]
                if f != newest and f not in anchors and f not in history.conditioning
            ]
            recent = [*spread, newest]
        num_recent = min(max(history.num_memories + 1 - len(conditioning), 0), len(recent))
        memories = [_output(memo, history, f) for f in recent[len(recent) - num_recent :]]
        visible = memo["visible"]
        pointers = [
            _output(memo, history, f) if f in visible and f not in conditioning else None
            for f in (history.back(i) for i in range(1, history.num_pointers + 1))
        ]
        num_frames = None if history.reverse else history.frame_idx + 1
        return Recall(conditioning, memories, pointers, num_frames)

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """Whether the frame shows the object, and whether it is an anchor."""
        now, last = frame.frame_idx, memo["last_visible"]
        earlier = {key: frame.earlier(memo[key]) for key in ("visible", "spread")}
        after = {**memo, **earlier, "num_frames": memo["num_frames"] + 1}
        if last is not None and not frame.earlier([last]):
            after["last_visible"] = None
        size = int((frame.candidates.full_masks[frame.chosen] > 0).sum())
        if not frame.is_prompt and self._is_anchor(memo, frame, size):
            anchors = {**memo["anchors"], now: frame.as_prompt()}
            after["anchors"] = dict(list(anchors.items())[-self.max_conditioning :])
            after["last_anchor"] = now
        if bool((frame.mask > 0).any()):
            after["last_visible"] = now
            after["visible"] = [*earlier["visible"], now][-_NUM_POINTERS:]
            if (now - frame.first_prompt) % self.stride == 0:
                after["spread"] = [*earlier["spread"], now][-_NUM_SPREAD:]
        if size:
            after["sizes"] = [*memo["sizes"], [after["num_frames"], size]][-NUM_SIZES:]
        return after

    def holds(self, memo: Memo) -> Collection[int]:
        """The recent frames that show the object."""
        last = memo["last_visible"]
        return memo["spread"] if last is None else {*memo["spread"], last}

    def anchors(self, memo: Memo) -> Mapping[int, Output]:
        """The last ones, at most `max_conditioning`."""
        anchors: Mapping[int, Output] = memo["anchors"]
        return anchors

    def _conditioning(self, memo: Memo, history: History) -> dict[int, Any]:
        """The latest anchor or prompt, the first prompt, and the nearest others."""
        there: dict[int, Any] = {**memo["anchors"], **history.conditioning}
        first = next(iter(history.conditioning))
        before = history.back(1)
        step = -1 if history.reverse else 1

        def distance(frame_idx: int) -> int:
            return abs(frame_idx - history.frame_idx)

        earlier = [f for f in there if (before - f) * step > 0]
        others = sorted((f for f in there if f not in (before, first)), key=distance)
        latest = min(earlier, key=distance, default=first)
        order = dict.fromkeys([latest, first, *others])
        return {f: there[f] for f in list(order)[: self.max_conditioning]}

    def _is_anchor(self, memo: Memo, frame: TrackedFrame, size: int) -> bool:
        """Whether a frame is sure of the object while another candidate shows what is beside it."""
        last = memo["last_anchor"]
        if frame.predicted_iou <= self.anchor_iou or size == 0:
            return False
        if last is not None and abs(frame.frame_idx - last) <= self.anchor_gap:
            return False
        age = memo["num_frames"] + 1
        sizes = [known for seen, known in memo["sizes"] if age - seen <= MAX_AGE]
        if not sizes or not self.least_size <= size / median(sizes) <= self.greatest_size:
            return False
        return _least_overlap(frame.candidates, frame.chosen) <= self.anchor_box_iou


_NUM_POINTERS = 15
_NUM_SPREAD = 7


def _output(memo: Memo, history: History, frame_idx: int) -> Any:
    """Of a tracked frame, or of an anchor or a prompt that is not read as one."""
    for outputs in (memo["anchors"], history, history.conditioning):
        if frame_idx in outputs:
            return outputs[frame_idx]
    return None


def _least_overlap(candidates: Candidates, chosen: int) -> float:
    """How little the chosen mask's box overlaps the one with what another candidate adds."""
    inside = candidates.full_masks > 0
    own = boxes(candidates.full_masks[chosen : chosen + 1])[0]
    overlaps = [1.0]
    for i in range(len(candidates)):
        if i != chosen:
            beside = largest_part((inside[i] & ~inside[chosen]).cpu().numpy())
            if beside is not None:
                overlaps.append(box_iou(own, _around(own, beside)))
    return min(overlaps)


def _around(first: Box, second: Box) -> Box:
    return (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[2], second[2]),
        max(first[3], second[3]),
    )
