"""How well masks agree with the truth."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def iou(mask: Any, truth: Any) -> npt.NDArray[np.float64]:
    """Intersection over union of masks: DAVIS's region measure J.

    Args:
        mask: Array or tensor, ... x height x width; bool, or what is not 0 counts. For mask logits
            pass `mask_logits > 0`.
        truth: Of a shape that broadcasts with the mask's.

    Returns:
        float64, the leading dimensions. 1 where both are empty, as in DAVIS.

    Raises:
        ValueError: Heights or widths differ.
    """
    first, second = (_as_bool(given) for given in (mask, truth))
    if first.shape[-2:] != second.shape[-2:] or first.ndim < 2:
        raise ValueError(
            f"masks are {first.shape} and {second.shape}; both must end in the same height, width"
        )
    both = (first & second).sum(axis=(-2, -1))
    either = (first | second).sum(axis=(-2, -1))
    score: npt.NDArray[np.float64] = np.where(either == 0, 1.0, both / np.maximum(either, 1))
    return score


def _as_bool(given: Any) -> npt.NDArray[np.bool_]:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    mask: npt.NDArray[np.bool_] = np.asarray(given).astype(bool)
    return mask
