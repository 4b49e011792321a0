"""What is derived from the model."""

from typing import Any


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
