"""What a state remembers, moved to files, back, and between states."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from longsam._upstream.outputs import RECORDS, Placing, detach, moved
from longsam._upstream.prompts import KEYS_BY_OBJECT_IDX, prompt_frames
from longsam._upstream.state import (
    InferenceState,
    Output,
    conditioning_outputs,
    constants,
    every_output,
    frames_tracked,
    tracked_outputs,
)

KEYS_OF_OBJECTS = (
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "obj_id_to_idx",
    "obj_idx_to_id",
    "obj_ids",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
    "constants",
)
"""What a state holds besides its video, its options and what can be recomputed."""


def to_plain(state: InferenceState) -> InferenceState:
    """What tracking continues from, to be saved."""
    return {key: state[key] for key in KEYS_OF_OBJECTS}


def from_plain(state: InferenceState, saved: InferenceState) -> None:
    """Put saved content into a fresh state of the same video, each tensor where upstream has it."""
    device, storage = state["device"], state["storage_device"]
    constants = {name: moved(value, device) for name, value in saved["constants"].items()}
    placing = Placing(constants, device, storage)
    for key in KEYS_OF_OBJECTS:
        state[key] = saved[key]
    state["constants"] = constants
    for per_obj in (state["point_inputs_per_obj"], state["mask_inputs_per_obj"]):
        for by_frame in per_obj.values():
            for frame_idx, value in by_frame.items():
                by_frame[frame_idx] = moved(value, device)
    for output in every_output(state):
        placing.output(output)


def memories_read_from(
    state: InferenceState, obj_ids: list[Any], to_be_read: Iterable[int], feature_reach: int
) -> dict[str, Any]:
    """What a pass over some objects will read from its next frame on, to be saved.

    Args:
        state: The session.
        obj_ids: The objects that the pass tracks; they are the first ones.
        to_be_read: The frames before the next one, nearest first.
        feature_reach: From frames further away than this only object pointers are read.
    """
    tracked: dict[Any, dict[int, Output]] = {}
    conditioning: dict[Any, dict[int, Output]] = {}
    for obj_id in obj_ids:
        obj_idx = state["obj_id_to_idx"][obj_id]
        conditioning[obj_id] = dict(conditioning_outputs(state, obj_idx))
        tracked[obj_id] = {}
        for distance, frame_idx in enumerate(to_be_read, 1):
            output = tracked_outputs(state, obj_idx).get(frame_idx)
            if output is not None:
                slim = {**output, "pred_masks": None}
                if distance > 1:  # a policy continues from the frame before
                    slim.pop(RECORDS, None)
                if distance > feature_reach:
                    slim["maskmem_features"] = slim["maskmem_pos_enc"] = None
                tracked[obj_id][frame_idx] = slim
    prompts = {i: sorted(prompt_frames(state, state["obj_id_to_idx"][i])) for i in obj_ids}
    return {
        "conditioning": conditioning,
        "tracked": tracked,
        "prompts": prompts,
        "constants": state["constants"],
    }


def state_with_memories(state: InferenceState, memories: dict[str, Any]) -> InferenceState:
    """A state over the same frames that remembers what `memories_read_from` returned."""
    past = dict(state)
    per_obj: dict[str, Any] = {key: {} for key in KEYS_BY_OBJECT_IDX}
    device, storage = state["device"], state["storage_device"]
    constants = {name: moved(value, device) for name, value in memories["constants"].items()}
    placing = Placing(constants, device, storage)
    ids = list(memories["conditioning"])
    for obj_idx, obj_id in enumerate(ids):
        outputs = {
            "cond_frame_outputs": memories["conditioning"][obj_id],
            "non_cond_frame_outputs": memories["tracked"][obj_id],
        }
        for by_frame in outputs.values():
            for output in by_frame.values():
                placing.output(output)
        per_obj["output_dict_per_obj"][obj_idx] = outputs
        per_obj["temp_output_dict_per_obj"][obj_idx] = {name: {} for name in outputs}
        # Tracking only asks which frames have prompts.
        per_obj["point_inputs_per_obj"][obj_idx] = dict.fromkeys(memories["prompts"][obj_id])
        per_obj["mask_inputs_per_obj"][obj_idx] = {}
        per_obj["frames_tracked_per_obj"][obj_idx] = {}
    past.update(per_obj)
    past["obj_ids"] = ids
    past["obj_id_to_idx"] = OrderedDict((obj_id, i) for i, obj_id in enumerate(ids))
    past["obj_idx_to_id"] = OrderedDict(enumerate(ids))
    past["constants"] = constants
    past["cached_features"] = {}
    return past


def copy_tracked(past: InferenceState, state: InferenceState, obj_id: Any, frame_idx: int) -> None:
    """Copy a frame's output from another state of the same session, unless there is one."""
    old_idx, obj_idx = past["obj_id_to_idx"][obj_id], state["obj_id_to_idx"][obj_id]
    output = tracked_outputs(past, old_idx).get(frame_idx)
    if output is None:
        output = conditioning_outputs(past, old_idx)[frame_idx]
    output = dict(output)
    detach(output)
    tracked_outputs(state, obj_idx).setdefault(frame_idx, output)
    tracked = frames_tracked(past, old_idx)[frame_idx]
    frames_tracked(state, obj_idx).setdefault(frame_idx, dict(tracked))


def add_memories(state: InferenceState, obj_idx: int, outputs: list[Output]) -> None:
    """Give an object conditioning memories at negative frame indices, which no frame of the video
    has: -1, -2, ... after existing ones.
    """
    known = conditioning_outputs(state, obj_idx)
    for output in outputs:
        known[min([*known, 0]) - 1] = output


def learn_constants(state: InferenceState, known: dict[str, Any]) -> dict[str, Any]:
    """Take over what another session of the same model stores once for all frames."""
    for name, value in known.items():
        state["constants"].setdefault(name, moved(value, state["device"]))
    return constants(state)
