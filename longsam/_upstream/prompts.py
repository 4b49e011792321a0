"""The user's prompts, and the model's outputs for them so far."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from longsam._upstream.state import (
    InferenceState,
    conditioning_outputs,
    object_idx,
    tracked_outputs,
)

KEYS_BY_OBJECT_IDX = (
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
)


def prompt_frames(state: InferenceState, obj_idx: int) -> set[int]:
    """The frames on which the user has prompted an object, and its other conditioning frames."""
    return {
        frame_idx
        for by_frame in (
            conditioning_outputs(state, obj_idx),
            state["point_inputs_per_obj"][obj_idx],
            state["mask_inputs_per_obj"][obj_idx],
        )
        for frame_idx in by_frame
        if frame_idx >= 0
    }


def has_prompt(state: InferenceState, obj_idx: int, frame_idx: int) -> bool:
    """Whether the user gave points, a box or a mask for the object on this frame."""
    return (
        frame_idx in state["point_inputs_per_obj"][obj_idx]
        or frame_idx in state["mask_inputs_per_obj"][obj_idx]
    )


def has_waiting_prompts(state: InferenceState) -> bool:
    """Whether there are prompts for the next pass to consolidate."""
    return any(
        by_frame
        for by_storage in state["temp_output_dict_per_obj"].values()
        for by_frame in by_storage.values()
    )


def waiting_prompt_frames(state: InferenceState, obj_idx: int) -> set[int]:
    """The frames with prompts of an object for the next pass to consolidate."""
    waiting = state["temp_output_dict_per_obj"][obj_idx].values()
    return {frame_idx for by_frame in waiting for frame_idx in by_frame}


def forget_prompt(state: InferenceState, obj_idx: int, frame_idx: int) -> None:
    """Forget an object's prompts on a frame; its output stays as that of a tracked frame."""
    state["point_inputs_per_obj"][obj_idx].pop(frame_idx, None)
    state["mask_inputs_per_obj"][obj_idx].pop(frame_idx, None)
    output = conditioning_outputs(state, obj_idx).pop(frame_idx, None)
    if output is not None:
        tracked_outputs(state, obj_idx)[frame_idx] = output


@contextmanager
def unchanged_if_refused(state: InferenceState, obj_id: Any) -> Iterator[None]:
    """Restore the prompts of an object if adding another fails or is interrupted.

    Upstream adds the object, and removes the old prompt, before it looks at the new one.
    """
    before = object_idx(state, obj_id)
    ids = state["obj_ids"]
    # Whole dicts, for their order: conditioning frames are read in dict order.
    held = [
        (by_frame, dict(by_frame))
        for by_frame in ([] if before is None else _prompts_of(state, before))
    ]
    try:
        yield
    except BaseException:
        if before is None and obj_id in state["obj_id_to_idx"]:
            added = state["obj_id_to_idx"].pop(obj_id)
            for key in ("obj_idx_to_id", *KEYS_BY_OBJECT_IDX):
                state[key].pop(added, None)
            state["obj_ids"] = ids
        for by_frame, content in held:
            by_frame.clear()
            by_frame.update(content)
        raise


def _prompts_of(state: InferenceState, obj_idx: int) -> list[dict[int, Any]]:
    """The dicts of an object's prompts, and of the model's outputs for them so far."""
    return [
        state["point_inputs_per_obj"][obj_idx],
        state["mask_inputs_per_obj"][obj_idx],
        *state["temp_output_dict_per_obj"][obj_idx].values(),
    ]
