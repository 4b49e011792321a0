"""Corrections: prompts on frames that were tracked before."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from longsam._upstream.state import InferenceState, conditioning_outputs, objects

_ARE_CONDITIONING: ContextVar[bool] = ContextVar("corrections_condition", default=False)


class OrForOneSession:
    """A model's option `add_all_frames_to_correct_as_cond`, which a session can override.

    Upstream reads it from the model while a prompt is added (lines 244 and 349). Within
    `corrections_condition` it is true, in this thread alone; the model's own value never changes.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is None:
            return self
        return _ARE_CONDITIONING.get() or vars(model)[self._name]

    def __set__(self, model: Any, value: Any) -> None:
        vars(model)[self._name] = value


@contextmanager
def corrections_condition() -> Iterator[None]:
    """A prompt added within this context sees the option as true on any model."""
    before = _ARE_CONDITIONING.set(True)
    try:
        yield
    finally:
        _ARE_CONDITIONING.reset(before)


def waiting_corrections(state: InferenceState) -> Iterator[tuple[Any, int, bool]]:
    """Corrections that the next pass consolidates and that are not conditioning frames.

    Yields:
        (object id, frame, whether it stays). On a conditioning frame it does not: upstream keeps
        the output that this frame has (line 540).
    """
    for obj_idx, obj_id in objects(state):
        waiting = state["temp_output_dict_per_obj"][obj_idx]
        for frame_idx in waiting["non_cond_frame_outputs"]:
            is_conditioning = (
                frame_idx in conditioning_outputs(state, obj_idx)
                or frame_idx in waiting["cond_frame_outputs"]
            )
            yield obj_id, frame_idx, not is_conditioning
