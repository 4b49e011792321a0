"""What is derived from the model."""

from typing import Any

import torch


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


def erased_by_clearing(model: Any, frame_idx: int) -> range:
    """The frames that `_clear_non_cond_mem_around_input` (line 1017) removes outputs of."""
    margin = model.memory_temporal_stride_for_eval * model.num_maskmem
    return range(frame_idx - margin, frame_idx + margin + 1)


def match_memory_dtype(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let memory attention run without autocast when it reads no object pointer.

    Memory features are stored in bfloat16. Upstream concatenates them with object pointers, which
    makes them float32 again; where there is no pointer (an object prompted on a later frame) they
    stay bfloat16 and the first layer refuses them. The cast is the one that the pointers cause.
    """
    memory_features, frame_features = kwargs["memory"], kwargs["curr"][0]
    if not torch.is_autocast_enabled(frame_features.device.type):
        kwargs["memory"] = memory_features.to(frame_features.dtype)
    return args, kwargs
