"""Warnings that masks will differ from upstream's because frames were forgotten."""

from typing import Any

from longsam import _upstream
from longsam._upstream import InferenceState
from longsam._warn import warn
from longsam.session import Pass, session_of


def small_window(memory_window: int, reach: int) -> None:
    """`init_state` was given a window too small for tracking itself."""
    warn(
        f"memory_window is {memory_window}, but this model reads {reach} frames back: masks will "
        f"differ from upstream's. Use None, or at least {reach}, for the same masks."
    )


def forgotten_prompt(state: InferenceState, obj_id: Any, frame_idx: int) -> bool:
    """A prompt will not give upstream's mask. Returns whether its frame was forgotten."""
    obj_idx = _upstream.object_idx(state, obj_id)
    if obj_idx is None:
        return False
    memory = session_of(state).memory
    if memory.is_forgotten(state, obj_id, frame_idx):
        warn(
            f"Frame {frame_idx} was tracked and has been forgotten (memory_window is "
            f"{memory.window}), so this prompt for object {obj_id!r} does not correct the old "
            "mask: the frame becomes an initial conditioning frame, as if never tracked. "
            f"{_advice(state, frame_idx)}"
        )
        return True
    reverse = _upstream.was_tracked_in_reverse(state, obj_idx, frame_idx)
    if reverse is None:
        return False
    lost = memory.forgotten_past(state, obj_id, frame_idx, reverse=reverse)
    if lost:
        warn(
            f"This prompt corrects object {obj_id!r} on frame {frame_idx}, but the frames "
            f"{min(lost)} to {max(lost)} that the old mask was made from have been forgotten "
            f"(memory_window is {memory.window}), so the mask will differ from upstream's. "
            f"{_advice(state, frame_idx)}"
        )
    return False


def forgotten_past(state: InferenceState, current: Pass) -> None:
    """A pass starts where the frames before it have been forgotten."""
    memory = session_of(state).memory
    start = current.next_frame_idx
    lost = {
        obj_id: memory.forgotten_past(state, obj_id, start, reverse=current.reverse)
        for _, obj_id in _upstream.objects(state)
        if (obj_id, start) not in memory.told
    }
    lost = {obj_id: frames for obj_id, frames in lost.items() if frames}
    if lost:
        frames = set().union(*lost.values())
        warn(
            f"The pass starts at frame {start}, but of the frames that it reads {min(frames)} to "
            f"{max(frames)} have been forgotten (memory_window is {memory.window}), so masks will "
            f"differ from upstream's for object {', '.join(map(repr, lost))}. Continue where a "
            f"pass has stopped, start where one has started, or: {_advice(state, start)}"
        )


def dropped_correction(obj_id: Any, frame_idx: int) -> None:
    """A conditioning frame was corrected, but upstream keeps the first mask there."""
    warn(
        f"Object {obj_id!r} was corrected on frame {frame_idx}, which is a conditioning frame: as "
        "in upstream the mask that it had before is kept, and the correction is lost. "
        f"{_TO_HOLD}"
    )


def replaced_corrections(replaced: list[tuple[Any, int]], current: Pass) -> None:
    """A pass will track corrected frames again."""
    which = ", ".join(
        f"object {obj_id!r} on frame {frame_idx}" for obj_id, frame_idx in replaced[:5]
    )
    more = f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
    nearest = max(replaced, key=lambda one: one[1] * current.step)[1] + current.step
    warn(
        f"The pass from frame {current.next_frame_idx} covers the corrections of {which}{more}: "
        "as in upstream the frame is tracked again and the correction is replaced. Start after it "
        f"(start_frame_idx={nearest}). {_TO_HOLD}"
    )


_TO_HOLD = (
    'For corrections that hold, give init_state corrections="condition": they are conditioning '
    "frames then."
)


def _advice(state: InferenceState, frame_idx: int) -> str:
    if session_of(state).history is not None:
        return f"Call rewind(state, {frame_idx}) first."
    return (
        "For corrections further back, give init_state a larger memory_window, or "
        "snapshots=longsam.Snapshots() and call rewind first."
    )
