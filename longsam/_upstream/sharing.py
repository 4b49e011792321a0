"""Work that all objects of a frame share: the first self-attention of memory attention.

Upstream tracks object by object. Before a layer of memory attention reads an object's memories, it
attends to the frame itself (memory_attention.py, line 91). In the first layer this does not depend
on the object yet: 19 of the 605 GFLOP of an object at 1024 x 1024 are the same for all. They are
computed once, with the bits that upstream computes for each. Two more products of 0.5 GFLOP each
are the same, the queries of the first layer and `pix_feat_proj` of the memory encoder; they are not
shared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

from longsam._installed_sam2 import SAM2VideoPredictorVOS

SelfAttention = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""A layer's `_forward_sa`: takes batch x positions x channels, and their position encoding."""


class FrameAttention:
    """The first self-attention of a pass's current frame."""

    def __init__(self) -> None:
        self._frame_idx = -1
        self._result: torch.Tensor | None = None

    def clear(self) -> None:
        """The frame is done, or another pass tracks another one."""
        self._result = None

    @contextmanager
    def of(self, frame_idx: int) -> Iterator[None]:
        """Within this context, in this thread, an object of this frame is tracked.

        A pass that resumes in reverse at frame 0 tracks frame 1 before, within the same step.
        """
        if frame_idx != self._frame_idx:
            self._frame_idx, self._result = frame_idx, None
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def result(
        self, attend: SelfAttention, layer: Any, features: torch.Tensor, encoding: torch.Tensor
    ) -> torch.Tensor:
        """The result, for as many objects as there are rows; all rows are equal."""
        if self._result is None:
            self._result = attend(layer, features[:1], encoding[:1])
        return self._result.expand_as(features)


_CURRENT: ContextVar[FrameAttention | None] = ContextVar("longsam_frame_attention", default=None)


def _attend_once(
    attend: SelfAttention, layer: Any, features: torch.Tensor, encoding: torch.Tensor
) -> torch.Tensor:
    current = _CURRENT.get()
    if current is None:
        return attend(layer, features, encoding)
    return current.result(attend, layer, features, encoding)


def share_first_attention(model: Any) -> None:
    """Let the first layer reuse the frame's result, unless layers are compiled."""
    if not isinstance(model, SAM2VideoPredictorVOS) and model.num_maskmem > 0:
        first = model.memory_attention.layers[0]
        first._forward_sa = partial(_attend_once, type(first)._forward_sa, first)
