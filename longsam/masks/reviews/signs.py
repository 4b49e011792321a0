"""Signs that a mask is wrong, each from 0 to 1 for every frame of an object.

Each compares the object with itself: its size and shape with those on the first frames with a mask,
after its prompt, and its scores with those usual for it.
"""

import numpy as np
import numpy.typing as npt

from longsam.masks.reviews.history import Floats, History

FIRST_FRAMES = 10
"""An object's size and shape are taken from its first frames with a mask, this many."""

USUAL = 0.9
"""The quantile of an object's scores that is usual for it."""

BORDER = 2
"""Pixels: a mask that ends this close to the border may be leaving the frame."""


def of_object(history: History, size: tuple[int, int]) -> dict[str, Floats]:
    """The signs that need no other object.

    Args:
        history: The object's history.
        size: Height and width of the frames.
    """
    there = history.areas > 0
    growth = log_growth(history)
    score, iou = _relative(history.scores), _relative(history.ious)
    boxes = history.boxes
    with np.errstate(invalid="ignore"):
        fill = history.areas / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    fill = fill / _first(fill, there)
    signs = {
        "larger": there * ramp(growth, 0.15, 0.6),
        "smaller": there * ramp(-growth, 0.5, 1.5),
        "low predicted IoU": there * ramp(-iou, -0.85, -0.4),
        "low object score": there * ramp(-score, -0.7, -0.1),
        "empty though score high": ~there * ramp(history.scores, -3, -0.3),
        "scattered": there * ramp(-fill, -0.85, -0.5),
        "vanished inside the frame": _vanished_inside(history, there, size),
        "jumped": _jumped(history, there),
    }
    return {name: np.nan_to_num(sign) for name, sign in signs.items()}


def log_growth(history: History) -> Floats:
    """How much larger a mask is than at first: the logarithm of the ratio, 0 if as large."""
    there = history.areas > 0
    growth: Floats = np.log(np.maximum(history.areas, 1) / _first(history.areas, there))
    return growth


def ramp(values: Floats, start: float, end: float) -> Floats:
    """0 up to the start, 1 from the end on, and linear in between."""
    risen: Floats = np.clip((values - start) / (end - start), 0, 1)
    return risen


def _first(values: Floats, there: npt.NDArray[np.bool_]) -> float:
    return float(np.median(values[there][:FIRST_FRAMES])) if there.any() else 1.0


def _relative(scores: Floats) -> Floats:
    """Scores as shares of what is usual for the object; NaN where there are none."""
    known = scores[~np.isnan(scores)]
    usual = float(np.quantile(known, USUAL)) if len(known) else np.nan
    relative: Floats = scores / usual if usual > 0 else np.full(len(scores), np.nan)
    return relative


def _vanished_inside(
    history: History, there: npt.NDArray[np.bool_], size: tuple[int, int]
) -> Floats:
    """1 where the mask is empty and the last one before did not touch the border."""
    height, width = size
    boxes = history.boxes
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, 0] > BORDER) & (boxes[:, 1] > BORDER)
        inside &= (boxes[:, 2] < width - BORDER) & (boxes[:, 3] < height - BORDER)
    last = np.maximum.accumulate(np.where(there, np.arange(len(there)), -1))
    vanished: Floats = (~there & (last >= 0) & inside[np.maximum(last, 0)]).astype(np.float64)
    return vanished


def _jumped(history: History, there: npt.NDArray[np.bool_]) -> Floats:
    """How much further the mask moved in one step than ever before, as a fraction of its size."""
    at = np.flatnonzero(there)
    jumped = np.zeros(len(there))
    if len(at) < 2:
        return jumped
    boxes = history.boxes[at]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt(_first(history.areas, there))
    steps = np.hypot(*np.diff(centres, axis=0).T) / side
    before = np.maximum.accumulate(np.concatenate([[0.2], steps[:-1]]))
    jumped[at[1:]] = ramp(steps / before, 1, 3)
    return jumped
