"""What happens around a prompt: warnings, undoing a failed one, notes on corrections."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from longsam import _upstream, notices
from longsam._upstream import InferenceState
from longsam.session import Pass, session_of


@contextmanager
def adding(state: InferenceState, obj_id: Any, frame_idx: int) -> Iterator[None]:
    """Add a prompt whole or not at all, and warn if it will not give upstream's mask.

    With `init_state(corrections="condition")` it becomes a conditioning frame, tracked or not.
    """
    session = session_of(state)
    with ExitStack() as around:
        around.enter_context(_upstream.unchanged_if_refused(state, obj_id))
        if session.options.corrections == "condition":
            around.enter_context(_upstream.corrections_condition())
        was_forgotten = notices.forgotten_prompt(state, obj_id, frame_idx)
        yield
    if was_forgotten:
        session.memory.told.add((obj_id, frame_idx))


class _Model(Protocol):
    """Upstream's, for clearing memories around prompts."""

    def _clear_non_cond_mem_around_input(self, inference_state: Any, frame_idx: int) -> Any: ...


def clear_around(model: _Model, state: InferenceState, frame_idx: int, obj_idx: int) -> None:
    """Remove an object's tracked outputs around a frame, but not the correction on it."""
    outputs = _upstream.tracked_outputs(state, obj_idx)
    correction = outputs.get(frame_idx)
    model._clear_non_cond_mem_around_input(_upstream.only_object(state, obj_idx), frame_idx)
    obj_id = dict(_upstream.objects(state))[obj_idx]
    session_of(state).memory.note_erased(obj_id, _upstream.erased_by_clearing(model, frame_idx))
    if correction is not None and _upstream.has_prompt(state, obj_idx, frame_idx):
        outputs[frame_idx] = correction


def take_up(state: InferenceState) -> None:
    """Pending prompts are about to be consolidated: note corrections, which a pass may replace."""
    session = session_of(state)
    session.changed()
    for obj_id, frame_idx, stays in _upstream.waiting_corrections(state):
        if stays:
            session.memory.corrections[obj_id, frame_idx] = False
        else:
            notices.dropped_correction(obj_id, frame_idx)


def tell_of_replaced(state: InferenceState, current: Pass) -> None:
    """Warn, once for each, about corrections that a pass will replace."""
    memory = session_of(state).memory
    replaced = [
        (obj_id, frame_idx)
        for (obj_id, frame_idx), is_told in memory.corrections.items()
        if not is_told
        and obj_id in current.obj_ids
        and current.comes_by(frame_idx)
        and (obj_idx := _upstream.object_idx(state, obj_id)) is not None
        and frame_idx in _upstream.tracked_outputs(state, obj_idx)
    ]
    if replaced:
        notices.replaced_corrections(replaced, current)
        memory.corrections.update(dict.fromkeys(replaced, True))
