"""What a state remembers of the frames it has tracked, and what it forgets."""

import warnings
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from longsam import _upstream
from longsam._upstream import State
from longsam.batches import Batches, detach
from longsam.snapshots import Snapshots

KEY = "longsam"
"""The one key that is added to upstream's inference state."""


class FrameRanges:
    """A set of frame indices that stays small while they come in runs."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def to_plain(self) -> tuple[list[int], list[int]]:
        return list(self._starts), list(self._stops)

    @classmethod
    def from_plain(cls, starts: list[int], stops: list[int]) -> "FrameRanges":
        ranges = cls()
        ranges._starts, ranges._stops = list(starts), list(stops)
        return ranges

    def __contains__(self, frame_idx: int) -> bool:
        at = bisect_right(self._starts, frame_idx) - 1
        return at >= 0 and frame_idx < self._stops[at]

    def add(self, frame_idx: int) -> None:
        at = bisect_right(self._starts, frame_idx) - 1
        if at >= 0 and frame_idx < self._stops[at]:
            return
        joins_left = at >= 0 and self._stops[at] == frame_idx
        joins_right = at + 1 < len(self._starts) and self._starts[at + 1] == frame_idx + 1
        if joins_left and joins_right:
            self._stops[at] = self._stops.pop(at + 1)
            del self._starts[at + 1]
        elif joins_left:
            self._stops[at] += 1
        elif joins_right:
            self._starts[at + 1] -= 1
        else:
            self._starts.insert(at + 1, frame_idx)
            self._stops.insert(at + 1, frame_idx + 1)


@dataclass
class Memory:
    """What is kept besides upstream's own keys, under `inference_state["longsam"]`.

    Attributes:
        window: How many of the frames tracked last are kept.
        reach: How many frames back tracking reads.
        starts: Where passes are likely to start again: the first frame of the last pass, and the
            first conditioning frame, which is upstream's default. What lies within reach is kept.
        recent: The frames tracked last, oldest first (a dict for its order).
        tracked: For each object id all the frames that passes have tracked, forgotten or not.
        anew: (object id, frame) of prompts on forgotten frames, of which the user has been told.
        stopped: Where the last pass goes on: (next frame, whether in reverse, how many frames are
            left to track or None for all).
        settings: The options of `init_state`, to open the video again in the same way.
        snapshots: What the session can go back to; None if it cannot.
        max_prompt_frames: How many frames with prompts are kept for each object; None is all.
        batches: Where objects are tracked together; None where each is tracked by itself.
        frames_per_encode: How many frames the image encoder is given at once during a pass.
        detections: What `track_detections` knew of its objects when the state was saved.
    """

    window: int
    reach: int
    starts: frozenset[int] = frozenset()
    recent: dict[int, None] = field(default_factory=dict)
    tracked: dict[Any, FrameRanges] = field(default_factory=dict)
    anew: set[tuple[Any, int]] = field(default_factory=set)
    stopped: tuple[int, bool, int | None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    max_prompt_frames: int | None = None
    snapshots: Snapshots | None = None
    batches: Batches | None = None
    frames_per_encode: int = 1
    detections: dict[str, Any] | None = None

    def keeps(self, frame_idx: int) -> bool:
        """Whether a frame without prompts is kept."""
        return frame_idx in self.recent or any(
            # A reverse pass from frame 0 has no frames, so nobody will read those after it.
            -self.reach <= frame_idx - start <= (self.reach if start > 0 else 0)
            for start in self.starts
        )


def new_memory(model: Any, memory_window: int | None) -> Memory:
    """The memory of a fresh state.

    Args:
        model: The predictor.
        memory_window: How many recent frames to keep; None means `2 * reach + 1`.

    Raises:
        ValueError: `memory_window` is no whole number above 0.
    """
    reach = _upstream.reach(model)
    if memory_window is None:
        return Memory(2 * reach + 1, reach)
    if isinstance(memory_window, bool) or not isinstance(memory_window, int) or memory_window < 1:
        raise ValueError(
            f"memory_window is {memory_window!r}; it must be a whole number of frames, at least 1. "
            f"This model needs {reach} to track exactly as upstream; None means {2 * reach + 1}, "
            "with which recent frames can be corrected exactly too."
        )
    if memory_window < reach:
        warnings.warn(
            f"memory_window is {memory_window}, but this model reads {reach} frames back: masks "
            "will differ from upstream's. Use None, or at least "
            f"{reach}, for the same masks.",
            stacklevel=4,  # above init_state and its decorator
        )
    return Memory(memory_window, reach)


def checked_max_prompt_frames(given: Any) -> int | None:
    """What the user gives as `max_prompt_frames`.

    Raises:
        ValueError: It is neither None nor a whole number above 0.
    """
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 1):
        return given
    raise ValueError(
        f"max_prompt_frames is {given!r}; it must be a whole number, at least 1, or None for all."
    )


def checked_batches(model: Any, given: Any) -> Batches | None:
    """What the user gives as `batch_objects`.

    Raises:
        ValueError: It is neither a bool nor a whole number above 0, or the model cannot do it.
    """
    if given is False:
        return None
    if not isinstance(given, int) or given < 1:
        raise ValueError(
            f"batch_objects is {given!r}; it must be True, False, or how many objects a batch may "
            "have at most."
        )
    if model.non_overlap_masks_for_mem_enc:
        raise ValueError(
            "batch_objects cannot be used with non_overlap_masks_for_mem_enc, which would let the "
            "objects of a batch change each other's masks. Leave one of them out."
        )
    return Batches(None if given is True else given)


def frames_to_encode(state: State, frame_idx: int) -> range:
    """The frames that are encoded together with one, in the direction of the running pass.

    They depend on the frame alone, inside a pass or not: a session that goes on later encodes the
    same ones together.
    """
    images = _upstream.images(state)
    count = state[KEY].frames_per_encode
    first = frame_idx // count * count
    frames = range(first, min(first + count, len(images)))
    return frames[::-1] if images.direction < 0 else frames


def settings(state: State) -> dict[str, Any]:
    """The options with which the state was made."""
    remembered: dict[str, Any] = state[KEY].settings
    return remembered


def to_plain(state: State) -> dict[str, Any]:
    """The memory without its settings, of types that can be saved without pickling code."""
    memory: Memory = state[KEY]
    return {
        "starts": sorted(memory.starts),
        "recent": list(memory.recent),
        "tracked": {obj_id: ranges.to_plain() for obj_id, ranges in memory.tracked.items()},
        "anew": list(memory.anew),
        "stopped": memory.stopped,
        "detections": memory.detections,
    }


def like(state: State) -> Memory:
    """A fresh memory with the options of a state's."""
    memory: Memory = state[KEY]
    return Memory(
        memory.window,
        memory.reach,
        settings=memory.settings,
        max_prompt_frames=memory.max_prompt_frames,
        batches=memory.batches and Batches(memory.batches.most),
        frames_per_encode=memory.frames_per_encode,
    )


def from_plain(state: State, saved: dict[str, Any]) -> None:
    """Put saved content into the memory of a fresh state."""
    memory: Memory = state[KEY]
    memory.starts = frozenset(saved["starts"])
    memory.recent = dict.fromkeys(saved["recent"])
    memory.tracked = {
        obj_id: FrameRanges.from_plain(*ranges) for obj_id, ranges in saved["tracked"].items()
    }
    memory.anew = {(obj_id, frame_idx) for obj_id, frame_idx in saved["anew"]}
    memory.stopped = saved["stopped"]
    memory.detections = saved.get("detections")  # there were none in older saves


def forget(state: State, frame_idx: int, *, starts_pass: bool, reverse: bool) -> None:
    """Note that a frame was tracked, and forget all that is no longer kept.

    For each object stay the frames that `Memory.keeps` names and the frames with prompts on this
    object. A frame that no pass has tracked (its prompt was cleared before) stays as well.
    """
    memory: Memory = state[KEY]
    if memory.max_prompt_frames is not None:
        for obj_idx, _ in _upstream.objects(state):
            _forget_prompts(state, obj_idx, frame_idx, memory.max_prompt_frames, reverse=reverse)
    if starts_pass:
        memory.starts = frozenset({frame_idx, _upstream.default_start(state)})
    memory.recent.pop(frame_idx, None)
    memory.recent[frame_idx] = None
    while len(memory.recent) > memory.window:
        del memory.recent[next(iter(memory.recent))]

    for obj_idx, obj_id in _upstream.objects(state):
        ever_tracked = memory.tracked.setdefault(obj_id, FrameRanges())
        ever_tracked.add(frame_idx)
        for by_frame in (
            _upstream.tracked_outputs(state, obj_idx),
            _upstream.frames_tracked(state, obj_idx),
        ):
            for held in list(by_frame):
                if (
                    not memory.keeps(held)
                    and held in ever_tracked
                    and not _upstream.has_prompt(state, obj_idx, held)
                ):
                    del by_frame[held]


def _forget_prompts(
    state: State, obj_idx: int, frame_idx: int, max_prompt_frames: int, *, reverse: bool
) -> None:
    """Of the prompts that the pass has come by, keep the first conditioning frame and the latest.

    What is forgotten counts as tracked from then on. Prompts that still lie ahead stay.
    """
    frames = _upstream.prompt_frames(state, obj_idx)
    passed = [f for f in frames if (f >= frame_idx if reverse else f <= frame_idx)]
    if len(passed) <= max_prompt_frames:
        return
    first = next((f for f in _upstream.conditioning_outputs(state, obj_idx) if f >= 0), None)
    latest = sorted((f for f in passed if f != first), key=lambda f: abs(frame_idx - f))
    for forgotten in latest[max_prompt_frames - (first in passed) :]:
        _upstream.forget_prompt(state, obj_idx, forgotten)


def live_start(state: State) -> int:
    """Where a pass over a live source starts by default.

    The first conditioning frame while it is held, else behind the last frame tracked.
    """
    start = _upstream.default_start(state)
    recent = state[KEY].recent
    if start in _upstream.images(state).held or not recent:
        return start
    last_tracked: int = next(reversed(recent))
    return last_tracked + 1


def note_stop(state: State, frame_idx: int, left: int | None, *, reverse: bool) -> None:
    """Note that a pass has come to a frame, with `left` frames still to track."""
    state[KEY].stopped = (frame_idx + (-1 if reverse else 1), reverse, left)
    state[KEY].detections = None  # they were of an earlier frame


def go_back(state: State, old: State, frame_idx: int, *, reverse: bool) -> None:
    """Remember frames up to one as an older state of the same session does.

    What the user has prompted since, anywhere, stays as it is.

    Args:
        old: The state after that frame was tracked.
    """
    memory: Memory = state[KEY]
    past: Memory = old[KEY]
    for obj_idx, obj_id in _upstream.objects(state):
        old_idx = _upstream.object_idx(old, obj_id)
        if old_idx is None:
            continue
        prompts = _upstream.prompt_frames(state, obj_idx)
        for ours, theirs in (
            (_upstream.tracked_outputs(state, obj_idx), _upstream.tracked_outputs(old, old_idx)),
            (_upstream.frames_tracked(state, obj_idx), _upstream.frames_tracked(old, old_idx)),
        ):
            ours.update({f: value for f, value in theirs.items() if f not in prompts})
    memory.recent = dict(past.recent)
    memory.starts = past.starts
    note_stop(state, frame_idx, None, reverse=reverse)


def last_tracked(state: State) -> int:
    """The frame that the last pass tracked last; -1 if there was none."""
    if state[KEY].detections is not None:  # which counts frames without objects, too
        return int(state[KEY].detections["next_frame"]) - 1
    stopped = state[KEY].stopped
    if stopped is None:
        return -1
    next_frame_idx, reverse, _ = stopped
    last: int = next_frame_idx + (1 if reverse else -1)
    return last


def where_stopped(state: State) -> tuple[int | None, int | None, bool]:
    """How to go on where the last pass stopped.

    Returns:
        The frame to start at (None: the pass was over), `max_frame_num_to_track`, and whether in
        reverse.

    Raises:
        RuntimeError: There was no pass.
    """
    stopped = state[KEY].stopped
    if stopped is None:
        raise RuntimeError(
            "No pass over this state has tracked a frame yet; use propagate_in_video."
        )
    start, reverse, left = stopped
    if not 0 <= start < len(_upstream.images(state)) or (left is not None and left < 0):
        return None, None, reverse
    return start, left, reverse


def is_forgotten(state: State, obj_id: Any, frame_idx: int) -> bool:
    """Whether an object was tracked on a frame and nothing of it is left."""
    obj_idx = _upstream.object_idx(state, obj_id)
    return (
        obj_idx is not None
        and frame_idx in state[KEY].tracked.get(obj_id, ())
        and frame_idx not in _upstream.frames_tracked(state, obj_idx)
        and frame_idx not in _upstream.tracked_outputs(state, obj_idx)
        and frame_idx not in _upstream.conditioning_outputs(state, obj_idx)
        and not _upstream.has_prompt(state, obj_idx, frame_idx)
    )


def forget_objects(state: State) -> None:
    """Forget what is noted of objects that are no more."""
    memory: Memory = state[KEY]
    remain = {obj_id for _, obj_id in _upstream.objects(state)}
    memory.tracked = {i: ranges for i, ranges in memory.tracked.items() if i in remain}
    memory.anew = {prompt for prompt in memory.anew if prompt[0] in remain}
    memory.detections = None
    if not memory.tracked:
        memory.recent.clear()
        memory.stopped = None
        memory.starts = frozenset()
    if memory.batches is not None:
        memory.batches.clear()
        for obj_idx, _ in _upstream.objects(state):
            for outputs in (
                _upstream.conditioning_outputs(state, obj_idx),
                _upstream.tracked_outputs(state, obj_idx),
            ):
                for output in outputs.values():
                    detach(output)


def warn_of_forgotten_prompt(state: State, obj_id: Any, frame_idx: int) -> None:
    """Warn that a prompt will not give upstream's mask, because what it needs was forgotten."""
    obj_idx = _upstream.object_idx(state, obj_id)
    if obj_idx is None:
        return
    window = state[KEY].window
    if is_forgotten(state, obj_id, frame_idx):
        warnings.warn(
            f"Frame {frame_idx} was tracked and has been forgotten (memory_window is {window}), so "
            f"this prompt for object {obj_id!r} does not correct the old mask: the frame becomes "
            "an initial conditioning frame, as if never tracked. For corrections further back, "
            "give init_state a larger memory_window.",
            stacklevel=3,
        )
        state[KEY].anew.add((obj_id, frame_idx))
        return
    reverse = _upstream.was_tracked_in_reverse(state, obj_idx, frame_idx)
    if reverse is None:
        return
    lost = _forgotten_past(state, obj_id, frame_idx, reverse=reverse)
    if lost:
        warnings.warn(
            f"This prompt corrects object {obj_id!r} on frame {frame_idx}, but the frames "
            f"{min(lost)} to {max(lost)} that the old mask was made from have been forgotten "
            f"(memory_window is {window}), so the mask will differ from upstream's. For exact "
            "corrections further back, give init_state a larger memory_window.",
            stacklevel=3,
        )


def warn_of_forgotten_past(state: State, start: int, *, reverse: bool) -> None:
    """Warn that a pass starts where the frames it should go on from have been forgotten."""
    memory: Memory = state[KEY]
    lost = {
        obj_id: _forgotten_past(state, obj_id, start, reverse=reverse)
        for _, obj_id in _upstream.objects(state)
        if (obj_id, start) not in memory.anew
    }
    lost = {obj_id: frames for obj_id, frames in lost.items() if frames}
    if lost:
        frames = set().union(*lost.values())
        warnings.warn(
            f"The pass starts at frame {start}, but of the frames that it goes on from "
            f"{min(frames)} to {max(frames)} have been forgotten (memory_window is "
            f"{memory.window}), so masks will differ from upstream's for object "
            f"{', '.join(map(repr, lost))}. Go on from where a pass has stopped, start where one "
            "has started, or give init_state a larger memory_window.",
            stacklevel=4,
        )


def _forgotten_past(state: State, obj_id: Any, frame_idx: int, *, reverse: bool) -> list[int]:
    """Which of the frames that tracking this one reads are forgotten."""
    memory: Memory = state[KEY]
    if memory.window < memory.reach:
        return []  # init_state has said that masks differ
    obj_idx = _upstream.object_idx(state, obj_id)
    assert obj_idx is not None
    # A conditioning frame is not tracked itself; what comes after it reads one frame less of the
    # frames before it.
    is_cond = frame_idx in _upstream.conditioning_outputs(state, obj_idx)
    step = 1 if reverse else -1
    read = range(frame_idx + step, frame_idx + step * (memory.reach + 1 - is_cond), step)
    return [read_idx for read_idx in read if is_forgotten(state, obj_id, read_idx)]


def bytes_by_kind(state: State) -> dict[str, dict[str, int]]:
    """Bytes that a state holds, by kind and by device. Shared storage counts once."""
    usage: dict[str, dict[str, int]] = {
        kind: {}
        for kind in (
            "memory_features",
            "masks",
            "object_pointers",
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

    for kind, tensor in _upstream.tensors_by_kind(state):
        storage = tensor.untyped_storage()
        address = (tensor.device, storage.data_ptr())
        if address not in counted:
            counted.add(address)
            count(kind, str(tensor.device), storage.nbytes())
    count("frame_buffer", "cpu", _upstream.images(state).num_bytes)
    return usage
