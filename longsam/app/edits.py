"""Prompts as the page has them: a list of edits for each object and frame."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from longsam import LongVideoPredictor, State
from longsam.masks import rle
from longsam.masks.record import MaskArray

Edit = dict[str, Any]
Answer = list[dict[str, Any]]
ObjectId = int | str


def check(edits: Sequence[Edit], frame_size: tuple[int, int]) -> None:
    """Refuse what is not in the frame.

    Args:
        edits: Of an object on a frame, see `log.is_edit`.
        frame_size: (height, width) of the video.

    Raises:
        ValueError: A point or box lies outside, a box is not first, or a mask is of another size.
    """
    height, width = frame_size
    for number, edit in enumerate(edits):
        if edit["kind"] == "point" and not (0 <= edit["x"] <= width and 0 <= edit["y"] <= height):
            raise ValueError(
                f"the point {edit['x']:g},{edit['y']:g} is outside the frame of {width} x {height}."
            )
        if edit["kind"] == "box":
            x0, y0, x1, y1 = edit["box"]
            if number and edits[number - 1]["kind"] != "mask":
                raise ValueError("a box comes before the points of its object, and there is one.")
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise ValueError(
                    f"the box {x0:g},{y0:g},{x1:g},{y1:g} is not in the frame of {width} x "
                    f"{height}, or is empty."
                )
        if edit["kind"] == "mask" and not decoded(edit, frame_size).any():
            raise ValueError("the mask is empty; take the object away instead.")


def decoded(edit: Edit, frame_size: tuple[int, int]) -> MaskArray:
    """The mask of an edit.

    Raises:
        ValueError: It is not of this size, or damaged.
    """
    return rle.decode({"size": list(frame_size), "counts": edit["counts"]}, frame_size)


def apply(
    predictor: LongVideoPredictor,
    state: State,
    obj_id: ObjectId,
    frame_idx: int,
    before: Sequence[Edit],
    edits: Sequence[Edit],
) -> tuple[list[ObjectId], Any]:
    """Let the model have the edits of an object on a frame, one after the other.

    Each is a separate call, as clicks are, since a click refines the mask of those before. Where
    one was taken away all are given again, so that a list of edits always has the same mask.

    Args:
        predictor: The predictor.
        state: The session.
        obj_id: The object.
        frame_idx: The frame.
        before: The edits that the model has.
        edits: Those that it shall have.

    Returns:
        The objects and mask logits of the frame.
    """
    first, step = len(before), None
    if list(edits[:first]) != list(before):
        first = 0
        step = predictor.clear_all_prompts_in_frame(state, frame_idx, obj_id)
    for number in range(first, len(edits)):
        if edits[number]["kind"] == "mask":
            mask = decoded(edits[number], state.source.frame_size)
            step = predictor.add_new_mask(state, frame_idx, obj_id, mask)
            continue
        group: list[Edit] = []
        for edit in edits[: number + 1]:  # those since the last mask
            group = [] if edit["kind"] == "mask" else [*group, edit]
        points = [[edit["x"], edit["y"]] for edit in group if edit["kind"] == "point"]
        labels = [edit["label"] for edit in group if edit["kind"] == "point"]
        boxes = [edit["box"] for edit in group if edit["kind"] == "box"]
        step = predictor.add_new_points_or_box(
            state,
            frame_idx,
            obj_id,
            points=points or None,
            labels=labels or None,
            box=boxes[0] if boxes else None,
        )
    assert step is not None  # the caller gives other edits than before
    return list(step[1]), step[2]


def answer(
    predictor: LongVideoPredictor,
    state: State,
    frame_idx: int,
    obj_ids: Sequence[ObjectId],
    mask_logits: Any,
    shown: Iterable[ObjectId],
) -> Answer:
    """The masks of some objects of a frame, as the page gets them."""
    masks = (mask_logits[:, 0] > 0).cpu().numpy()
    try:
        scores = predictor.scores(state, frame_idx)
    except ValueError:  # nothing is remembered of the frame
        scores = {}
    told = []
    for obj_id, mask in zip(obj_ids, masks, strict=True):
        if obj_id not in shown:
            continue
        code = coco.encode(np.asfortranarray(mask, np.uint8))
        found = scores.get(obj_id)
        told.append(
            {
                "id": obj_id,
                "counts": code["counts"].decode(),
                "area": int(mask.sum()),
                "score": None if found is None else _number(found.object_score),
                "iou": None if found is None else _number(found.predicted_iou),
            }
        )
    return told


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{float(value):.5g}")
