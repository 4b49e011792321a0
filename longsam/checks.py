"""Checks of a caller's arguments before upstream is called; NumPy's numbers become Python's."""

import operator
from typing import Any

import numpy as np
import torch

from longsam import _upstream
from longsam._upstream import InferenceState
from longsam.frames import FrameSource, LiveVideo
from longsam.object_ids import check_plain
from longsam.options import Options


def index(number: Any, name: str) -> int:
    """A whole number; NumPy's types are accepted too.

    Raises:
        ValueError: It is something else.
    """
    try:
        if isinstance(number, bool):
            raise TypeError
        return operator.index(number)
    except TypeError:
        raise ValueError(
            f"{name} is {number!r}; it must be a whole number, the frame's index."
        ) from None


def frame_idx(state: InferenceState, given: Any, name: str) -> int:
    """The index of a frame that can be prompted.

    Raises:
        ValueError: It is not a whole number, or outside the video.
    """
    checked = index(given, name)
    _upstream.images(state).check(checked, name)
    return checked


def obj_id(given: Any, options: Options | None = None) -> Any:
    """An object's id; NumPy's numbers and strings become Python's so that they can be saved.

    Raises:
        ValueError: It cannot be a dict key, or the session keeps snapshots and it cannot be saved
            in them.
    """
    if isinstance(given, np.generic) or (isinstance(given, torch.Tensor) and given.ndim == 0):
        given = given.item()
    try:
        hash(given)
    except TypeError:
        raise ValueError(
            f"The object id {given!r} is of type {type(given).__name__}; use an integer or a "
            "string."
        ) from None
    if options is not None and options.snapshots is not None:
        check_plain(given, "of a session with snapshots")
    return given


def points(points: Any, labels: Any, box: Any) -> None:
    """Refuse prompts that upstream would accept and then fail on.

    Raises:
        ValueError: Points and labels do not match, or the box is not four numbers.
    """
    if points is not None and labels is not None:
        of_points, of_labels = (_shape(given) for given in (points, labels))
        is_flat = len(of_points) == 2 and len(of_labels) == 1
        is_batch = len(of_points) == 3 and len(of_labels) == 2 and of_points[0] == of_labels[0] == 1
        is_empty = of_points == (0,) and of_labels == (0,)
        fits = is_empty or (
            (is_flat or is_batch) and of_points[-1] == 2 and of_points[-2] == of_labels[-1]
        )
        if not fits:
            raise ValueError(
                f"points has shape {of_points} and labels {of_labels}; points must be n x 2 (x, y "
                "in pixels), and labels n numbers, 1 on the object and 0 off it."
            )
    if box is not None and int(np.prod(_shape(box), dtype=int)) != 4:
        raise ValueError(
            f"box has shape {_shape(box)}; it must be the four numbers x0, y0, x1, y1, in pixels."
        )


def _shape(given: Any) -> tuple[int, ...]:
    if isinstance(given, torch.Tensor):
        return tuple(given.shape)
    try:
        return np.shape(given)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{given!r} is not an array of numbers ({error}).") from error


def batches(non_overlap_masks_for_mem_enc: bool, options: Options) -> None:
    """Refuse `batch_objects` for a model that cannot do it.

    Raises:
        ValueError: Objects of a batch would change each other's masks.
    """
    if options.batch_objects is not False and non_overlap_masks_for_mem_enc:
        raise ValueError(
            "batch_objects cannot be used with non_overlap_masks_for_mem_enc, which would let the "
            "objects of a batch change each other's masks. Leave one of them out."
        )


def policy(model: Any, options: Options) -> None:
    """Refuse a memory policy where it would not be followed.

    Raises:
        ValueError: The model cannot follow it, or an option excludes it.
    """
    policy = options.memory_policy
    if policy is None:
        return
    if options.batch_objects is not False:
        raise ValueError(
            "batch_objects cannot be used with memory_policy: each object reads memories of its "
            "own, so they cannot be batched. Leave one of them out."
        )
    why_not = _upstream.why_no_policy(model, policy.num_paths)
    if why_not is not None:
        raise ValueError(f"This model cannot follow memory_policy={policy.name!r}: {why_not}.")


def live(source: FrameSource, options: Options) -> None:
    """Refuse options that need any frame at any time, for a source that is live.

    Raises:
        ValueError: Such an option is set.
    """
    if not isinstance(source, LiveVideo):
        return
    if options.snapshots is not None:
        raise ValueError(f"{source.name} is live: it cannot be rewound, so it takes no snapshots.")
    if options.frames is not None:
        raise ValueError(
            f"{source.name} is live: its frames come one after the other, so frames=slice(...) "
            "cannot choose among them. Leave it out."
        )
