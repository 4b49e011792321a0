"""Which of the mask decoder's candidates upstream takes, and when an object counts as present.

Upstream takes the candidate with the highest predicted IoU (sam2_base.py, line 383), and suppresses
masks and pointers where the object score is not above 0 (line 349). It has no option for either. So
a hook on the mask decoder shows it a predicted IoU of 1 for the candidate to take and 0 for the
others, and the object score minus the threshold. `_track_step` puts the true numbers back. The
request is kept in the context, not on the model, which several states may share.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from longsam._installed_sam2 import sam2_video_predictor

Choose = Callable[[torch.Tensor, list[float], float], int]
"""From masks (n x height x width logits), predicted IoUs and object score to the index to take."""


@dataclass
class Decoding:
    """How one frame is decoded for one object.

    Attributes:
        choose: Which of several candidates is taken; None takes all of them, each as a row.
        presence: The object score above which the object counts as present.
        from_mask: Whether the user's mask is used as it is; the decoder then only gives a pointer.
        masks: The candidates, as logits: float32, n x height x width.
        predicted_ious: The candidates' predicted IoUs.
        object_score: The object's score.
        chosen: Which candidate was taken.
        full_masks: The masks taken, at the model's resolution: n x 1 x image_size x image_size, n
            the number of candidates if all were taken, else 1.
    """

    choose: Choose | None
    presence: float
    from_mask: bool
    masks: torch.Tensor | None = None
    predicted_ious: tuple[float, ...] = ()
    object_score: float = 0.0
    chosen: int = 0
    full_masks: torch.Tensor | None = None
    _ious: torch.Tensor | None = None
    _score: torch.Tensor | None = None

    def decide(self, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The mask decoder's output as upstream is to see it."""
        masks, ious, tokens, score = output
        seen = score - self.presence if self.presence else score
        if self.from_mask:
            return masks, ious, tokens, seen
        self._ious, self._score = ious, score
        numbers = torch.cat([ious[0].float(), score.reshape(-1).float()]).tolist()
        self.predicted_ious, self.object_score = tuple(numbers[:-1]), numbers[-1]
        self.masks = masks[0].float()
        if self.object_score <= self.presence:
            self.masks = torch.full_like(self.masks, sam2_video_predictor.NO_OBJ_SCORE)
        num_masks = ious.shape[1]
        if num_masks == 1:
            return masks, ious, tokens, seen
        if self.choose is None:
            # Upstream takes candidate i for row i, as its row index (the single row) is broadcast.
            return masks, torch.eye(num_masks, dtype=ious.dtype, device=ious.device), tokens, seen
        self.chosen = self.choose(self.masks, list(self.predicted_ious), self.object_score)
        if not 0 <= self.chosen < num_masks:
            raise ValueError(
                f"the policy chose mask {self.chosen}; it must be from 0 to {num_masks - 1}."
            )
        one_hot = torch.zeros_like(ious)
        one_hot[0, self.chosen] = 1
        return masks, one_hot, tokens, seen

    def restored(self, sam_outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """What `_track_step` returns: the true numbers in their places (2 and 6)."""
        self.full_masks = sam_outputs[4]
        if self._ious is None or self._score is None:
            return sam_outputs
        return (*sam_outputs[:2], self._ious, *sam_outputs[3:6], self._score)

    def predicted_iou(self, ious: torch.Tensor) -> torch.Tensor:
        """The predicted IoU of what was taken, as a row."""
        return ious[:, self.chosen : self.chosen + 1]


_CURRENT: ContextVar[Decoding | None] = ContextVar("longsam_decoding", default=None)


@contextmanager
def decoding(how: Decoding) -> Iterator[None]:
    """Within this context, in this thread, a frame is decoded like this."""
    token = _CURRENT.set(how)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def decide(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """The forward hook of the mask decoder; it changes nothing unless asked to."""
    how = _CURRENT.get()
    return None if how is None else how.decide(output)
