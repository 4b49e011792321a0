"""A frame's path: one loop for every pass over every kind of video.

source -> read ahead (uint8) -> buffer -> upstream's encoder, memory attention and mask decoder
-> forget what will not be read again -> yield
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol

import torch

from longsam import _upstream, notices, prompting
from longsam._upstream import InferenceState
from longsam._warn import warn
from longsam.frames import EndOfStreamError, EndOfVideoError, LiveBuffer
from longsam.options import AutosaveRun
from longsam.session import KEY, Pass, Session, session_of
from longsam.snapshots import Segment

Step = tuple[int, list[Any], torch.Tensor]
"""Frame index, object ids, mask logits."""


class Predictor(Protocol):
    """What the loop needs from the predictor."""

    feature_reach: int

    def propagate_in_video_preflight(self, inference_state: Any) -> None: ...

    def upstream_pass(
        self, state: InferenceState, current: Pass, *, resumed: bool, progress_bar: bool
    ) -> Generator[Step, None, None]: ...


def propagate(
    predictor: Predictor,
    state: InferenceState,
    start: int | None,
    num_left: int | None,
    *,
    reverse: bool,
    autosave: AutosaveRun | None,
    progress_bar: bool,
) -> Generator[Step, None, None]:
    """A new pass.

    Args:
        predictor: The predictor.
        state: The session.
        start: Its first frame; None is upstream's default, the first conditioning frame.
        num_left: How many frames to track; None is all.
        reverse: Whether it runs towards frame 0.
        autosave: Saves the state on the way.
        progress_bar: Whether upstream's bar is drawn.
    """
    # Encodes the prompts; upstream's own call then finds nothing to do. Done first so that only
    # frames of the pass itself are read ahead.
    predictor.propagate_in_video_preflight(state)
    if start is None:
        start = _upstream.default_start(state)
    current = Pass(start, reverse, num_left)
    yield from run(predictor, state, current, autosave=autosave, progress_bar=progress_bar)


def resume(
    predictor: Predictor,
    state: InferenceState,
    *,
    autosave: AutosaveRun | None,
    progress_bar: bool,
) -> Generator[Step, None, None]:
    """Resume the most recent pass.

    Raises:
        RuntimeError: There was no pass.
    """
    last_pass = session_of(state).last_pass
    if last_pass is None:
        raise RuntimeError(
            "No pass over this state has tracked a frame yet; use propagate_in_video."
        )
    if last_pass.is_over(len(_upstream.images(state))):
        return
    current = replace(last_pass)
    if isinstance(_upstream.images(state), LiveBuffer):
        yield from _run_live(predictor, state, current, resumed=True, progress_bar=progress_bar)
        return
    predictor.propagate_in_video_preflight(state)
    yield from run(
        predictor, state, current, resumed=True, autosave=autosave, progress_bar=progress_bar
    )


def run(
    predictor: Predictor,
    state: InferenceState,
    current: Pass,
    *,
    resumed: bool = False,
    autosave: AutosaveRun | None = None,
    progress_bar: bool = False,
) -> Generator[Step, None, None]:
    """Track frame after frame. Every tracked frame comes through here.

    Args:
        predictor: The predictor.
        state: The session.
        current: The pass; it moves on with each frame.
        resumed: Whether an earlier pass is continued; the frames around its start are still kept,
            and in reverse it may have reached frame 0.
        autosave: Saves the state on the way.
        progress_bar: Whether upstream's bar is drawn.
    """
    session = session_of(state)
    images = _upstream.images(state)
    notices.forgotten_past(state, current)
    # Upstream tracks nothing in reverse from frame 0.
    tracks_any = resumed or not (current.reverse and current.next_frame_idx == 0)
    session.begin(state, current, resumed=resumed)
    steps = predictor.upstream_pass(state, current, resumed=resumed, progress_bar=progress_bar)
    try:
        with closing(steps):
            while True:
                session.before_frame(current)
                if tracks_any:
                    prompting.tell_of_replaced(state, current)
                if not current.is_over(len(images)):
                    _take_snapshot_if_due(predictor, state, session, current)
                try:
                    with images.reading_ahead(current.step):
                        step = next(steps, None)
                except EndOfStreamError:
                    break
                except EndOfVideoError as end:
                    warn(f"{end} The pass ends there.")
                    break
                if step is None:
                    break
                session.frame_tracked(state, current, step[0])
                yield step
                if autosave is not None:
                    autosave.step_done()
    finally:
        session.end(current)
        images.pause()
    if autosave is not None:
        autosave.finish()


def propagate_live(
    predictor: Predictor,
    state: InferenceState,
    start: int | None,
    num_left: int | None,
    *,
    reverse: bool,
    progress_bar: bool,
) -> Generator[Step, None, None]:
    """A new pass over a live source.

    Without `start` it begins at the first conditioning frame while that is held, else after the
    last tracked frame.
    """
    predictor.propagate_in_video_preflight(state)
    if start is None:
        start = _upstream.default_start(state)
        recent = session_of(state).memory.recent
        if recent and start not in _upstream.images(state).held:
            start = next(reversed(recent)) + (-1 if reverse else 1)
    current = Pass(start, reverse, num_left)
    yield from _run_live(predictor, state, current, resumed=False, progress_bar=progress_bar)


def _run_live(
    predictor: Predictor, state: InferenceState, current: Pass, *, resumed: bool, progress_bar: bool
) -> Generator[Step, None, None]:
    """One run after another, so that prompts given between two yields apply from the next frame."""
    while not current.is_over(len(_upstream.images(state))):
        predictor.propagate_in_video_preflight(state)
        with closing(
            run(predictor, state, current, resumed=resumed, progress_bar=progress_bar)
        ) as steps:
            for step in steps:
                obj_ids = list(step[1])
                yield step
                if (
                    _upstream.has_waiting_prompts(state)
                    or _upstream.object_ids_as_listed(state) != obj_ids
                ):
                    break
            else:
                return
        if not any(_upstream.objects(state)):
            return  # the caller has removed the last object
        resumed = True
        current = replace(current)


def rewind(predictor: Predictor, state: InferenceState, frame_idx: int) -> None:
    """Track again what was forgotten around a frame; see `LongVideoPredictor.rewind`."""
    session = session_of(state)
    if session.history is None:
        raise ValueError(
            "This session keeps no snapshots to go back to: give init_state "
            "snapshots=longsam.Snapshots()."
        )
    missing = session.memory.missing_around(state, frame_idx)
    plans = []
    for number, pairs in missing.items():
        segment = session.history.segments.get(number)
        step = -1 if segment is not None and segment.reverse else 1
        first = min((frame for _, frame in pairs), key=lambda frame: frame * step)
        snapshot = None if segment is None else segment.snapshot_before(first)
        if segment is None or snapshot is None:
            raise ValueError(
                f"Frame {first} cannot be tracked again: there is no snapshot before it. It was "
                "tracked before this session kept snapshots, its snapshot could not be written, or "
                "Snapshots(max_bytes) left no room for it."
            )
        plans.append((segment, snapshot, pairs))
    for segment, snapshot, pairs in plans:
        _track_again(predictor, state, session, segment, snapshot, pairs)
    if missing:
        session.changed()
    session.memory.note_rewound(frame_idx)


def _track_again(
    predictor: Predictor,
    state: InferenceState,
    session: Session,
    segment: Segment,
    snapshot: int,
    missing: set[tuple[Any, int]],
) -> None:
    """Track a segment's missing frames again, into the state."""
    assert session.history is not None
    memories = session.history.read(segment, snapshot)
    past = _upstream.state_with_memories(state, memories)
    past[KEY] = session.for_replay()
    frames = {frame for _, frame in missing}
    current = Pass(snapshot, segment.reverse, None)
    with closing(run(predictor, past, current, resumed=True)) as steps:
        for frame_idx, _, _ in steps:
            for obj_id in (i for i, frame in missing if frame == frame_idx):
                _upstream.copy_tracked(past, state, obj_id, frame_idx)
            frames.discard(frame_idx)
            if not frames:
                return


def _take_snapshot_if_due(
    predictor: Predictor, state: InferenceState, session: Session, current: Pass
) -> None:
    """Take a snapshot before a frame if the last one is old or something has changed."""
    history = session.history
    if history is None:
        return
    segment = history.segments.get(current.segment)
    if (
        segment is None
        or session.last_segment != current.segment
        or segment.obj_ids != current.obj_ids
        or segment.reverse != current.reverse
    ):
        segment = history.new_segment(current.obj_ids, reverse=current.reverse)
        current.segment = segment.number
    if not history.is_due(segment, current.next_frame_idx):
        return
    _upstream.wait_for_copies(state)
    # A policy may read the features of any frame within reach.
    reach = session.memory.reach
    feature_reach = predictor.feature_reach if session.follower is None else reach
    memories = _upstream.memories_read_from(
        state, current.obj_ids, current.reads(reach), feature_reach
    )
    try:
        history.add(segment, current.next_frame_idx, memories)
    except OSError as error:
        if not history.has_failed:
            warn(
                f"The snapshot before frame {current.next_frame_idx} cannot be written to "
                f"{history.folder} ({error}). Tracking continues and tries again every "
                f"{history.every} frames; rewind cannot reach what has no snapshot before it."
            )
        history.has_failed = True
    session.drop_replaced_snapshots()
