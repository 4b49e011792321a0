"""How well masks match the truth."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

BoolArray = npt.NDArray[np.bool_]


def iou(mask: Any, truth: Any, void: Any = None) -> npt.NDArray[np.float64]:
    """Intersection over union of masks: DAVIS's region measure J.

    Args:
        mask: Array or tensor, ... x height x width; bool, or numbers of which all but 0 count. For
            mask logits pass `mask_logits > 0`.
        truth: The truth, of a shape that broadcasts with the mask's.
        void: Pixels that do not count, of such a shape too; None is none.

    Returns:
        float64, the leading dimensions. 1 where both are empty, as in DAVIS.

    Raises:
        ValueError: Heights or widths differ.
    """
    first, second = _given(mask, truth, void)
    both = (first & second).sum(axis=(-2, -1))
    either = (first | second).sum(axis=(-2, -1))
    score: npt.NDArray[np.float64] = np.where(either == 0, 1.0, both / np.maximum(either, 1))
    return score


def boundary_f(
    mask: Any, truth: Any, void: Any = None, *, tolerance: float = 0.008
) -> npt.NDArray[np.float64]:
    """How well the outlines of masks match: DAVIS's contour measure F.

    The harmonic mean of precision, the share of the mask's boundary that lies near the truth's, and
    recall, the share of the truth's that lies near the mask's. Boundary pixels differ from the
    pixel to the right, below, or below to the right. Perazzi and others, "A Benchmark Dataset and
    Evaluation Methodology for Video Object Segmentation", CVPR 2016, with the tolerance of
    davis2017-evaluation. Written from the definition; tests compare it with TrackEval and
    esdft-segmetric.

    Args:
        mask: As in `iou`.
        truth: As in `iou`.
        void: As in `iou`.
        tolerance: The distance that counts as near, as a fraction of the frame's diagonal, rounded
            up to whole pixels.

    Returns:
        float64, the leading dimensions. 1 where neither mask has a boundary, 0 where one has none.

    Raises:
        ValueError: Heights or widths differ, or the tolerance is not from 0 to 1.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is {tolerance}; it must be from 0 to 1")
    first, second = np.broadcast_arrays(*_given(mask, truth, void))
    radius = math.ceil(tolerance * math.hypot(*first.shape[-2:]))
    score = np.empty(first.shape[:-2])
    for index in np.ndindex(score.shape):
        outlines = [_boundary(one[index]) for one in (first, second)]
        if not all(one.any() for one in outlines):
            score[index] = float(not any(one.any() for one in outlines))
            continue
        precision = _share_near(outlines[0], outlines[1], radius)
        recall = _share_near(outlines[1], outlines[0], radius)
        either = precision + recall
        score[index] = 2 * precision * recall / either if either else 0.0
    return score


def _given(mask: Any, truth: Any, void: Any) -> tuple[BoolArray, BoolArray]:
    """Both masks, without the pixels that do not count."""
    masks = [_as_bool(one) for one in (mask, truth)]
    if void is not None:
        outside = _as_bool(void)
        masks = [one & ~outside if one.shape[-2:] == outside.shape[-2:] else one for one in masks]
        masks.append(outside)
    if len({one.shape[-2:] for one in masks}) > 1 or any(one.ndim < 2 for one in masks):
        shapes = " and ".join(str(one.shape) for one in masks)
        raise ValueError(f"masks are {shapes}; all must end in the same height, width")
    return masks[0], masks[1]


def _as_bool(given: Any) -> BoolArray:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    mask: BoolArray = np.asarray(given).astype(bool)
    return mask


def _boundary(mask: BoolArray) -> BoolArray:
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _share_near(pixels: BoolArray, others: BoolArray, radius: int) -> float:
    """The share of the pixels with one of the other pixels within a distance."""
    padded = np.pad(others, radius)
    width = padded.shape[1]
    y, x = np.nonzero(pixels)
    lonely = (y + radius) * width + x + radius
    reach = np.arange(-radius, radius + 1)
    squares = reach[:, None] ** 2 + reach**2
    steps = (reach[:, None] * width + reach)[squares <= radius**2]
    nearest_first = np.argsort(squares[squares <= radius**2], kind="stable")
    flat = padded.ravel()
    for step in steps[nearest_first]:
        lonely = lonely[~flat[lonely + step]]
        if not lonely.size:
            break
    return 1 - len(lonely) / len(y)
