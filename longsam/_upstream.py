"""All that is taken for granted about upstream's SAM2VideoPredictor, in one place.

Line numbers refer to sam2/sam2_video_predictor.py and sam2/modeling/sam2_base.py at
https://github.com/facebookresearch/sam2/tree/2b90b9f5ceec907a1c18123530e92e794ad901a4
(sam2 1.1.0 on PyPI). `tests/test_upstream_contract.py` holds the installed upstream against it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from sam2 import sam2_video_predictor
from tqdm import tqdm

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


def object_ids_as_listed(state: State) -> list[Any]:
    """Upstream's own list of object ids, as a pass yields it."""
    ids: list[Any] = state["obj_ids"]
    return ids


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


def all_outputs(state: State, obj_idx: int) -> Iterator[Output]:
    """Every output that is remembered of an object."""
    yield from conditioning_outputs(state, obj_idx).values()
    yield from tracked_outputs(state, obj_idx).values()


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


def has_features(state: State, frame_idx: int) -> bool:
    """Whether the image features of a frame are at hand."""
    return frame_idx in state["cached_features"]


def encode(
    state: State, frames: dict[int, torch.Tensor], forward_image: Callable[[torch.Tensor], Any]
) -> None:
    """Put the image features of several frames, encoded at once, where upstream looks for them.

    Features are views of the batch's. Positional encodings are the same for all and kept once.
    """
    together = sorted(frames)
    device = state["device"]
    batch = torch.stack([frames[frame_idx].to(device).float() for frame_idx in together])
    state["cached_features"] = {}  # free the old ones first
    features = forward_image(batch)
    encodings = [encoding[:1].clone() for encoding in features["vision_pos_enc"]]
    state["cached_features"] = {
        frame_idx: (
            batch[i : i + 1],
            {
                "vision_features": features["vision_features"][i : i + 1],
                "vision_pos_enc": encodings,
                "backbone_fpn": [level[i : i + 1] for level in features["backbone_fpn"]],
            },
        )
        for i, frame_idx in enumerate(together)
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


def has_waiting_prompts(state: State) -> bool:
    """Whether there are prompts that the next pass takes up."""
    return any(
        by_frame
        for by_storage in state["temp_output_dict_per_obj"].values()
        for by_frame in by_storage.values()
    )


_KEYS_BY_OBJECT_IDX = (
    "point_inputs_per_obj",
    "mask_inputs_per_obj",
    "output_dict_per_obj",
    "temp_output_dict_per_obj",
    "frames_tracked_per_obj",
)


@contextmanager
def unchanged_if_refused(state: State, obj_id: Any, frame_idx: int) -> Iterator[None]:
    """Restore the prompts of an object on a frame where adding another fails or is interrupted.

    Upstream adds the object, and takes the old prompt away, before it looks at the new one.
    """
    before = object_idx(state, obj_id)
    ids = state["obj_ids"]
    held = [
        (by_frame, by_frame.get(frame_idx), frame_idx in by_frame)
        for by_frame in ([] if before is None else _prompts_of(state, before))
    ]
    try:
        yield
    except BaseException:
        if before is None and obj_id in state["obj_id_to_idx"]:
            added = state["obj_id_to_idx"].pop(obj_id)
            for key in ("obj_idx_to_id", *_KEYS_BY_OBJECT_IDX):
                state[key].pop(added, None)
            state["obj_ids"] = ids
        for by_frame, value, was_there in held:
            by_frame.pop(frame_idx, None)
            if was_there:
                by_frame[frame_idx] = value
        raise


def _prompts_of(state: State, obj_idx: int) -> list[dict[int, Any]]:
    """Where the prompts of an object are, and what the model made of them so far."""
    return [
        state["point_inputs_per_obj"][obj_idx],
        state["mask_inputs_per_obj"][obj_idx],
        *state["temp_output_dict_per_obj"][obj_idx].values(),
    ]


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


def memories_read_from(
    state: State, obj_ids: list[Any], to_be_read: Iterable[int], feature_reach: int
) -> dict[str, Any]:
    """What a pass over some objects reads from its next frame on, to be saved.

    Args:
        state: The session.
        obj_ids: The objects that the pass tracks; they are the first ones.
        to_be_read: The frames before the next one, nearest first.
        feature_reach: Of frames further away than this only object pointers are read.
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


def state_with_memories(state: State, memories: dict[str, Any]) -> State:
    """A state over the same frames that remembers what `memories_read_from` has given."""
    past = dict(state)
    per_obj: dict[str, Any] = {key: {} for key in _KEYS_BY_OBJECT_IDX}
    device, storage = state["device"], state["storage_device"]
    constants = {name: moved(value, device) for name, value in memories["constants"].items()}
    ids = list(memories["conditioning"])
    for obj_idx, obj_id in enumerate(ids):
        outputs = {
            "cond_frame_outputs": memories["conditioning"][obj_id],
            "non_cond_frame_outputs": memories["tracked"][obj_id],
        }
        for by_frame in outputs.values():
            for output in by_frame.values():
                place_output(output, constants, device, storage)
        per_obj["output_dict_per_obj"][obj_idx] = outputs
        per_obj["temp_output_dict_per_obj"][obj_idx] = {name: {} for name in outputs}
        # Which frames have prompts is all that is asked of them while tracking.
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


def copy_tracked(past: State, state: State, obj_id: Any, frame_idx: int) -> None:
    """Remember of a frame what another state of the same session does, if nothing is there."""
    old_idx, obj_idx = past["obj_id_to_idx"][obj_id], state["obj_id_to_idx"][obj_id]
    output = tracked_outputs(past, old_idx).get(frame_idx)
    if output is None:
        output = conditioning_outputs(past, old_idx)[frame_idx]
    output = dict(output)
    detach(output)
    tracked_outputs(state, obj_idx).setdefault(frame_idx, output)
    tracked = frames_tracked(past, old_idx)[frame_idx]
    frames_tracked(state, obj_idx).setdefault(frame_idx, dict(tracked))


def place_output(
    output: Output, constants: dict[str, Any], device: torch.device, storage: torch.device
) -> None:
    """Move a saved output to the devices on which upstream keeps its parts (line 755)."""
    for name in ("obj_ptr", "object_score_logits"):
        output[name] = moved(output[name], device)
    for name in ("maskmem_features", "pred_masks"):
        output[name] = moved(output[name], storage)
    if output["maskmem_pos_enc"] is not None and output["maskmem_features"] is not None:
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


def without_mask(output: Output) -> Output:
    """The memory alone: the mask is for the frame that it was on."""
    return {**output, "pred_masks": None}


def constants(state: State) -> dict[str, Any]:
    """What upstream keeps once for all frames: positional encodings of memories."""
    kept: dict[str, Any] = state["constants"]
    return kept


def learn_constants(state: State, known: dict[str, Any]) -> dict[str, Any]:
    """Take over what another session of the same model keeps once for all frames."""
    for name, value in known.items():
        state["constants"].setdefault(name, moved(value, state["device"]))
    return constants(state)


def storage_devices(state: State) -> tuple[torch.device, torch.device]:
    """Where object pointers are kept, and where memory features and masks."""
    return state["device"], state["storage_device"]


_draws_bar: ContextVar[bool] = ContextVar("longsam_draws_bar", default=True)


def _bar(frames: Iterable[int], **options: Any) -> Iterable[int]:
    return tqdm(frames, **options) if _draws_bar.get() else frames


sam2_video_predictor.tqdm = _bar
"""`propagate_in_video` draws a bar (line 583) and has no argument for it. Replaced once and for
all, with what draws the same bar unless the context says otherwise."""


@contextmanager
def frame_unchanged(state: State, frame_idx: int) -> Iterator[None]:
    """Put back what is remembered of a frame, for all objects, after it was tracked once more."""
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


@contextmanager
def progress_bar(*, is_drawn: bool) -> Iterator[None]:
    """Say whether a pass that begins here draws upstream's bar."""
    token = _draws_bar.set(is_drawn)
    try:
        yield
    finally:
        _draws_bar.reset(token)


def reach(model: Any) -> int:
    """How many frames back tracking reads what it stored; 15 with every released config.

    `_prepare_memory_conditioned_features` (sam2_base.py, line 497) reads memory features of frames
    up to `1 + (num_maskmem - 2) * memory_temporal_stride_for_eval` away, and object pointers of
    frames up to `max_obj_ptrs_in_encoder - 1` away.
    """
    if model.num_maskmem == 0:
        return 0
    pointers = model.max_obj_ptrs_in_encoder - 1 if model.use_obj_ptrs_in_encoder else 0
    return int(max(feature_reach(model), pointers))


def feature_reach(model: Any) -> int:
    """How many frames back tracking reads memory features; further back only object pointers."""
    if model.num_maskmem == 0:
        return 0
    return int(max(1 + (model.num_maskmem - 2) * model.memory_temporal_stride_for_eval, 0))


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


def bytes_by_kind(state: State) -> dict[str, dict[str, int]]:
    """Bytes that a state holds, by kind and by device. Shared storage counts once."""
    usage: dict[str, dict[str, int]] = {
        kind: {}
        for kind in (
            "memory_features",
            "masks",
            "object_pointers",
            "prompts",
            "cached_features",
            "frame_buffer",
            "total",
        )
    }
    counted = set()

    def count(kind: str, device: str, num_bytes: int) -> None:
        for row in (usage[kind], usage["total"]):
            row[device] = row.get(device, 0) + num_bytes

    for kind, tensor in tensors_by_kind(state):
        storage = tensor.untyped_storage()
        address = (tensor.device, storage.data_ptr())
        if address not in counted:
            counted.add(address)
            count(kind, str(tensor.device), storage.nbytes())
    count("frame_buffer", "cpu", images(state).num_bytes)
    return usage


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


def erased_by_clearing(model: Any, frame_idx: int) -> range:
    """The frames that `_clear_non_cond_mem_around_input` (line 1017) removes outputs of."""
    margin = model.memory_temporal_stride_for_eval * model.num_maskmem
    return range(frame_idx - margin, frame_idx + margin + 1)


def batch_of_one_output_dict(
    conditioning: dict[int, Output], tracked: dict[int, Output]
) -> dict[str, dict[int, Output]]:
    """What upstream takes as the memories of one object."""
    return {"cond_frame_outputs": conditioning, "non_cond_frame_outputs": tracked}


def joined(outputs: list[Output]) -> Output:
    """The memories of several objects of one frame as those of one that is a batch.

    The objects' own outputs become views of it.
    """
    batch = dict(outputs[0])
    for name in ("maskmem_features", "obj_ptr"):
        if batch[name] is None:  # of a frame of which only pointers are read
            continue
        batch[name] = _stack([output[name] for output in outputs])
        for i, output in enumerate(outputs):
            output[name] = batch[name][i : i + 1]
    if batch["maskmem_pos_enc"] is not None:  # the same for all
        batch["maskmem_pos_enc"] = [
            encoding[:1].expand(len(outputs), -1, -1, -1) for encoding in batch["maskmem_pos_enc"]
        ]
    return batch


def row(output: Output, i: int) -> Output:
    """One object's part of a batch, as views."""
    rows = {name: value[i : i + 1] for name, value in output.items() if _is_tensor(value)}
    if output["maskmem_pos_enc"] is not None:
        rows["maskmem_pos_enc"] = [encoding[i : i + 1] for encoding in output["maskmem_pos_enc"]]
    return {**output, **rows}


def detach(output: Output) -> None:
    """Copy an output's tensors out of its batch, whose other objects are not kept."""
    for name, value in output.items():
        if _is_tensor(value) and value.untyped_storage().nbytes() > value.nbytes:
            _wait_for(value)
            output[name] = value.clone()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _stack(rows: list[torch.Tensor]) -> torch.Tensor:
    """Tensors of one row each as one tensor; a view where they lie one after another in memory."""
    first = rows[0]
    size = first.numel()
    if all(
        row.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and row.storage_offset() == first.storage_offset() + i * size
        and row.stride()[1:] == first.stride()[1:]
        for i, row in enumerate(rows)
    ):
        shape = (len(rows), *first.shape[1:])
        return first.as_strided(shape, (size, *first.stride()[1:]))
    _wait_for(first)
    return torch.cat(rows)


def _wait_for(tensor: torch.Tensor) -> None:
    """Upstream offloads with non_blocking=True: what lies on the host may still be on its way."""
    if not tensor.is_cuda and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
