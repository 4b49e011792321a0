"""How many bytes a state holds."""

from collections.abc import Iterator
from typing import Any

import torch

from longsam._upstream.outputs import RECORDS
from longsam._upstream.scores import PREDICTED_IOU
from longsam._upstream.state import InferenceState, every_output, images


def tensors_by_kind(state: InferenceState) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a state holds apart from its frames, with its kind."""
    held = list(every_output(state))
    for output in held:
        yield from _flatten("memory_features", output["maskmem_features"])
        yield from _flatten("memory_features", output["maskmem_pos_enc"])
        yield from _flatten("masks", output["pred_masks"])
        yield from _flatten("object_pointers", output["obj_ptr"])
        yield from _flatten("object_pointers", output["object_score_logits"])
        yield from _flatten("object_pointers", output[PREDICTED_IOU])
    yield from _flatten("memory_features", state["constants"])
    for output in held:  # only what is not counted already
        yield from _flatten("policy", output.get(RECORDS))
    yield from _flatten("prompts", state["point_inputs_per_obj"])
    yield from _flatten("prompts", state["mask_inputs_per_obj"])
    yield from _flatten("cached_features", state["cached_features"])


def bytes_by_kind(state: InferenceState) -> dict[str, dict[str, int]]:
    """Bytes that a state holds, by kind and by device. Shared storage counts once.

    "policy" is included if a memory policy holds something besides the memory window.
    """
    usage: dict[str, dict[str, int]] = {
        kind: {}
        for kind in (
            "memory_features",
            "masks",
            "object_pointers",
            "policy",
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
    if not usage["policy"]:
        del usage["policy"]
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
