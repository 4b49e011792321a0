"""What is derived from the model."""

from dataclasses import dataclass
from typing import Any

import torch

from longsam._installed_sam2 import SAM2VideoPredictorVOS


def reach(model: Any) -> int:
    """How many frames back tracking reads what it stored; 15 with every released config.

    `_prepare_memory_conditioned_features` (sam2_base.py, line 497) reads memory features of frames
    up to `1 + (num_maskmem - 2) * memory_temporal_stride_for_eval` away, and object pointers of
    frames up to `max_obj_ptrs_in_encoder - 1` away.
    """
    if model.num_maskmem == 0:
        return 0
    return int(max(feature_reach(model), _pointer_reach(model)))


def feature_reach(model: Any) -> int:
    """How many frames back tracking reads memory features; further back only object pointers."""
    if model.num_maskmem == 0:
        return 0
    return int(max(1 + (model.num_maskmem - 2) * model.memory_temporal_stride_for_eval, 0))


def _pointer_reach(model: Any) -> int:
    """How many frames back tracking reads object pointers."""
    return int(model.max_obj_ptrs_in_encoder - 1) if model.use_obj_ptrs_in_encoder else 0


def num_positions(model: Any) -> int:
    """Of the features of a frame that memory attention reads; 4096 at 1024 x 1024."""
    return int(model.sam_image_embedding_size**2)


@dataclass(frozen=True)
class Reach:
    """How much of the past the model reads, for policies.

    Attributes:
        num_frames: How many frames back, at most.
        num_memories: From how many frames it reads memory features, besides conditioning ones.
        num_pointers: How many frames back it reads object pointers.
        stride: How far apart these memories are.
        image_size: Height and width of its input.
        only_past: Whether object pointers of later conditioning frames are left out.
    """

    num_frames: int
    num_memories: int
    num_pointers: int
    stride: int
    image_size: int
    only_past: bool


def reach_of(model: Any) -> Reach:
    """The reach of a model."""
    return Reach(
        reach(model),
        max(model.num_maskmem - 1, 0),
        _pointer_reach(model),
        model.memory_temporal_stride_for_eval,
        model.image_size,
        model.only_obj_ptrs_in_the_past_for_eval,
    )


def why_no_policy(model: Any, num_paths: int) -> str | None:
    """Why a model cannot follow a memory policy; None if it can."""
    if model.num_maskmem == 0:
        return "it has no memory (num_maskmem is 0)"
    if model.max_cond_frames_in_attn != -1:
        return (
            f"its max_cond_frames_in_attn is {model.max_cond_frames_in_attn}, which would drop "
            "conditioning frames that the policy reads; build it with -1"
        )
    if num_paths > 1 and isinstance(model, SAM2VideoPredictorVOS):
        return (
            "several hypotheses weigh memories within memory attention, which is compiled in it; "
            "build it without vos_optimized"
        )
    return None


def erased_by_clearing(model: Any, frame_idx: int) -> range:
    """The frames whose outputs `_clear_non_cond_mem_around_input` (line 1017) removes."""
    margin = model.memory_temporal_stride_for_eval * model.num_maskmem
    return range(frame_idx - margin, frame_idx + margin + 1)


def match_memory_dtype(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let memory attention run without autocast when it reads no object pointer.

    Memory features are stored in bfloat16. Upstream concatenates them with object pointers, which
    casts them to float32; without a pointer (an object prompted on a later frame) they stay
    bfloat16 and the first layer refuses them. This does the same cast.
    """
    memory_features, frame_features = kwargs["memory"], kwargs["curr"][0]
    if not torch.is_autocast_enabled(frame_features.device.type):
        kwargs["memory"] = memory_features.to(frame_features.dtype)
    return args, kwargs
