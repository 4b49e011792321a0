"""SAMURAI: the mask that fits the object's motion, and memories only of sure frames."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longsam.policies.boxes import box_iou, boxes
from longsam.policies.checking import check_fraction, check_number, check_whole
from longsam.policies.motion import Motion
from longsam.policies.protocol import Candidates, History, Memo, Recall, TrackedFrame
from longsam.policies.upstream import Upstream


@dataclass(frozen=True)
class Samurai(Upstream):
    """SAMURAI's choice of mask and memory.

    Yang, Huang, Chai, Jiang, Hwang, "SAMURAI: Adapting Segment Anything Model for Zero-Shot Visual
    Tracking with Motion-Aware Memory", arXiv 2411.11922; defaults are the paper's and its authors'
    published settings. Written from the method's description.

    A Kalman filter predicts the object's box. Once it has been right for `stable_frames` frames,
    masks are scored by how well their box fits the prediction, and by their predicted IoU. Memories
    are the last frames where the model is sure of the object; the previous frame is always read.

    In reverse everything is mirrored. Where a pass changes direction, the filter starts again.

    Args:
        motion_weight: The weight of the fit with the predicted box; the predicted IoU has the rest.
        stable_frames: The number of good frames after which the prediction counts.
        stable_iou: The predicted IoU that a frame needs to be a good one.
        memory_iou: The predicted IoU that a memory must exceed.
        memory_score: The object score that a memory must exceed.
        memory_motion: The fit with the predicted box that a memory must exceed, where there is one.
        presence: The object score above which the object counts as present. SAM 2's is 0; a lower
            one finds more of a hidden object and shows more where there is none.

    Raises:
        ValueError: A value is out of range.
    """

    name: ClassVar[str] = "samurai"
    motion_weight: float = 0.25
    stable_frames: int = 15
    stable_iou: float = 0.3
    memory_iou: float = 0.5
    memory_score: float = 0.0
    memory_motion: float = 0.0
    presence: float = -1.0

    def __post_init__(self) -> None:
        for name in ("motion_weight", "stable_iou", "memory_iou", "memory_motion"):
            check_fraction(self, name)
        for name in ("memory_score", "presence"):
            check_number(self, name)
        check_whole(self, "stable_frames", least=1)

    def start(self) -> Memo:
        """No motion yet, and no memories."""
        return {"motion": None, "num_stable": 0, "sure": [], "reverse": None}

    def choose(self, memo: Memo, candidates: Candidates) -> int:
        """The highest predicted IoU; once the motion is stable, its weighted sum with the fit."""
        motion = self._predicted(memo, candidates.reverse)
        if motion is None or memo["num_stable"] < self.stable_frames:
            return candidates.best
        fits = self._fits(motion, candidates)
        scores = [
            self.motion_weight * fit + (1 - self.motion_weight) * iou
            for fit, iou in zip(fits, candidates.predicted_ious, strict=True)
        ]
        return max(range(len(scores)), key=scores.__getitem__)

    def recall(self, memo: Memo, history: History) -> Recall:
        """Sure frames instead of the last ones, and the previous frame."""
        before = history.back(1)
        sure = [
            frame_idx
            for frame_idx in memo["sure"]
            if frame_idx not in history.conditioning and frame_idx != before
        ]
        frames = [*sure, before][-history.num_memories :]
        memories = [history.get(frame_idx) for frame_idx in frames]
        return Recall(dict(history.conditioning), memories, history.pointers)

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """The motion estimated so far, and whether the frame is a sure one."""
        motion, num_stable, fit = self._moved(memo, frame)
        sure = frame.earlier(memo["sure"])
        if (
            abs(frame.frame_idx - frame.first_prompt) >= 2
            and frame.predicted_iou > self.memory_iou
            and frame.object_score > self.memory_score
            and (fit is None or fit > self.memory_motion)
        ):
            sure.append(frame.frame_idx)
        return {
            "motion": None if motion is None else motion.to_plain(),
            "num_stable": num_stable,
            "sure": sure[-_NUM_SURE:],
            "reverse": frame.reverse,
        }

    def holds(self, memo: Memo) -> Collection[int]:
        """The sure frames."""
        frames: list[int] = memo["sure"]
        return frames

    def _moved(self, memo: Memo, frame: TrackedFrame) -> tuple[Motion | None, int, float | None]:
        """The motion after a frame, for how many frames it has been stable, and the mask's fit."""
        motion = self._predicted(memo, frame.reverse)
        box = boxes(frame.candidates.full_masks[frame.chosen : frame.chosen + 1])[0]
        if len(frame.candidates) == 1:  # the user's mask or box, or several clicks
            if motion is None or not frame.is_prompt:
                return motion, memo["num_stable"] if motion is not None else 0, None
            return motion.updated(box), memo["num_stable"], None
        if motion is None:
            return Motion.at(box), 1, None
        num_stable: int = memo["num_stable"]
        if num_stable < self.stable_frames:
            is_good, fit = frame.predicted_iou > self.stable_iou, None
            num_stable += 1
        else:
            is_good = frame.predicted_iou >= self.stable_iou
            fit = box_iou(motion.box, box)
        return (motion.updated(box), num_stable, fit) if is_good else (motion, 0, fit)

    def _predicted(self, memo: Memo, reverse: bool) -> Motion | None:
        """The motion one frame later; None where there is no estimate."""
        plain: dict[str, Any] | None = memo["motion"]
        if plain is None or memo["num_stable"] == 0 or memo["reverse"] is not reverse:
            return None
        return Motion.from_plain(plain).predicted()

    @staticmethod
    def _fits(motion: Motion, candidates: Candidates) -> Sequence[float]:
        return [box_iou(motion.box, box) for box in boxes(candidates.full_masks)]


_NUM_SURE = 6
"""The most memories that a model reads; models that read fewer take the last of them."""
