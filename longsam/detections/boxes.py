"""Geometry of boxes and masks."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou  # type: ignore[import-untyped]

Boxes = npt.NDArray[np.float64]
"""x0, y0, x1, y1 in pixels of the frame, n x 4; the right and lower edges are exclusive."""

MOSTLY = 0.5
"""A box holds a mask if more than this share of the mask lies inside it, and is a part of the mask
if the mask covers more than this share of the box."""

SAME_MASK = 0.7
"""Two masks with a higher IoU are the same thing, tracked twice."""


def boxes_around(masks: torch.Tensor) -> Boxes:
    """Boxes around masks (n x height x width, bool); an empty mask has 0, 0, 0, 0."""
    from sam2.utils.amg import (
        batched_mask_to_box,
    )  # not at the top: the wrapper explains what is missing

    boxes: Boxes = batched_mask_to_box(masks).double().cpu().numpy()
    # The corners are inclusive, so a mask of one pixel at 0, 0 has the box of an empty one.
    boxes[masks.flatten(1).any(1).cpu().numpy(), 2:] += 1
    return boxes


def ious(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """IoU of each box with each other one; 0 for two empty boxes."""
    overlaps = box_iou(torch.tensor(boxes), torch.tensor(others))
    result: npt.NDArray[np.float64] = overlaps.nan_to_num(0.0).numpy()
    return result


def shares_inside(
    masks: torch.Tensor, boxes: Boxes
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of each mask inside each box, and the share of each box on each mask.

    Both are boxes x masks; 0 for an empty mask.
    """
    of_masks, of_boxes = (np.zeros((len(boxes), len(masks))) for _ in range(2))
    areas = masks.sum((1, 2)).clamp(min=1).cpu().numpy()
    for d, (x0, y0, x1, y1) in enumerate(boxes.round().astype(int)):
        inside = masks[:, y0:y1, x0:x1].sum((1, 2)).cpu().numpy()
        of_masks[d], of_boxes[d] = inside / areas, inside / max(1, (x1 - x0) * (y1 - y0))
    return of_masks, of_boxes


def shared_with(
    masks: torch.Tensor, found: npt.NDArray[np.bool_], boxes: Boxes
) -> npt.NDArray[np.float64]:
    """The number of pixels that each found mask shares with each mask, found x masks.

    Args:
        masks: num_masks x height x width, bool.
        found: n x height x width.
        boxes: Around what was found.
    """
    shared = np.zeros((len(found), len(masks)))
    for d, (x0, y0, x1, y1) in enumerate(_whole(boxes)):
        part = torch.from_numpy(found[d, y0:y1, x0:x1]).to(masks.device)
        shared[d] = (masks[:, y0:y1, x0:x1] & part).sum((1, 2)).cpu().numpy()
    return shared


def _whole(boxes: Boxes) -> Any:
    """Boxes of whole pixels that contain the given ones."""
    corners = [np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])]
    return np.concatenate(corners, axis=1).clip(0).astype(int)


def same_masks(masks: torch.Tensor) -> list[tuple[int, int]]:
    """Pairs of masks that are nearly the same, as rows; the first is the lower one."""
    boxes = boxes_around(masks)
    near = np.argwhere(np.triu(ious(boxes, boxes) > MOSTLY, 1))
    return [
        (int(a), int(b))
        for a, b in near
        if (masks[a] & masks[b]).sum() > SAME_MASK * (masks[a] | masks[b]).sum()
    ]
