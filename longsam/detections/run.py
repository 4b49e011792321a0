"""`track_detections` and `resume_detections`: a run, from its start or from a save."""

import warnings
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

from longsam import Autosave, LiveVideo, LongVideoPredictor, State
from longsam.detections.detections import Detector
from longsam.detections.options import Options
from longsam.detections.tracker import EXTRAS, LabelledStep, Tracker
from longsam.frames import FrameSource, open_source, sliced_as

MAX_PROMPT_FRAMES = 8
"""Default number of frames with prompts kept for each object, see `init_state`."""


def track_detections(
    predictor: LongVideoPredictor,
    video: Any,
    detector: Detector,
    *,
    detect_every: int = 10,
    min_score: float = 0.5,
    match_iou: float = 0.3,
    correct_iou: float = 0.5,
    min_hits: int = 2,
    retire_after: int = 100,
    max_objects: int | None = None,
    max_prompt_frames: int | None = MAX_PROMPT_FRAMES,
    autosave: Autosave | None = None,
    state: State | None = None,
    **options: Any,
) -> Generator[LabelledStep, None, None]:
    """Track what a detector finds, at constant memory.

    Every few frames the detector runs, and its boxes are matched one to one with the boxes around
    the tracked masks, maximizing the sum of IoUs. A detection that matches confirms its object, or
    corrects it if the two differ much; one that matches nothing becomes a new object, which is
    yielded once a second detection has confirmed it. Confirmed objects are still tracked where
    nothing is detected.

    Object ids count from 1 and are never reused; two things with the same label are two objects. An
    ambiguous detection changes nothing: one that holds most of two tracked objects of its label, or
    most of one matched by another detection, or that lies mostly on one.

    Args:
        predictor: What tracks.
        video: Anything that `init_state` takes, live sources too.
        detector: Called with a frame in its own size, uint8 RGB, height x width x 3; returns
            anything that `as_detections` takes.
        detect_every: The detector runs on every `detect_every`-th frame, from frame 0 on.
        min_score: Detections with a lower score are ignored.
        match_iou: The minimum IoU between a detection's box and a mask's box for a match.
        correct_iou: Below this IoU a match corrects the object: its box becomes a prompt. A value
            of at most `match_iou` never corrects.
        min_hits: How many times in a row a new object must be detected, including the first, before
            it is yielded; if it is missed before that it is dropped. So false detections seldom
            become objects, and an object's first masks come `detect_every * (min_hits - 1)` frames
            after its first detection (on frame 10 with the defaults). 1 yields it at once.
        retire_after: An object is dropped when its mask was empty each time the detector ran for
            this many frames; if it comes back, it is a new object.
        max_objects: The maximum number of objects tracked at once, including those not yet yielded;
            further detections are ignored meanwhile. None is no limit.
        max_prompt_frames: As in `init_state`; None lets memory grow with the number of corrections.
        autosave: As in `propagate_in_video`. A run that was killed is resumed from its last save
            with `resume_detections`. Labels must then be strings, numbers or None; any other label
            ends the run with a ValueError.
        state: From `init_state(video, ...)`, with nothing tracked in it yet, for callers that want
            the scores of each frame or save the state themselves. It stays open at the end. All
            options of `init_state` are set there, also `max_prompt_frames`, which has no limit by
            default there. `video` may then be the result of
            `longsam.frames.open_source(video, None)`; the run closes it. None opens the video, and
            closes it at the end.
        **options: Others of `init_state`, such as `batch_objects=True`, or `memory_bank`: its
            objects are tracked from frame 0 on, with their ids also as labels.

    Yields:
        For every frame: frame index, object ids, mask logits (float32, num_objects x 1 x height x
        width of the video, on the model's device; above 0 is the object), and a label for each
        object: that of its first detection. Before anything is found there are no objects.

    Raises:
        ValueError: An option has a wrong value; the detector returns something else; autosave is
            given with a live source, or with labels other than strings, numbers and None; or the
            state is of another video, something was tracked in it, or options of `init_state` are
            given beside it.
        RuntimeError: A frame cannot be read.
    """
    run_options = Options(
        detect_every, min_score, match_iou, correct_iou, min_hits, retire_after, max_objects
    )
    # A live source and a given state are the caller's: both stay open.
    owns_state = state is None and not isinstance(video, LiveVideo)
    if state is None:
        state = predictor.init_state(video, max_prompt_frames=max_prompt_frames, **options)
    else:
        if max_prompt_frames != MAX_PROMPT_FRAMES:
            options["max_prompt_frames"] = max_prompt_frames
        _check_fresh(state, options)
    with ExitStack() as on_error:
        if owns_state:
            on_error.callback(predictor.close, state)
        saves = predictor.begin_autosave(state, autosave)
        source = state.source
        first_yielded = run_options.detect_every * (run_options.min_hits - 1)
        if source.num_frames <= first_yielded:
            warnings.warn(
                f"{source.name} has {source.num_frames} frames; with detect_every={detect_every} "
                f"and min_hits={min_hits} no object is yielded before frame {first_yielded}. Give "
                "min_hits=1, or a smaller detect_every.",
                stacklevel=2,
            )
        tracker = Tracker(
            predictor,
            state,
            source if isinstance(source, LiveVideo) else _opened_again(video, source),
            detector,
            run_options,
            is_saved=saves is not None,
            owns_state=owns_state,
        )
        on_error.pop_all()
    return tracker.run(saves)


def resume_detections(
    predictor: LongVideoPredictor,
    state: State,
    detector: Detector,
    *,
    video: Any = None,
    autosave: Autosave | None = None,
) -> Generator[LabelledStep, None, None]:
    """Resume a saved run of `track_detections` where it stopped, with its options and objects.

    Masks are those of a run that was never interrupted, if the detector's answer depends on the
    frame alone. A detector that learns from the frames it has seen starts from scratch.

    Args:
        predictor: What tracks, with the model of that run.
        state: From `predictor.load_state` of that run's save. It stays open at the end.
        detector: As in `track_detections`.
        video: The video again if it has no path (an array, a list), as given to `load_state`; or
            the result of `longsam.frames.open_source(video, None)`, which the run closes.
        autosave: As in `track_detections`.

    Yields:
        What `track_detections` would have yielded next; nothing if the run was over.

    Raises:
        ValueError: The state is not from a run of `track_detections`, objects were changed since it
            was saved, or the video is missing or another one.
    """
    saved = state.extras.get(EXTRAS)
    if saved is None:
        raise ValueError(
            "This state was not saved in a run of track_detections, or it has been changed or "
            "tracked on since then; predictor.resume_propagation continues with its objects."
        )
    saves = predictor.begin_autosave(state, autosave)
    source = state.source
    if video is None and source.path is None:
        raise ValueError(f"{source.name} has no path: give it again as `video`.")
    with ExitStack() as on_error:
        frames = _opened_again(source.path if video is None else video, source)
        on_error.callback(frames.close)
        try:
            options = Options(**saved["options"])
            tracker = Tracker(
                predictor, state, frames, detector, options, is_saved=True, owns_state=False
            )
            tracker.restore(saved)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                "The state does not hold a run of track_detections as longsam saves it "
                f"({type(error).__name__}: {error})."
            ) from error
        on_error.pop_all()
    return tracker.run(saves)


def _check_fresh(state: State, options: dict[str, Any]) -> None:
    """Refuse a state in which a run cannot start, and options that the state already has.

    Raises:
        ValueError: Something was tracked in it, or an option is given with it.
    """
    if options:
        raise ValueError(
            f"{', '.join(options)}: with `state`, give this to the init_state that opens it."
        )
    if state.last_frame_idx >= 0:
        raise ValueError(
            f"Frame {state.last_frame_idx} was tracked in this state; a run starts in a fresh one, "
            "from init_state, and a saved run continues with resume_detections."
        )


def _opened_again(video: Any, source: FrameSource) -> FrameSource:
    """The frames of a state in their own size.

    Args:
        video: The state's video, or its frames in their own size.
        source: The state's.

    Raises:
        ValueError: It is another video.
    """
    opened = video if isinstance(video, FrameSource) else open_source(video, None)
    frames = sliced_as(opened, source)
    for what in ("num_frames", "frame_size"):
        given, expected = getattr(frames, what), getattr(source, what)
        if given != expected:
            frames.close()
            raise ValueError(
                f"{frames.name} is not the video of this state: its {what} is {given}, not "
                f"{expected}."
            )
    return frames
