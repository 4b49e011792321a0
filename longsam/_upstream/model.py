"""What is derived from the model, and the bar that its passes draw."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sam2 import sam2_video_predictor
from tqdm import tqdm


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


_draws_bar: ContextVar[bool] = ContextVar("longsam_draws_bar", default=True)


def _bar(frames: Iterable[int], **options: Any) -> Iterable[int]:
    return tqdm(frames, **options) if _draws_bar.get() else frames


sam2_video_predictor.tqdm = _bar
"""`propagate_in_video` draws a bar (line 583) and has no argument for it. Replaced once and for
all, with what draws the same bar unless the context says otherwise."""


@contextmanager
def progress_bar(*, is_drawn: bool) -> Iterator[None]:
    """Say whether a pass that begins here draws upstream's bar."""
    token = _draws_bar.set(is_drawn)
    try:
        yield
    finally:
        _draws_bar.reset(token)
