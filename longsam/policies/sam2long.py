"""SAM2Long: several hypotheses of the object's masks; the best one is shown."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from longsam._upstream import Output
from longsam.policies.checking import check_fraction, check_number, check_whole
from longsam.policies.protocol import Candidates, History, Memo, Recall, TrackedFrame
from longsam.policies.upstream import Upstream

PROMPT_SCORE = 10.0
"""The object score assumed for a conditioning frame."""

NUM_SINGLE = 2
"""Number of frames after a prompt on which hypotheses do not split."""


@dataclass(frozen=True)
class Sam2Long(Upstream):
    """SAM2Long's memory tree.

    Ding, Qian, Dong, Zhang, Zang, Cao, Guo, Lin, Wang, "SAM2Long: Enhancing SAM 2 for Long Video
    Segmentation with a Training-Free Memory Tree", arXiv 2410.16268. Written from a description of
    the method.

    Up to `num_paths` hypotheses (pathways) are followed; the first one alone until the model is
    uncertain whether the object is there. On each frame, each offers its three candidate masks,
    which are ranked by their sum of log predicted IoUs. Where the model is uncertain, the best ones
    with different predicted IoUs are followed; elsewhere as many of the best as before. Each
    hypothesis reads its own memories: the last frames that show the object with some certainty; the
    keys of surer ones count for more.

    The mask of a frame is that of the best hypothesis at that frame. The paper instead gives, at
    the end, all masks of the hypothesis that is best then, which needs all masks of all hypotheses:
    they were found to differ up to 172 frames back. The best one seldom changes. In reverse
    everything is mirrored.

    A frame takes about twice as long as without the policy: memory attention, mask decoder and
    memory encoder run once for each hypothesis.

    Args:
        num_paths: How many hypotheses are followed.
        memory_iou: The predicted IoU that a memory must exceed.
        certain_score: The model is certain if the object score of one of the hypotheses is further
            than this from 0.
        least_weight: The factor for the keys of the least sure memory.
        greatest_weight: The factor for those of the surest one.

    Raises:
        ValueError: A value is out of range.
    """

    name: ClassVar[str] = "sam2long"
    num_paths: int = 3
    memory_iou: float = 0.1
    certain_score: float = 2.0
    least_weight: float = 0.95
    greatest_weight: float = 1.05

    def __post_init__(self) -> None:
        check_whole(self, "num_paths", least=2, most=8)
        check_fraction(self, "memory_iou")
        check_number(self, "certain_score", 0.0)
        check_number(self, "least_weight", 0.0)
        check_number(self, "greatest_weight", 0.0)

    def start(self) -> Memo:
        """Nothing is known yet."""
        return {"total": 0.0, "num_since_prompt": 0, "shown": [], "scores": {}}

    def branch(
        self, memos: Sequence[Memo], offers: Sequence[Candidates]
    ) -> Sequence[tuple[int, int]]:
        """The best candidates: where the model is certain of the object as many as there are
        hypotheses, and otherwise those of different predicted IoUs, up to `num_paths`.
        """
        totals = {
            (path, i): _total(memo, iou)
            for path, (memo, offer) in enumerate(zip(memos, offers, strict=True))
            for i, iou in enumerate(offer.predicted_ious)
        }
        ranked = sorted(totals, key=totals.__getitem__, reverse=True)
        is_certain = max(abs(offer.object_score) for offer in offers) > self.certain_score
        if is_certain or memos[0]["num_since_prompt"] < NUM_SINGLE:
            return ranked[: len(memos)]
        different: dict[float, tuple[int, int]] = {}
        for path, i in ranked:
            sign = 1 if offers[path].object_score > 0 else -1
            different.setdefault(round(sign * offers[path].predicted_ious[i], 2), (path, i))
        taken = list(different.values())[: self.num_paths]
        for path, i in ranked:  # then the best of each that has none yet
            if len(taken) < self.num_paths and path not in {one for one, _ in taken}:
                taken.append((path, i))
        return sorted(taken, key=totals.__getitem__, reverse=True)

    def recall(self, memo: Memo, history: History) -> Recall:
        """The last frames that show the object, placed by rank instead of by distance."""
        before = history.back(1)
        frames = [f for f in memo["shown"] if f not in history.conditioning and f in history]
        if before in history and before not in frames:
            frames.append(before)
        read = frames[-history.num_memories :]
        ranked = frames[:0:-1][: history.num_pointers]
        scores = memo["scores"]
        prompts = [PROMPT_SCORE] * len(history.conditioning)
        memories: list[Output | None] = [history[f] for f in read]
        pointers: list[Output | None] = [history[f] for f in ranked]
        if not frames:
            return Recall(dict(history.conditioning), memories, pointers)
        of_pointers = self._weights([*prompts, *(scores[f] for f in ranked)])
        return Recall(
            dict(history.conditioning),
            memories,
            pointers,
            memory_weights=self._weights([*prompts, *(scores[f] for f in read)]),
            # Found by comparison with the authors' masks: a single memory's weight is rounded.
            pointer_weights=of_pointers
            if ranked
            else torch.tensor(of_pointers).bfloat16().tolist(),
        )

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """The hypothesis' total, and whether the frame shows the object."""
        now = frame.frame_idx
        shown = frame.earlier(memo["shown"])
        if frame.predicted_iou > self.memory_iou and frame.object_score > 0:
            shown = [*shown, now][-_NUM_SHOWN:]
        known = {*shown, now}
        scores = {**memo["scores"], now: frame.object_score}
        return {
            "total": 0.0 if frame.is_prompt else _total(memo, frame.predicted_iou),
            "num_since_prompt": 0 if frame.is_prompt else memo["num_since_prompt"] + 1,
            "shown": shown,
            "scores": {f: score for f, score in scores.items() if f in known},
        }

    def holds(self, memo: Memo) -> Collection[int]:
        """The frames that show the object."""
        frames: list[int] = memo["shown"]
        return frames

    def _weights(self, scores: list[float]) -> list[float]:
        """From the least to the greatest weight, in the order of the scores."""
        steps = torch.linspace(self.least_weight, self.greatest_weight, len(scores)).tolist()
        weights = [0.0] * len(scores)
        for weight, i in zip(
            steps, sorted(range(len(scores)), key=scores.__getitem__), strict=True
        ):
            weights[i] = weight
        return weights


_NUM_SHOWN = 15
"""The greatest number of frames that a model reads pointers of."""


def _total(memo: Memo, predicted_iou: float) -> float:
    """A hypothesis' sum of log predicted IoUs with one more added."""
    total: float = memo["total"]
    return total + math.log(max(predicted_iou, 0.0) + 1e-5)
