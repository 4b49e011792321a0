"""All that is taken for granted about upstream's SAM2VideoPredictor, in one place.

Line numbers refer to sam2/sam2_video_predictor.py and sam2/modeling/sam2_base.py at
https://github.com/facebookresearch/sam2/tree/2b90b9f5ceec907a1c18123530e92e794ad901a4
(sam2 1.1.0 on PyPI). `tests/test_upstream_contract.py` holds the installed upstream against it.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

State = dict[str, Any]
Output = dict[str, Any]
"""What the model made of one frame for one object: one entry of the memory bank."""


def new_state(
    images: Any,
    frame_size: tuple[int, int],
    device: torch.device,
    *,
    offload_video_to_cpu: bool,
    offload_state_to_cpu: bool,
) -> State:
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


def images(state: State) -> Any:
    """What upstream reads frames from, by index: our frame buffer."""
    return state["images"]


def objects(state: State) -> Iterator[tuple[int, Any]]:
    """(object index, object id) of every object."""
    return iter(state["obj_idx_to_id"].items())


def object_idx(state: State, obj_id: Any) -> int | None:
    """The index of an object, None if there is no such object."""
    idx: int | None = state["obj_id_to_idx"].get(obj_id)
    return idx


def tracked_outputs(state: State, obj_idx: int) -> dict[int, Output]:
    """Outputs of frames that were tracked or corrected, by frame index."""
    outputs: dict[int, Output] = state["output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
    return outputs


def conditioning_outputs(state: State, obj_idx: int) -> dict[int, Output]:
    """Outputs of conditioning frames, by frame index."""
    outputs: dict[int, Output] = state["output_dict_per_obj"][obj_idx]["cond_frame_outputs"]
    return outputs


def frames_tracked(state: State, obj_idx: int) -> dict[int, Any]:
    """The frames that upstream knows as tracked: a prompt on one of them is a correction."""
    tracked: dict[int, Any] = state["frames_tracked_per_obj"][obj_idx]
    return tracked


def was_tracked_in_reverse(state: State, obj_idx: int, frame_idx: int) -> bool | None:
    """The direction in which a frame was tracked; None if upstream does not know it as tracked."""
    tracked = frames_tracked(state, obj_idx).get(frame_idx)
    return tracked and tracked["reverse"]


def default_start(state: State) -> int:
    """Where `propagate_in_video` starts by default: the first conditioning frame (line 562).

    Memories from a bank have negative indices and are no frames; with these alone it is frame 0.
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


def index_of_outputs(state: State, output_dict: dict[str, dict[int, Output]]) -> int:
    """Which object has these outputs; the very dict, not an equal one."""
    per_obj: dict[int, dict[str, dict[int, Output]]] = state["output_dict_per_obj"]
    return next(obj_idx for obj_idx, outputs in per_obj.items() if outputs is output_dict)


def split_features(features: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `forward_image` gives for a batch of frames, by frame, as views.

    Positional encodings are the same for all frames and are kept once.
    """
    encodings = [encoding[:1].clone() for encoding in features["vision_pos_enc"]]
    for i in range(len(features["backbone_fpn"][0])):
        yield {
            "vision_features": features["vision_features"][i : i + 1],
            "vision_pos_enc": encodings,
            "backbone_fpn": [level[i : i + 1] for level in features["backbone_fpn"]],
        }


def prompt_frames(state: State, obj_idx: int) -> set[int]:
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


def forget_prompt(state: State, obj_idx: int, frame_idx: int) -> None:
    """Forget what the user said of an object on a frame; its output stays as a tracked one."""
    state["point_inputs_per_obj"][obj_idx].pop(frame_idx, None)
    state["mask_inputs_per_obj"][obj_idx].pop(frame_idx, None)
    output = conditioning_outputs(state, obj_idx).pop(frame_idx, None)
    if output is not None:
        tracked_outputs(state, obj_idx)[frame_idx] = output


def add_memories(state: State, obj_idx: int, outputs: list[Output]) -> None:
    """Give an object conditioning memories at negative frame indices, which no frame of the video
    has: -1, -2, ... behind those that are there.
    """
    known = conditioning_outputs(state, obj_idx)
    for output in outputs:
        known[min([*known, 0]) - 1] = output


def has_prompt(state: State, obj_idx: int, frame_idx: int) -> bool:
    """Whether the user gave points, a box or a mask for the object on this frame."""
    return (
        frame_idx in state["point_inputs_per_obj"][obj_idx]
        or frame_idx in state["mask_inputs_per_obj"][obj_idx]
    )


def is_prompted_anew(state: State, obj_ids: list[Any]) -> bool:
    """Whether prompts wait for the next pass, or objects are no more those of the running one."""
    return state["obj_ids"] != obj_ids or any(
        by_frame
        for by_storage in state["temp_output_dict_per_obj"].values()
        for by_frame in by_storage.values()
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
"""What a state holds besides its video, its options and what can be computed again."""


def to_plain(state: State) -> State:
    """All of a state that tracking goes on from, to be saved."""
    return {key: state[key] for key in KEYS_OF_OBJECTS}


def from_plain(state: State, saved: State) -> None:
    """Put saved content into a fresh state of the same video, each tensor where upstream has it."""
    device, storage = state["device"], state["storage_device"]
    constants = {name: moved(value, device) for name, value in saved["constants"].items()}
    for key in KEYS_OF_OBJECTS:
        state[key] = saved[key]
    state["constants"] = constants
    for per_obj in (state["point_inputs_per_obj"], state["mask_inputs_per_obj"]):
        for by_frame in per_obj.values():
            for frame_idx, value in by_frame.items():
                by_frame[frame_idx] = moved(value, device)
    for per_obj in (state["output_dict_per_obj"], state["temp_output_dict_per_obj"]):
        for by_storage in per_obj.values():
            for by_frame in by_storage.values():
                for output in by_frame.values():
                    place_output(output, constants, device, storage)


def forget_waiting_prompts(state: State) -> list[Any]:
    """Forget prompts that the next pass would take up; returns the objects that had no others."""
    for by_storage in state["temp_output_dict_per_obj"].values():
        for by_frame in by_storage.values():
            by_frame.clear()
    return [
        obj_id for obj_idx, obj_id in objects(state) if not conditioning_outputs(state, obj_idx)
    ]


def place_output(
    output: Output, constants: dict[str, Any], device: torch.device, storage: torch.device
) -> None:
    """Move a saved output to the devices on which upstream keeps its parts (line 755)."""
    for name in ("obj_ptr", "object_score_logits"):
        output[name] = moved(output[name], device)
    for name in ("maskmem_features", "pred_masks"):
        output[name] = moved(output[name], storage)
    if output["maskmem_pos_enc"] is not None:
        # The same for all frames: one copy, expanded (`_get_maskmem_pos_enc`).
        batch_size = output["maskmem_features"].shape[0]
        output["maskmem_pos_enc"] = [
            encoding.expand(batch_size, -1, -1, -1) for encoding in constants["maskmem_pos_enc"]
        ]


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also in dicts and lists, on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Let `propagate_in_video` draw no bar (line 583), for programs that draw their own."""
    from longsam._installed_sam2 import sam2_video_predictor  # not for those who only write masks

    drawn = sam2_video_predictor.tqdm
    sam2_video_predictor.tqdm = lambda frames, **_: frames
    try:
        yield
    finally:
        sam2_video_predictor.tqdm = drawn


def reach(model: Any) -> int:
    """How many frames back tracking reads what it stored; 15 with every released config.

    `_prepare_memory_conditioned_features` (sam2_base.py, line 497) reads memory features of frames
    up to `1 + (num_maskmem - 2) * memory_temporal_stride_for_eval` away, and object pointers of
    frames up to `max_obj_ptrs_in_encoder - 1` away.
    """
    if model.num_maskmem == 0:
        return 0
    features = 1 + (model.num_maskmem - 2) * model.memory_temporal_stride_for_eval
    pointers = model.max_obj_ptrs_in_encoder - 1 if model.use_obj_ptrs_in_encoder else 0
    return int(max(features, pointers, 0))


def tensors_by_kind(state: State) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a state holds apart from its frames, with the kind of thing it is."""
    outputs = [state["output_dict_per_obj"], state["temp_output_dict_per_obj"]]
    for per_obj in outputs:
        for by_storage in per_obj.values():
            for by_frame in by_storage.values():
                for output in by_frame.values():
                    yield from _flatten("memory_features", output["maskmem_features"])
                    yield from _flatten("memory_features", output["maskmem_pos_enc"])
                    yield from _flatten("masks", output["pred_masks"])
                    yield from _flatten("object_pointers", output["obj_ptr"])
                    yield from _flatten("object_pointers", output["object_score_logits"])
    yield from _flatten("memory_features", state["constants"])
    yield from _flatten("prompts", state["point_inputs_per_obj"])
    yield from _flatten("prompts", state["mask_inputs_per_obj"])
    yield from _flatten("cached_features", state["cached_features"])


def _flatten(kind: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield kind, value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _flatten(kind, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flatten(kind, item)


def only_object(state: State, obj_idx: int) -> State:
    """A view of a state that holds one object, enough for `_clear_non_cond_mem_around_input`."""
    return {
        "obj_idx_to_id": {0: state["obj_idx_to_id"][obj_idx]},
        "output_dict_per_obj": {0: state["output_dict_per_obj"][obj_idx]},
    }
