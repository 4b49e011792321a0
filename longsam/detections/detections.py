"""What a detector has found on one frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam.detections.boxes import Boxes
from longsam.frames import Frame

Detector = Callable[[Frame], Any]
"""Takes a frame (uint8 RGB, height x width x 3); returns anything that `as_detections` takes."""


@dataclass(frozen=True)
class Detections:
    """What a detector has found on one frame.

    Args:
        boxes: x0, y0, x1, y1 in pixels of the frame, n x 4.
        scores: From 0 to 1, (n,); None is 1 for all.
        labels: What the n things are, of any type; None is None for all.

    Raises:
        ValueError: The shapes do not fit each other, or a box is not finite, or its width or
            height is not above 0.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float64]
    labels: Sequence[Any]

    def __init__(self, boxes: Any, scores: Any = None, labels: Sequence[Any] | None = None):
        try:
            given = _as_array(boxes)
            given = given.reshape(0, 4) if given.size == 0 else given
            count = len(given)
            of_scores = np.ones(count) if scores is None else _as_array(scores)
            of_labels = [None] * count if labels is None else list(labels)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Detections are boxes of shape (n, 4), n scores and n labels; these cannot be "
                f"read as numbers: {error}."
            ) from error
        if given.shape != (count, 4) or of_scores.shape != (count,) or len(of_labels) != count:
            raise ValueError(
                f"Detections are boxes of shape (n, 4), n scores and n labels; these are of shape "
                f"{given.shape} and {of_scores.shape}, with {len(of_labels)} labels."
            )
        if not np.isfinite(given).all() or not (given[:, 2:] > given[:, :2]).all():
            raise ValueError(
                f"A box is x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1; got {given.tolist()}."
            )
        object.__setattr__(self, "boxes", given)
        object.__setattr__(self, "scores", of_scores)
        object.__setattr__(self, "labels", of_labels)

    def __len__(self) -> int:
        return len(self.boxes)


def as_detections(found: Any) -> Detections:
    """What a detector returned, as `Detections`.

    Args:
        found: `Detections`; None for nothing; a tuple (boxes, scores, labels) or its first one or
            two parts; an array of boxes, n x 4; or `Detections` of the package supervision, whose
            class names, or else class numbers, become the labels.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(found, Detections):
        return found
    if found is None:
        return Detections([])
    if hasattr(found, "xyxy"):  # supervision
        data = getattr(found, "data", None) or {}
        labels = data.get("class_name", getattr(found, "class_id", None))
        return Detections(
            found.xyxy,
            getattr(found, "confidence", None),
            None if labels is None else np.asarray(labels).tolist(),
        )
    if isinstance(found, tuple) and 1 <= len(found) <= 3:
        return Detections(*found)
    if isinstance(found, (np.ndarray, list, torch.Tensor)):
        return Detections(found)
    raise ValueError(
        f"A detector returned {type(found).__name__}; it must be longsam.detections.Detections, "
        "(boxes, scores, labels), an array of boxes (n x 4), supervision's Detections, or None."
    )


def usable(found: Detections, frame_size: tuple[int, int], min_score: float) -> Detections:
    """The detections of enough score, cut to the frame (height, width)."""
    height, width = frame_size
    boxes = found.boxes.clip(0, [width, height, width, height])
    is_usable = (found.scores >= min_score) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    labels = [label for label, kept in zip(found.labels, is_usable, strict=True) if kept]
    return Detections(boxes[is_usable], found.scores[is_usable], labels)


def _as_array(numbers: Any) -> npt.NDArray[np.float64]:
    if isinstance(numbers, torch.Tensor):  # on any device, of any dtype
        numbers = numbers.detach().double().cpu().numpy()
    return np.asarray(numbers, np.float64)
