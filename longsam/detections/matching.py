"""Which detection belongs to which object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam.detections.boxes import MOSTLY, boxes_around, ious, shared_with, shares_inside
from longsam.detections.detections import Detections
from longsam.detections.options import Options

try:
    from scipy.optimize import linear_sum_assignment
except ImportError as error:
    raise ImportError("longsam.detections needs scipy: `pip install scipy`.") from error


Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """How the detections of a frame and the tracked objects match.

    Args:
        confirmed: The objects that were clearly detected, as rows of their masks.
        corrections: By object: the detection that matches it but differs from its mask.
        new: Detections of things not tracked yet, each once, surest first.
    """

    confirmed: set[int]
    corrections: dict[int, int]
    new: list[int]


def match(
    found: Detections, masks: torch.Tensor, labels: Sequence[Any], options: Options
) -> Matches:
    """Match detections one to one with objects, and decide what follows.

    Args:
        found: What the detector found.
        masks: The objects' masks, num_objects x height x width, bool.
        labels: The objects' labels.
        options: `match_iou` and `correct_iou` of them.
    """
    overlap, of_masks, of_boxes = _overlaps(found, masks)
    alike = np.zeros(overlap.shape, bool)
    for d, label in enumerate(found.labels):
        alike[d] = [label == other for other in labels]
    holds, is_part = (of_masks > MOSTLY) & alike, (of_boxes > MOSTLY) & alike
    pairs = linear_sum_assignment(overlap + 0.01 * alike, maximize=True)  # labels decide ties
    matched = {
        int(d): int(o) for d, o in zip(*pairs, strict=True) if overlap[d, o] >= options.match_iou
    }
    corrections = {
        o: d
        for d, o in matched.items()
        if overlap[d, o] < options.correct_iou and holds[d].sum() < 2
    }
    is_of = holds | is_part | ((overlap >= options.match_iou) & alike)
    confirmed = set()
    for d, of_object in enumerate(is_of):
        owners = [matched[d]] if d in matched else of_object.nonzero()[0].tolist()
        if len(owners) == 1:  # it clearly belongs to one object, however loose or tight
            confirmed.add(owners[0])
    new: list[int] = []
    for d in np.argsort(-found.scores).tolist():
        same = [n for n in new if found.labels[n] == found.labels[d]]
        is_known = d in matched or is_of[d].any()
        is_twice = (_ious_of(found, d, same) >= options.match_iou).any()
        if not is_known and not is_twice:
            new.append(d)
    return Matches(confirmed, corrections, new)


def _overlaps(found: Detections, masks: torch.Tensor) -> tuple[Shares, Shares, Shares]:
    """IoUs, shares of the objects' masks on what was found, and shares of what was found on them.

    All are found x objects: of masks if the detector gave any, else of boxes.
    """
    if found.masks is None:
        return ious(found.boxes, boxes_around(masks)), *shares_inside(masks, found.boxes)
    around = boxes_around(torch.from_numpy(found.masks))
    shared = shared_with(masks, found.masks, around)
    of_found = found.masks.sum((1, 2), dtype=np.float64)[:, None]
    of_objects = masks.sum((1, 2)).double().cpu().numpy()[None]
    return (
        shared / np.maximum(of_found + of_objects - shared, 1),
        shared / np.maximum(of_objects, 1),
        shared / np.maximum(of_found, 1),
    )


def _ious_of(found: Detections, one: int, others: list[int]) -> Shares:
    """IoUs of a detection with others of the same frame."""
    if found.masks is None or not others:
        return ious(found.boxes[[one]], found.boxes[others])
    return _overlaps(found.only([one]), torch.from_numpy(found.masks[others]))[0]
