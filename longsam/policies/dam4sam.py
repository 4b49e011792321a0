"""DAM4SAM: memories of frames where the object was told apart from a look-alike."""

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
"""Number of sizes that the median is taken of."""

MAX_AGE = 300
"""Number of frames that these sizes come from."""


@dataclass(frozen=True)
class Dam4Sam(Upstream):
    """DAM4SAM's distractor-aware memory.

    Videnovic, Lukezic, Kristan, "A Distractor-Aware Memory for Visual Object Tracking with SAM2",
    arXiv 2411.17576; defaults are the paper's and its authors' published settings. Written from the
    method's description.

    Masks are chosen as SAM 2 does. There are two memories. One is of recent frames that show the
    object: the last one, and before it every `stride`-th. The other is of anchors: frames where the
    model is sure of the object while another candidate mask also covers something beside it.
    Anchors are encoded like prompts and read as conditioning frames, at most `max_conditioning` of
    them.

    In reverse everything is mirrored except the first 15 frames, whose object pointers are placed
    in time as in SAM 2.

    Args:
        anchor_iou: The predicted IoU that an anchor must exceed.
        least_size: The minimum ratio of an anchor's size to the median of recent sizes.
        greatest_size: The maximum of that ratio.
        anchor_box_iou: The box of the mask is compared with the box around the mask and what
            another candidate adds; a frame is an anchor if their IoU is at most this.
        anchor_gap: How many frames there are between two anchors.
        stride: How many frames recent memories are apart.
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
        """Whether the model is sure of the object while another candidate covers more."""
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
    """The output of a tracked frame, or of an anchor or prompt that is not read as one."""
    for outputs in (memo["anchors"], history, history.conditioning):
        if frame_idx in outputs:
            return outputs[frame_idx]
    return None


def _least_overlap(candidates: Candidates, chosen: int) -> float:
    """The IoU of the chosen mask's box with the box that includes what another candidate adds."""
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
