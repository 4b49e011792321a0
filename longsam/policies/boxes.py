"""Boxes around masks."""

import torch

Box = tuple[float, float, float, float]
"""Left, top, right, bottom: the outermost pixels; 0, 0, 0, 0 around nothing."""


def boxes(masks: torch.Tensor) -> list[Box]:
    """The boxes around what is above 0.

    Args:
        masks: n x height x width.
    """
    inside = masks > 0
    columns, rows = inside.any(dim=1), inside.any(dim=2)
    together = torch.cat([columns, rows], dim=1).cpu().numpy()
    width = masks.shape[2]
    found: list[Box] = []
    for line in together:
        across, down = line[:width].nonzero()[0], line[width:].nonzero()[0]
        if len(across):
            found.append((float(across[0]), float(down[0]), float(across[-1]), float(down[-1])))
        else:
            found.append((0.0, 0.0, 0.0, 0.0))
    return found


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union, of areas right - left by bottom - top; 0 where both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    either = _area(first) + _area(second) - shared
    return shared / either if either > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
