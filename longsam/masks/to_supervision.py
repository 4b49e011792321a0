"""Masks as `supervision.Detections`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from longsam.masks.drawing import as_bool
from longsam.masks.ids import ObjectId, check_obj_ids
from longsam.masks.record import box_of

if TYPE_CHECKING:
    from supervision import Detections


def as_supervision(
    obj_ids: Iterable[Any],
    mask_logits: Any,
    *,
    numbers: dict[ObjectId, int] | None = None,
) -> "Detections":
    """What a pass yields for a frame, as `supervision.Detections` with tracker ids.

        for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
            detections = as_supervision(obj_ids, mask_logits)

    Empty masks are left out. `detections.data["obj_id"]` has the ids as they were.

    Args:
        obj_ids: Integers or strings, one for each mask.
        mask_logits: num_objects x 1 x height x width (or without the 1): logits, where values above
            0 are the object, or bool.
        numbers: The integer for each id, since supervision's ids are integers. Give the same dict
            for every frame; new ids are added to it. None: ids must be integers.

    Raises:
        ValueError: An id is text and there are no `numbers`, or shapes do not match.
        ImportError: supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError(
            'as_supervision needs supervision: `pip install "longsam[export]"`.'
        ) from error
    ids, masks = check_obj_ids(list(obj_ids)), as_bool(mask_logits)
    if len(masks) != len(ids):
        raise ValueError(f"There are {len(masks)} masks, but the object ids are {ids}.")
    shown = [(obj_id, mask, box_of(mask)) for obj_id, mask in zip(ids, masks, strict=True)]
    kept = [(obj_id, mask, box) for obj_id, mask, box in shown if box is not None]
    named = np.empty(len(kept), object)
    named[:] = [obj_id for obj_id, _, _ in kept]
    return Detections(
        xyxy=np.array([box for _, _, box in kept], np.float32).reshape(-1, 4),
        mask=np.array([mask for _, mask, _ in kept], bool).reshape(-1, *masks.shape[1:]),
        tracker_id=np.array([_number(obj_id, numbers) for obj_id, _, _ in kept], int),
        data={"obj_id": named},
    )


def _number(obj_id: ObjectId, numbers: dict[ObjectId, int] | None) -> int:
    if numbers is None:
        if isinstance(obj_id, int):
            return obj_id
        raise ValueError(
            f"The object id {obj_id!r} is text, and supervision's tracker ids are integers. Give "
            "as_supervision a dict to number ids in, numbers={}, the same one for every frame."
        )
    if obj_id not in numbers:
        taken = set(numbers.values())
        is_free = isinstance(obj_id, int) and obj_id not in taken
        numbers[obj_id] = int(obj_id) if is_free else max([0, *taken]) + 1
    return numbers[obj_id]
