"""What is written about one frame."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam.object_ids import ObjectId, check_plain

MaskArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """The masks of one frame, on their way to disk.

    Args:
        frame_idx: The frame.
        obj_ids: One for each mask.
        mask_logits: num_objects x height x width on the CPU; above 0 is the object.
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
        winners: npt.NDArray[np.intp] = winner.masked_fill_(~(highest > 0), -1).numpy()
        return winners

    @cached_property
    def areas(self) -> list[int]:
        """Pixels of each mask."""
        return [int(np.count_nonzero(mask)) for mask in self.masks]


def check_obj_ids(obj_ids: list[Any]) -> list[ObjectId]:
    """Refuse object ids that cannot be read back as they were.

    Raises:
        ValueError: An id is neither an integer nor a string, or two have the same text.
    """
    plain = [obj_id.item() if isinstance(obj_id, np.generic) else obj_id for obj_id in obj_ids]
    for obj_id in plain:
        check_plain(obj_id, "whose masks are written")
    if len({str(obj_id) for obj_id in plain}) < len(plain):
        raise ValueError(f"Two of the object ids {plain} have the same text.")
    return plain


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """The whole records of a file of JSON lines; what comes after the last newline was cut off."""
    return [json.loads(line) for line in data.split(b"\n")[:-1]]
