"""What a detector has found on one frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam.detections.boxes import Boxes, boxes_around
from longsam.frames import Frame

Masks = npt.NDArray[np.bool_]
"""n x height x width."""

Detector = Callable[[Frame], Any]
"""Takes a frame (uint8 RGB, height x width x 3); returns anything that `as_detections` takes."""


@dataclass(frozen=True)
class Detections:
    """What a detector found on one frame.

    Args:
        boxes: x0, y0, x1, y1 in pixels of the frame, n x 4; None: those around the masks.
        scores: From 0 to 1, (n,); None is 1 for all.
        labels: What the n things are, of any type; None is None for all.
        masks: bool (or numbers 0 and 1), n x height x width of the frame, or n x 1 x height x
            width; None if the detector gives only boxes. If there are masks, objects are prompted
            with them. Things with an empty mask are ignored.

    Raises:
        ValueError: The shapes do not match, a box is not finite, its width or height is not above
            0, or masks are of another type.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float64]
    labels: Sequence[Any]
    masks: Masks | None

    def __init__(
        self,
        boxes: Any = None,
        scores: Any = None,
        labels: Sequence[Any] | None = None,
        masks: Any = None,
    ):
        of_masks = None if masks is None else _as_masks(masks)
        if boxes is None:
            boxes = [] if of_masks is None else boxes_around(torch.from_numpy(of_masks))
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
        if of_masks is not None and len(of_masks) != count:
            raise ValueError(
                f"Detections are boxes of shape (n, 4) and n masks; there are {count} boxes and "
                f"{len(of_masks)} masks."
            )
        is_box = (given[:, 2:] > given[:, :2]).all(1)
        if of_masks is not None:
            is_box |= ~of_masks.any((1, 2))
        if not np.isfinite(given).all() or not is_box.all():
            raise ValueError(
                f"A box is x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1; got {given.tolist()}."
            )
        object.__setattr__(self, "boxes", given)
        object.__setattr__(self, "scores", of_scores)
        object.__setattr__(self, "labels", of_labels)
        object.__setattr__(self, "masks", of_masks)

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, which: Any) -> "Detections":
        """Some of them.

        Args:
            which: Indices, or a bool for each.
        """
        rows = np.arange(len(self))[which]
        return Detections(
            self.boxes[rows],
            self.scores[rows],
            [self.labels[row] for row in rows],
            None if self.masks is None else self.masks[rows],
        )


def as_detections(found: Any) -> Detections:
    """What a detector returned, as `Detections`.

    Args:
        found: `Detections`; None for nothing; a tuple (boxes, scores, labels, masks) or its first
            parts; an array of boxes, n x 4, or of masks, n x height x width; or `Detections` of the
            package supervision, whose class names (else class numbers) become the labels, and whose
            masks are used if it has any.

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
            getattr(found, "mask", None),
        )
    if isinstance(found, tuple) and 1 <= len(found) <= 4:
        return Detections(*found)
    if isinstance(found, (np.ndarray, torch.Tensor)) and found.ndim > 2:
        return Detections(masks=found)
    if isinstance(found, (np.ndarray, list, torch.Tensor)):
        return Detections(found)
    raise ValueError(
        f"A detector returned {type(found).__name__}; it must be longsam.detections.Detections, "
        "(boxes, scores, labels, masks), an array of boxes (n x 4) or of masks (n x height x "
        "width), supervision's Detections, or None."
    )


def usable(found: Detections, frame_size: tuple[int, int], min_score: float) -> Detections:
    """The detections with enough score, clipped to the frame (height, width).

    Raises:
        ValueError: The masks are of another size.
    """
    height, width = frame_size
    masks = found.masks
    if masks is not None and len(masks) and masks.shape[1:] != (height, width):
        raise ValueError(
            f"The detector's masks are {masks.shape[2]}x{masks.shape[1]} pixels, but the frame is "
            f"{width}x{height}; they must have its size."
        )
    boxes = found.boxes.clip(0, [width, height, width, height])
    is_usable = (found.scores >= min_score) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if masks is not None:
        is_usable &= masks.any((1, 2))
    kept = found.only(is_usable)
    return Detections(boxes[is_usable], kept.scores, kept.labels, kept.masks)


def _as_masks(masks: Any) -> Masks:
    if isinstance(masks, torch.Tensor):
        masks = masks.detach().cpu().numpy()
    try:
        given = np.asarray(masks)
    except ValueError as error:  # of different shapes
        raise ValueError(f"Detections have masks of one size; {error}.") from error
    if given.ndim == 4 and given.shape[1] == 1:
        given = given[:, 0]
    if given.size == 0:
        return np.zeros((len(given), *given.shape[1:3]) if given.ndim == 3 else (0, 1, 1), bool)
    if given.ndim != 3 or not (given.dtype == bool or np.isin(given, (0, 1)).all()):
        raise ValueError(
            f"Detections have masks of shape (n, height, width), bool; these are of shape "
            f"{given.shape} and type {given.dtype}. Of probabilities give `masks > 0.5`."
        )
    return given.astype(bool, copy=False)


def _as_array(numbers: Any) -> npt.NDArray[np.float64]:
    if isinstance(numbers, torch.Tensor):  # on any device, of any dtype
        numbers = numbers.detach().double().cpu().numpy()
    return np.asarray(numbers, np.float64)
