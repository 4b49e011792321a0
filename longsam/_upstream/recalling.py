"""Making upstream read the memories that a policy has chosen.

`_prepare_memory_conditioned_features` (sam2_base.py, line 497) reads conditioning frames in the
order of their dict, then `num_maskmem - 1` memories, oldest first, with one `get` each, and then
object pointers, nearest first, with one `get` each. `tests/test_upstream_contract.py` checks this.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from longsam._upstream.state import InferenceState, Output

Weights = tuple[Sequence[float], Sequence[float]]
"""Factors for memories and for pointers, in the order in which they are read."""


class _Chosen(dict[int, Output]):
    """Answers upstream's lookups of tracked frames in the order in which they come."""

    def __init__(
        self,
        frame_idx: int,
        memories: Sequence[Output | None],
        pointers: Sequence[Output | None],
    ):
        super().__init__()
        self._frame_idx = frame_idx
        self._memories = iter(memories)
        self._pointers = pointers

    def get(self, key: int, default: Any = None) -> Any:
        try:
            return next(self._memories)
        except StopIteration:
            pass
        distance = abs(self._frame_idx - key)
        return self._pointers[distance - 1] if distance <= len(self._pointers) else default


def chosen_memories(
    frame_idx: int,
    conditioning: Mapping[int, Output],
    memories: Sequence[Output | None],
    pointers: Sequence[Output | None],
    num_memories: int,
) -> dict[str, dict[int, Output]]:
    """The memories of one object as upstream takes them, holding only what it should read."""
    padding: list[Output | None] = [None] * (num_memories - len(memories))
    return {
        "cond_frame_outputs": dict(conditioning),
        "non_cond_frame_outputs": _Chosen(frame_idx, [*padding, *memories], pointers),
    }


@contextmanager
def counting_frames(state: InferenceState, num_frames: int | None) -> Iterator[None]:
    """Within this context the video counts as this long; None changes nothing."""
    if num_frames is None:
        yield
        return
    before = state["num_frames"]
    state["num_frames"] = num_frames
    try:
        yield
    finally:
        state["num_frames"] = before


_WEIGHTS: ContextVar[Weights | None] = ContextVar("longsam_weights", default=None)


@contextmanager
def weighing(weights: Weights | None) -> Iterator[None]:
    """Within this context, in this thread, a tracked frame weighs its memories like this."""
    token = _WEIGHTS.set(weights)
    try:
        yield
    finally:
        _WEIGHTS.reset(token)


def weigh_keys(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The pre-hook of cross-attention: multiply its keys, not its values.

    Keys come from all memories, one for each pixel, and then from the object pointers, one for each
    part that a pointer was split into.
    """
    weights = _WEIGHTS.get()
    if weights is None:
        return None
    keys = kwargs["k"]
    num_of_pointers = kwargs.get("num_k_exclude_rope", 0)
    each = []
    for ones, num_keys in zip(
        weights, (keys.shape[1] - num_of_pointers, num_of_pointers), strict=True
    ):
        if num_keys:
            factors = torch.tensor(ones, dtype=keys.dtype, device=keys.device)
            each.append(factors.repeat_interleave(num_keys // len(ones)))
    kwargs["k"] = keys * torch.cat(each)[None, :, None]
    return args, kwargs


def weigh_where_asked(model: Any) -> None:
    """Let each layer of memory attention weigh its keys if a policy asks for it."""
    for layer in model.memory_attention.layers:
        attention = layer.cross_attn_image
        if weigh_keys not in attention._forward_pre_hooks.values():
            attention.register_forward_pre_hook(weigh_keys, with_kwargs=True)
