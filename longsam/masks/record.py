"""What is written about one frame."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from longsam.masks.ids import ObjectId
from longsam.masks.lines import Box

MaskArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]

Scores = tuple[float | None, float | None]
"""Object score and predicted IoU of an object on a frame."""


@dataclass(frozen=True)
class Record:
    """The masks of one frame, on their way to disk.

    Args:
        frame_idx: The frame.
        obj_ids: One for each mask.
        mask_logits: num_objects x height x width on the CPU; above 0 is the object. NaN is not.
        image: The frame itself, uint8 RGB, height x width x 3, for overlays.
        scores: The object score and the predicted IoU of each object, or None.
        time: The frame's time stamp in seconds.
    """

    frame_idx: int
    obj_ids: list[ObjectId]
    mask_logits: torch.Tensor
    image: ImageArray | None = None
    scores: list[Scores] | None = None
    time: float | None = None

    @cached_property
    def masks(self) -> MaskArray:
        """bool, num_objects x height x width."""
        masks: MaskArray = (self.mask_logits > 0).numpy()
        return masks

    @cached_property
    def winners(self) -> npt.NDArray[np.intp]:
        """The place in `obj_ids` of the object with the highest logit above 0, else -1."""
        if not len(self.mask_logits):
            return np.full(self.mask_logits.shape[1:], -1)
        highest, winner = self.mask_logits.max(dim=0)
        if highest.isnan().any():  # NaN would win against every number
            highest, winner = self.mask_logits.nan_to_num(nan=-torch.inf).max(dim=0)
        winners: npt.NDArray[np.intp] = winner.masked_fill_(~(highest > 0), -1).numpy()
        return winners

    @cached_property
    def areas(self) -> list[int]:
        """Pixels of each mask."""
        return [int(np.count_nonzero(mask)) for mask in self.masks]

    @cached_property
    def boxes(self) -> list[Box | None]:
        """The box around each mask; None for an empty one."""
        return [box_of(mask) for mask in self.masks]


def box_of(mask: MaskArray) -> Box | None:
    """The box around a mask; None if the mask is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1
