"""What is written about one frame."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from longsam.masks.ids import ObjectId

MaskArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """The masks of one frame, on their way to disk.

    Args:
        frame_idx: The frame.
        obj_ids: One for each mask.
        mask_logits: num_objects x height x width on the CPU; above 0 is the object. NaN is not.
        image: The frame itself, uint8 RGB, height x width x 3, for overlays.
    """

    frame_idx: int
    obj_ids: list[ObjectId]
    mask_logits: torch.Tensor
    image: ImageArray | None = None

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
        if highest.isnan().any():  # it would win against every number
            highest, winner = self.mask_logits.nan_to_num(nan=-torch.inf).max(dim=0)
        winners: npt.NDArray[np.intp] = winner.masked_fill_(~(highest > 0), -1).numpy()
        return winners

    @cached_property
    def areas(self) -> list[int]:
        """Pixels of each mask."""
        return [int(np.count_nonzero(mask)) for mask in self.masks]
