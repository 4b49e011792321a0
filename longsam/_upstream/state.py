"""The inference state: its keys, and what they hold."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

InferenceState = dict[str, Any]


Output = dict[str, Any]
"""The model's output on one frame for one object: one entry of the memory bank."""


def new_state(
    images: Any,
    frame_size: tuple[int, int],
    device: torch.device,
    *,
    offload_video_to_cpu: bool,
    offload_state_to_cpu: bool,
) -> InferenceState:
    """A fresh inference state, with every key that upstream's `init_state` (line 43) sets."""
    height, width = frame_size
    return {
        "images": images,
        "num_frames": len(images),
        "offload_video_to_cpu": offload_video_to_cpu,
        "offload_state_to_cpu": offload_state_to_cpu,
        "video_height": height,
        "video_width": width,
        "device": device,
        "storage_device": torch.device("cpu") if offload_state_to_cpu else device,
        "point_inputs_per_obj": {},
        "mask_inputs_per_obj": {},
        "cached_features": {},
        "constants": {},
        "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(),
        "obj_ids": [],
        "output_dict_per_obj": {},
        "temp_output_dict_per_obj": {},
        "frames_tracked_per_obj": {},
    }


def images(state: InferenceState) -> Any:
    """Where upstream reads frames from, by index: our frame buffer."""
    return state["images"]


def objects(state: InferenceState) -> Iterator[tuple[int, Any]]:
    """(object index, object id) of every object."""
    return iter(state["obj_idx_to_id"].items())


def object_ids_as_listed(state: InferenceState) -> list[Any]:
    """Upstream's own list of object ids, as a pass yields it."""
    ids: list[Any] = state["obj_ids"]
    return ids


def object_idx(state: InferenceState, obj_id: Any) -> int | None:
    """The index of an object, None if there is no such object."""
    idx: int | None = state["obj_id_to_idx"].get(obj_id)
    return idx


def tracked_outputs(state: InferenceState, obj_idx: int) -> dict[int, Output]:
    """Outputs of frames that were tracked or corrected, by frame index."""
    outputs: dict[int, Output] = state["output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
    return outputs


def conditioning_outputs(state: InferenceState, obj_idx: int) -> dict[int, Output]:
    """Outputs of conditioning frames, by frame index."""
    outputs: dict[int, Output] = state["output_dict_per_obj"][obj_idx]["cond_frame_outputs"]
    return outputs


def all_outputs(state: InferenceState, obj_idx: int) -> Iterator[Output]:
    """Every remembered output of an object."""
    yield from conditioning_outputs(state, obj_idx).values()
    yield from tracked_outputs(state, obj_idx).values()


def every_output(state: InferenceState) -> Iterator[Output]:
    """Every output of all objects, those waiting for a pass included; also of a saved state."""
    for key in ("output_dict_per_obj", "temp_output_dict_per_obj"):
        for by_storage in state[key].values():
            for by_frame in by_storage.values():
                yield from by_frame.values()


def frames_tracked(state: InferenceState, obj_idx: int) -> dict[int, Any]:
    """The frames that upstream counts as tracked: a prompt on one of them is a correction."""
    tracked: dict[int, Any] = state["frames_tracked_per_obj"][obj_idx]
    return tracked


def was_tracked_in_reverse(state: InferenceState, obj_idx: int, frame_idx: int) -> bool | None:
    """The direction in which a frame was tracked; None if upstream does not count it as tracked."""
    tracked = frames_tracked(state, obj_idx).get(frame_idx)
    return tracked and tracked["reverse"]


def default_start(state: InferenceState) -> int:
    """Where `propagate_in_video` starts by default: the first conditioning frame (line 562).

    Memories from a bank have negative indices and are not frames; with these alone it is frame 0.
    """
    return min(
        (
            frame_idx
            for obj_idx, _ in objects(state)
            for frame_idx in conditioning_outputs(state, obj_idx)
            if frame_idx >= 0
        ),
        default=0,
    )


def index_of_outputs(state: InferenceState, output_dict: dict[str, dict[int, Output]]) -> int:
    """Which object has these outputs: the same dict, not an equal one."""
    per_obj: dict[int, dict[str, dict[int, Output]]] = state["output_dict_per_obj"]
    return next(obj_idx for obj_idx, outputs in per_obj.items() if outputs is output_dict)


def put_features(state: InferenceState, frame_idx: int, features: dict[str, Any]) -> None:
    """Put a frame's features where `_get_image_feature` (line 704) looks for them.

    Upstream also keeps the frame itself but never reads it, so it is left empty.
    """
    image = torch.empty(1, 3, 0, 0, device=state["device"])
    state["cached_features"] = {frame_idx: (image, features)}


def only_object(state: InferenceState, obj_idx: int) -> InferenceState:
    """A view of a state that holds one object, enough for `_clear_non_cond_mem_around_input`."""
    return {
        "obj_idx_to_id": {0: state["obj_idx_to_id"][obj_idx]},
        "output_dict_per_obj": {0: state["output_dict_per_obj"][obj_idx]},
    }


def batch_of_one_output_dict(
    conditioning: dict[int, Output], tracked: dict[int, Output]
) -> dict[str, dict[int, Output]]:
    """The memories of one object as upstream takes them."""
    return {"cond_frame_outputs": conditioning, "non_cond_frame_outputs": tracked}


def storage_devices(state: InferenceState) -> tuple[torch.device, torch.device]:
    """Where object pointers are kept, and where memory features and masks."""
    return state["device"], state["storage_device"]


def constants(state: InferenceState) -> dict[str, Any]:
    """What upstream stores once for all frames: positional encodings of memories."""
    kept: dict[str, Any] = state["constants"]
    return kept


@contextmanager
def frame_unchanged(state: InferenceState, frame_idx: int) -> Iterator[None]:
    """Put back what is remembered of a frame, for all objects, after tracking it again."""
    held = [
        (by_frame, by_frame.get(frame_idx))
        for obj_idx, _ in objects(state)
        for by_frame in (tracked_outputs(state, obj_idx), frames_tracked(state, obj_idx))
    ]
    try:
        yield
    finally:
        for by_frame, value in held:
            by_frame.pop(frame_idx, None)
            if value is not None:
                by_frame[frame_idx] = value
