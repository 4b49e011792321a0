"""Masks drawn over a frame: one look for overlays, contact sheets and previews.

It uses numpy and Pillow, which every installation has: supervision's annotators need OpenCV and
blend whole frames, and torchvision's draw no outlines.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from longsam.masks.ids import ObjectId
from longsam.masks.lines import Box
from longsam.masks.record import ImageArray, MaskArray, box_of

COLOURS = (
    *((0, 255, 0), (255, 153, 255), (0, 0, 255), (204, 0, 0)),
    *((255, 255, 255), (153, 51, 204), (204, 51, 102), (153, 204, 102)),
)
"""Any two differ by 29 or more in CIELAB (a difference of 2 is visible), for colour-blind people
too, by the matrices of Machado et al. 2009."""

TINT = 0.15
"""Share of the object's colour inside its outline, low enough for the object to stay visible."""

MOST_CHARACTERS = 40
"""At most this many characters of an id are drawn."""

Colour = tuple[int, int, int]


def draw(
    image: ImageArray,
    obj_ids: Iterable[Any],
    masks: Any,
    *,
    boxes: Sequence[Box | None] | None = None,
) -> ImageArray:
    """Outline masks, tint them slightly, and write the objects' ids.

    An object's colour depends on its number, or on its place if its id is text. With more than
    eight objects, those near each other never share a colour.

    Args:
        image: uint8 RGB, height x width x 3; not changed.
        obj_ids: One for each mask.
        masks: num_objects x height x width (or with a 1 after the first), arrays or tensors: bool,
            or logits, where values above 0 are the object.
        boxes: Around each mask, if they are known.

    Returns:
        A new image.

    Raises:
        ValueError: The masks' size differs from the image's, or their number from that of the ids.
    """
    ids, planes = list(obj_ids), as_bool(masks)
    if planes.shape[1:] != image.shape[:2] or len(planes) != len(ids):
        raise ValueError(
            f"The image is {image.shape[1]}x{image.shape[0]} pixels and there are {len(ids)} ids, "
            f"but there are {len(planes)} masks of {planes.shape[2]}x{planes.shape[1]}."
        )
    drawn = image.copy()
    found = [box_of(mask) for mask in planes] if boxes is None else list(boxes)
    shown = [
        (obj_id, planes[at], box, colour)
        for at, (obj_id, box, colour) in enumerate(
            zip(ids, found, colours_of(ids, found), strict=True)
        )
        if box is not None
    ]
    thickness = max(1, round(min(image.shape[:2]) / 300))
    for _, mask, box, colour in shown:
        _tint(drawn, mask, box, colour)
    for _, mask, box, colour in shown:
        _outline(drawn, mask, box, colour, thickness)
    if not shown:
        return drawn
    return _with_ids(drawn, [(obj_id, _main_box(mask, box)) for obj_id, mask, box, _ in shown])


def as_bool(masks: Any) -> MaskArray:
    """Masks as bool, num_objects x height x width."""
    array = masks.detach().cpu().numpy() if hasattr(masks, "detach") else np.asarray(masks)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3:
        raise ValueError(
            f"The masks have the shape {array.shape}; it must be num_objects x height x width."
        )
    inside: MaskArray = array if array.dtype == np.bool_ else array > 0
    return inside


def colour_of(obj_id: Any, position: int) -> Colour:
    """An object's colour if no other is near: by its number, or by its place among all."""
    return COLOURS[_preferred(obj_id, position)]


def colours_of(obj_ids: Sequence[ObjectId], boxes: Sequence[Box | None]) -> list[Colour]:
    """A colour for each object of a frame; objects near each other never share one.

    Args:
        obj_ids: The objects.
        boxes: Around each one's mask.
    """
    chosen: list[int] = []
    for at, (obj_id, box) in enumerate(zip(obj_ids, boxes, strict=True)):
        number = _preferred(obj_id, at)
        if len(obj_ids) > 1 and box is not None:
            near = {n for n, other in zip(chosen, boxes, strict=False) if _are_near(box, other)}
            free = (n % len(COLOURS) for n in range(number, number + len(COLOURS)))
            number = next((n for n in free if n not in near), number)
        chosen.append(number)
    return [COLOURS[number] for number in chosen]


def _preferred(obj_id: Any, position: int) -> int:
    number = obj_id if isinstance(obj_id, int) and obj_id >= 1 else position + 1
    return (number - 1) % len(COLOURS)


def _are_near(box: Box, other: Box | None) -> bool:
    """Whether they overlap, or are within a quarter of the larger one's size of each other."""
    if other is None:
        return False
    margin = max(box[2] - box[0], box[3] - box[1], other[2] - other[0], other[3] - other[1]) / 4
    return all(
        box[axis] < other[axis + 2] + margin and other[axis] < box[axis + 2] + margin
        for axis in (0, 1)
    )


def _tint(drawn: ImageArray, mask: MaskArray, box: Box, colour: Colour) -> None:
    x0, y0, x1, y1 = box
    inside, crop = mask[y0:y1, x0:x1], drawn[y0:y1, x0:x1]
    crop[inside] = ((1 - TINT) * crop[inside] + TINT * np.array(colour)).astype(np.uint8)


def _outline(drawn: ImageArray, mask: MaskArray, box: Box, colour: Colour, thickness: int) -> None:
    """A line inside the mask's edge, and a thin one around it for contrast."""
    x0, y0, x1, y1 = box
    height, width = mask.shape
    x0, y0, x1, y1 = max(0, x0 - 1), max(0, y0 - 1), min(width, x1 + 1), min(height, y1 + 1)
    inside, crop = mask[y0:y1, x0:x1], drawn[y0:y1, x0:x1]
    grown = _with_neighbours(inside, 1, np.logical_or)
    crop[grown & ~inside] = 0 if _is_bright(colour) else 255
    crop[inside & ~_with_neighbours(inside, thickness, np.logical_and)] = colour


def _with_neighbours(inside: MaskArray, step: int, combine: np.ufunc) -> MaskArray:
    """Each pixel combined with the four at this distance; beyond the frame it repeats the edge."""
    result: npt.NDArray[np.bool_] = inside.copy()
    for axis in (0, 1):
        one, other = result.swapaxes(0, axis), inside.swapaxes(0, axis)
        combine(one[step:], other[:-step], out=one[step:])
        combine(one[:-step], other[step:], out=one[:-step])
    return result


def _is_bright(colour: Colour) -> bool:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120


def _main_box(mask: MaskArray, box: Box) -> Box:
    """Around most of a mask: without specks that empty rows or columns separate from it."""
    x0, y0, x1, y1 = box
    if not mask[y0:y1, x0:x1].any():  # the box is somebody else's
        return box
    left, right = _largest_run(mask[y0:y1, x0:x1].sum(axis=0))
    top, bottom = _largest_run(mask[y0:y1, x0 + left : x0 + right].sum(axis=1))
    return x0 + left, y0 + top, x0 + right, y0 + bottom


def _largest_run(counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Of the runs of numbers above 0 the one with the greatest sum: its start and stop."""
    edges = np.flatnonzero(np.diff(counts > 0, prepend=False, append=False))
    sums = np.add.reduceat(np.append(counts, 0), edges)[::2]
    number = 2 * int(sums.argmax())
    return int(edges[number]), int(edges[number + 1])


def _with_ids(drawn: ImageArray, objects: list[tuple[Any, Box]]) -> ImageArray:
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    size = max(12, drawn.shape[0] // 40)
    font = _font(size)
    for obj_id, (x0, y0, x1, _) in objects:
        text = str(obj_id)[:MOST_CHARACTERS].encode(errors="replace").decode()
        left = (x0 + x1 - pen.textlength(text, font=font)) / 2 if text else x0
        left = min(left, drawn.shape[1] - pen.textlength(text, font=font) - 2)
        at = (max(2.0, left), max(1.0, y0 - 1.3 * size))
        pen.text(at, text, (255, 255, 255), font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.array(canvas)


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
