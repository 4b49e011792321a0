"""Prompts from a detector: objects are found, followed, corrected and retired without a click.

    for frame_idx, obj_ids, mask_logits, labels in track_detections(predictor, video, detector):
        ...

Needs scipy, the extra `autoprompt`.
"""

import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam import _upstream, memory, saving
from longsam.frames import (
    EndOfStreamError,
    EndOfVideoError,
    FrameSource,
    LiveVideo,
    open_source,
)
from longsam.frames.base import Frame
from longsam.predictor import LongVideoPredictor

try:
    from scipy.optimize import linear_sum_assignment
except ImportError as error:
    raise ImportError("longsam.autoprompt needs scipy: `pip install scipy`.") from error

Boxes = npt.NDArray[np.float64]
"""x0, y0, x1, y1 in pixels of the frame, n x 4."""

Detector = Callable[[Frame], Any]
"""Given a frame (uint8 RGB, height x width x 3), returns anything that `as_detections` takes."""

LabelledStep = tuple[int, list[Any], torch.Tensor, list[Any]]
"""Frame index, object ids, mask logits (num_objects x 1 x height x width), labels."""

MOSTLY = 0.5
"""A box holds a mask when more than this share of the mask lies inside it, and is a part of it when
the mask covers more than this share of the box."""

SAME_MASK = 0.7
"""Two masks of a larger IoU are the same thing, tracked twice."""


@dataclass(frozen=True)
class Detections:
    """What a detector has found on one frame.

    Args:
        boxes: x0, y0, x1, y1 in pixels of the frame, n x 4.
        scores: From 0 to 1, (n,); None is 1 for all.
        labels: What the n things are, of any type; None is None for all.

    Raises:
        ValueError: The shapes do not fit each other, or a box is not finite or not above 0 wide
            and high.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float64]
    labels: Sequence[Any]

    def __init__(self, boxes: Any, scores: Any = None, labels: Sequence[Any] | None = None):
        given = _as_array(boxes)
        given = given.reshape(0, 4) if given.size == 0 else given
        count = len(given)
        of_scores = np.ones(count) if scores is None else _as_array(scores)
        of_labels = [None] * count if labels is None else list(labels)
        if given.shape != (count, 4) or of_scores.shape != (count,) or len(of_labels) != count:
            raise ValueError(
                f"Detections are boxes of shape (n, 4), n scores and n labels; these are of shape "
                f"{given.shape} and {of_scores.shape}, with {len(of_labels)} labels."
            )
        if not np.isfinite(given).all() or not (given[:, 2:] > given[:, :2]).all():
            raise ValueError(
                f"A box is x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1; got {given.tolist()}."
            )
        object.__setattr__(self, "boxes", given)
        object.__setattr__(self, "scores", of_scores)
        object.__setattr__(self, "labels", of_labels)

    def __len__(self) -> int:
        return len(self.boxes)


def _as_array(numbers: Any) -> npt.NDArray[np.float64]:
    if isinstance(numbers, torch.Tensor):  # on any device, of any dtype
        numbers = numbers.detach().double().cpu().numpy()
    return np.asarray(numbers, np.float64)


def as_detections(found: Any) -> Detections:
    """What a detector returned, as `Detections`.

    Args:
        found: `Detections`; None for nothing; a tuple (boxes, scores, labels) or its first one or
            two parts; an array of boxes, n x 4; or `Detections` of the package supervision, whose
            class names, or else class numbers, become the labels.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(found, Detections):
        return found
    if found is None:
        return Detections([])
    if hasattr(found, "xyxy"):  # supervision
        data = getattr(found, "data", None) or {}
        labels = data.get("class_name", getattr(found, "class_id", None))
        return Detections(
            found.xyxy,
            getattr(found, "confidence", None),
            None if labels is None else np.asarray(labels).tolist(),
        )
    if isinstance(found, tuple) and 1 <= len(found) <= 3:
        return Detections(*found)
    if isinstance(found, (np.ndarray, list, torch.Tensor)):
        return Detections(found)
    raise ValueError(
        f"A detector returned {type(found).__name__}; it must be longsam.autoprompt.Detections, "
        "(boxes, scores, labels), an array of boxes (n x 4), supervision's Detections, or None."
    )


def track_detections(
    predictor: LongVideoPredictor,
    video: Any,
    detector: Detector,
    *,
    every: int = 10,
    min_score: float = 0.5,
    match_iou: float = 0.3,
    correct_iou: float = 0.5,
    min_hits: int = 2,
    retire_after: int = 100,
    max_objects: int | None = None,
    max_prompt_frames: int | None = 8,
    save_every: int | timedelta | None = None,
    save_path: str | os.PathLike[str] | None = None,
    before_save: Callable[[], object] | None = None,
    **options: Any,
) -> Generator[LabelledStep, None, None]:
    """Track what a detector finds, at constant memory.

    Every few frames the detector is asked, and its boxes are matched one to one with the boxes
    around the tracked masks so that the sum of IoUs is largest. A detection that matches confirms
    its object, or corrects it where the two differ much; one that matches nothing becomes a new
    object, which is yielded once a second detection has confirmed it. Where nothing is detected
    nothing changes for confirmed objects: they are tracked on.

    Objects have ids of their own, counted from 1 and never used again; two things of one label are
    two objects. A detection changes nothing where it is not clear whose it is: where it holds most
    of two tracked objects of its label, or most of one that another detection has matched, or where
    it lies mostly on one.

    Args:
        predictor: What tracks.
        video: Anything that `init_state` takes, live sources too.
        detector: Called with a frame in its own size, uint8 RGB, height x width x 3; returns
            anything that `as_detections` takes.
        every: The detector is asked on every so many frames, from frame 0 on.
        min_score: Detections below are ignored.
        match_iou: The least IoU between the box of a detection and that of a mask for a match.
        correct_iou: Below this IoU a match corrects the object: its box becomes a prompt. At most
            `match_iou` never corrects.
        min_hits: How many times in a row a new object has to be detected, its first time included,
            before it is yielded; an object missed before is dropped. So boxes around nothing seldom
            become objects, and an object's first masks come `every * (min_hits - 1)` frames after
            its first detection (on frame 10 with the defaults). 1 yields it at once.
        retire_after: An object whose mask was empty whenever the detector was asked, over so many
            frames, is no longer tracked; should it come back, it is a new one.
        max_objects: How many objects are tracked at most, with those not yet yielded; detections
            beyond are ignored while that many are tracked. None is no limit.
        max_prompt_frames: As in `init_state`; None lets memory grow with the number of corrections.
        save_every: As in `propagate_in_video`, and so are the two that follow. A run that was
            killed goes on from its last save with `resume_detections`. Labels must then be strings,
            numbers or None; an object with another one ends the run with a ValueError.
        save_path: See there.
        before_save: See there.
        **options: Others of `init_state`, such as `batch_objects=True`, or `memory_bank`, whose
            objects are tracked from frame 0 on under their ids, which are their labels too.

    Yields:
        For every frame: frame index, object ids, mask logits (float32, num_objects x 1 x height x
        width of the video, on the model's device; above 0 is the object), and a label for each
        object: that of the detection which made it. Before anything is found there are no objects.

    Raises:
        ValueError: An option has a wrong value, or the detector returns something else, or what
            cannot be saved is to be saved: a live source, or labels other than strings, numbers
            and None.
        RuntimeError: A frame cannot be read.
    """
    tracker_options = _Options(
        every, min_score, match_iou, correct_iou, min_hits, retire_after, max_objects
    )
    state = predictor.init_state(video, max_prompt_frames=max_prompt_frames, **options)
    source = _upstream.images(state).source
    if source.num_frames <= every * (min_hits - 1):
        warnings.warn(
            f"{source.name} has {source.num_frames} frames; with every={every} and "
            f"min_hits={min_hits} no object is yielded before frame {every * (min_hits - 1)}. Give "
            "min_hits=1, or a smaller `every`.",
            stacklevel=2,
        )
    tracker = _Tracker(
        predictor,
        state,
        detector,
        source if isinstance(source, LiveVideo) else open_source(video, None),
        tracker_options,
    )
    return tracker.saved_run(save_every, save_path, before_save)


def resume_detections(
    predictor: LongVideoPredictor,
    state: _upstream.State,
    detector: Detector,
    *,
    video: Any = None,
    save_every: int | timedelta | None = None,
    save_path: str | os.PathLike[str] | None = None,
    before_save: Callable[[], object] | None = None,
) -> Generator[LabelledStep, None, None]:
    """Go on where a run of `track_detections` was saved, with its options, objects and ids.

    Masks are those of a run that was never interrupted, if the detector answers by the frame alone.
    One that learns from the frames it has seen starts anew.

    Args:
        predictor: What tracks, with the model of that run.
        state: From `predictor.load_state` of that run's `save_path`.
        detector: As in `track_detections`.
        video: The video once more, where it has no path of its own (an array, a list), as it was
            given to `load_state`.
        save_every: As in `propagate_in_video`, and so are the two that follow.
        save_path: See there.
        before_save: See there.

    Yields:
        What `track_detections` would have yielded next; nothing if it was over.

    Raises:
        ValueError: The state is not from a run of `track_detections`, or objects were changed since
            it was saved, or the video is needed, or is another one.
    """
    saved = state[memory.KEY].detections
    if saved is None:
        raise ValueError(
            "This state was not saved in a run of track_detections, or it has been changed or "
            "tracked on since then; predictor.resume_propagation goes on with its objects."
        )
    source = _upstream.images(state).source
    if video is None and source.path is None:
        raise ValueError(f"{source.name} has no path: give it again as `video`.")
    frames = open_source(source.path if video is None else video, None)
    for what in ("num_frames", "frame_size"):
        given, expected = getattr(frames, what), getattr(source, what)
        if given != expected:
            raise ValueError(
                f"{frames.name} is not the video of this state: its {what} is {given}, not "
                f"{expected}."
            )
    with saving.damage_named("The state", "run of track_detections"):
        tracker = _Tracker(predictor, state, detector, frames, _Options(*saved["options"]))
        tracker.go_on(saved)
    return tracker.saved_run(save_every, save_path, before_save)


@dataclass
class _Object:
    """What is known of a tracked object besides its masks."""

    label: Any
    seen_since: int  # from which look on its mask was not empty
    hits: int  # how often it was detected
    last_hit: int  # on which frame for the last time
    empty_since: int | None = None  # from which look on it was


@dataclass(frozen=True)
class _Options:
    """Those of `track_detections`, in the order in which a save holds them."""

    every: int
    min_score: float
    match_iou: float
    correct_iou: float
    min_hits: int
    retire_after: int
    max_objects: int | None

    def __post_init__(self) -> None:
        for name in ("every", "min_hits", "retire_after"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; it must be a whole number, at least 1.")
        for name in ("min_score", "match_iou", "correct_iou"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share!r}; it must be from 0 to 1.")
            object.__setattr__(self, name, float(share))
        most = self.max_objects
        if most is not None and not (isinstance(most, int) and most >= 1):
            raise ValueError(
                f"max_objects is {most!r}; it must be a whole number, at least 1, or None."
            )


@dataclass
class _Tracker:
    """A run of `track_detections`; `source` gives frames in their own size."""

    predictor: LongVideoPredictor
    state: _upstream.State
    detector: Detector
    source: FrameSource
    options: _Options

    def __post_init__(self) -> None:
        # Objects of a memory bank are known from the start; they are labelled with their ids.
        self._objects: dict[Any, _Object] = {
            obj_id: _Object(obj_id, 0, self.options.min_hits, 0)
            for _, obj_id in _upstream.objects(self.state)
        }
        self._num_ever = max((i for i in self._objects if isinstance(i, int)), default=0)
        self._next_frame = 0
        self._goes_on = False  # in the middle of a pass
        self._can_be_saved = False
        self._last_image: tuple[int, Frame] = -1, np.empty((0, 0, 3), np.uint8)

    def go_on(self, saved: dict[str, Any]) -> None:
        """Let be known what was known when the state was saved."""
        self._objects = {row[0]: _Object(*row[1:]) for row in saved["objects"]}
        if list(self._objects) != [obj_id for _, obj_id in _upstream.objects(self.state)]:
            raise ValueError(f"it has objects besides {list(self._objects)}, or not all of them")
        self._num_ever, self._next_frame = int(saved["num_ever"]), int(saved["next_frame"])
        self._goes_on = bool(saved["goes_on"])
        self._can_be_saved = True  # the caller has the state

    def saved_run(
        self,
        save_every: int | timedelta | None,
        save_path: str | os.PathLike[str] | None,
        before_save: Callable[[], object] | None,
    ) -> Generator[LabelledStep, None, None]:
        """`run`, with the state saved now and then."""
        self._can_be_saved |= save_every is not None
        return saving.saved(
            self.predictor, self.state, self.run(), save_every, save_path, before_save
        )

    def _note(self, *, is_changed: bool) -> None:
        """Put what a save must hold besides the predictor's state where it is saved."""
        self.state[memory.KEY].detections = {
            "options": astuple(self.options),
            "objects": [(obj_id, *astuple(known)) for obj_id, known in self._objects.items()],
            "num_ever": self._num_ever,
            "next_frame": self._next_frame,
            "goes_on": bool(self._objects) and not is_changed,
        }

    def run(self) -> Generator[LabelledStep, None, None]:
        """All frames, in passes from one change of objects or prompts to the next."""
        try:
            while self._next_frame < self.source.num_frames:
                with closing(self._pass(self._next_frame)) as steps:
                    for frame_idx, tracked in steps:
                        self._next_frame = frame_idx + 1
                        mask_logits, is_changed = tracked, False
                        if frame_idx % self.options.every == 0:
                            mask_logits, is_changed = self._look(frame_idx, tracked)
                        if self._can_be_saved:
                            self._note(is_changed=is_changed)
                        yield self._confirmed(frame_idx, mask_logits)
                        if is_changed:
                            break
                    else:
                        return
        except EndOfStreamError:
            return
        except EndOfVideoError as end:
            warnings.warn(f"{end} Tracking ends there.", stacklevel=2)
        finally:
            if not isinstance(self.source, LiveVideo):
                self.source.close()

    def _pass(self, start: int) -> Generator[tuple[int, torch.Tensor], None, None]:
        """Frames from one on, tracked if there is anything to track."""
        if not self._objects:
            height, width = self.source.frame_size
            nothing = torch.zeros((0, 1, height, width), device=self.predictor.device)
            for frame_idx in range(start, self.source.num_frames):
                if not isinstance(self.source, LiveVideo):
                    self._image(frame_idx)  # is there such a frame?
                elif frame_idx > 0:
                    self.predictor.advance(self.state)
                yield frame_idx, nothing
            return
        if self._goes_on:
            steps = self.predictor.resume_propagation(self.state)
        else:
            steps = self.predictor.propagate_in_video(self.state, start_frame_idx=start)
        self._goes_on = False
        with closing(steps):
            with _upstream.no_progress_bar():  # there may be many passes
                first = next(steps, None)
            if first is not None:
                yield first[0], first[2]
                for frame_idx, _, mask_logits in steps:
                    yield frame_idx, mask_logits

    def _look(self, frame_idx: int, mask_logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Ask the detector, and bring objects and prompts up to date with what it has found.

        Returns:
            The frame's mask logits, and whether objects or prompts have changed.
        """
        staying = self._retire(frame_idx, mask_logits[:, 0] > 0)
        first_new = self._num_ever + 1
        num_before = len(mask_logits)
        mask_logits = mask_logits[staying]
        found = as_detections(self.detector(self._image(frame_idx)))
        found = self._usable(found)
        prompts = self._prompts(frame_idx, found, mask_logits[:, 0] > 0)
        # New objects come last and have no row yet.
        rows = dict(zip(self._objects, torch.split(mask_logits, 1), strict=False))
        for obj_id, box in prompts.items():
            _, ids, after = self.predictor.add_new_points_or_box(
                self.state, frame_idx, obj_id, box=box.astype(np.float32)
            )
            row = list(ids).index(obj_id)
            rows[obj_id] = after[row : row + 1]
        if prompts:
            mask_logits = torch.cat([rows[obj_id] for obj_id in self._objects])
        mask_logits = mask_logits[self._accept(frame_idx, mask_logits[:, 0] > 0, first_new)]
        return mask_logits, bool(prompts) or len(mask_logits) < num_before

    def _confirmed(self, frame_idx: int, mask_logits: torch.Tensor) -> LabelledStep:
        """What is yielded of a frame: the objects that were detected often enough."""
        least = self.options.min_hits
        shown = {i: one.label for i, one in self._objects.items() if one.hits >= least}
        if len(shown) < len(mask_logits):
            mask_logits = mask_logits[[obj_id in shown for obj_id in self._objects]]
        return frame_idx, list(shown), mask_logits, list(shown.values())

    def _prompts(
        self, frame_idx: int, found: Detections, masks: torch.Tensor
    ) -> dict[Any, npt.NDArray[np.float64]]:
        """The boxes to prompt with, by object; new objects are noted."""
        objects = list(self._objects)
        overlap = _ious(found.boxes, _boxes_around(masks))
        alike = np.zeros(overlap.shape, bool)
        for d, label in enumerate(found.labels):
            alike[d] = [label == self._objects[obj_id].label for obj_id in objects]
        of_masks, of_boxes = _shares_inside(masks, found.boxes)
        holds, is_part = (of_masks > MOSTLY) & alike, (of_boxes > MOSTLY) & alike
        pairs = linear_sum_assignment(overlap + 0.01 * alike, maximize=True)  # labels decide ties
        matched = {
            d: o for d, o in zip(*pairs, strict=True) if overlap[d, o] >= self.options.match_iou
        }
        prompts = {
            objects[o]: found.boxes[d]
            for d, o in matched.items()
            if overlap[d, o] < self.options.correct_iou and holds[d].sum() < 2
        }
        is_of = holds | is_part | ((overlap >= self.options.match_iou) & alike)
        for d, of_tracked in enumerate(is_of):
            owners = [matched[d]] if d in matched else of_tracked.nonzero()[0]
            if len(owners) == 1:  # it is clear whose it is, be it ever so loose or tight
                owner = self._objects[objects[owners[0]]]
                if owner.last_hit < frame_idx:
                    owner.hits, owner.last_hit = owner.hits + 1, frame_idx
        new: list[int] = []
        for d in np.argsort(-found.scores):
            same = [n for n in new if found.labels[n] == found.labels[d]]
            is_known = d in matched or is_of[d].any()
            is_twice = (_ious(found.boxes[[d]], found.boxes[same]) >= self.options.match_iou).any()
            if is_known or is_twice or len(self._objects) == self.options.max_objects:
                continue
            new.append(d)
            self._num_ever += 1
            label = _plain(found.labels[d]) if self._can_be_saved else found.labels[d]
            self._objects[self._num_ever] = _Object(label, frame_idx, 1, frame_idx)
            prompts[self._num_ever] = found.boxes[d]
        return prompts

    def _retire(self, frame_idx: int, masks: torch.Tensor) -> list[int]:
        """Note which objects are seen, and let go of those long gone and those tracked twice.

        Returns:
            The rows of the objects that stay.
        """
        objects = list(self._objects)
        is_seen = masks.flatten(1).any(1).tolist()
        gone = set()
        for row, obj_id in enumerate(objects):
            known = self._objects[obj_id]
            if is_seen[row]:
                if known.empty_since is not None:
                    known.seen_since, known.empty_since = frame_idx, None
            elif known.empty_since is None:
                known.empty_since = frame_idx
            elif frame_idx - known.empty_since >= self.options.retire_after:
                gone.add(row)
        for one, other in _same(masks):
            # One that is not confirmed goes, or the one that has come to where the other was.
            gone.add(max(one, other, key=lambda r: (*self._age(objects[r]), r)))
        return self._let_go(gone)

    def _age(self, obj_id: Any) -> tuple[bool, int]:
        """Larger for an object whose claim to a mask is weaker."""
        known = self._objects[obj_id]
        return known.hits < self.options.min_hits, known.seen_since

    def _accept(self, frame_idx: int, masks: torch.Tensor, first_new: int) -> list[int]:
        """Let go of new objects that turn out to be known ones, or nothing, or that were missed.

        Returns:
            The rows of the objects that stay.
        """
        gone = {
            row
            for row, known in enumerate(self._objects.values())
            if known.hits < self.options.min_hits and known.last_hit < frame_idx
        }
        if first_new in self._objects:  # new ones come last
            num_old = list(self._objects).index(first_new)
            is_seen = masks[num_old:].flatten(1).any(1).tolist()
            gone |= {num_old + row for row, seen in enumerate(is_seen) if not seen}
            gone |= {other for _, other in _same(masks) if other >= num_old}
        return self._let_go(gone)

    def _let_go(self, rows: set[int]) -> list[int]:
        """Track some objects no longer; returns the rows of the others."""
        objects = list(self._objects)
        for row in rows:
            del self._objects[objects[row]]
            self.predictor.remove_object(self.state, objects[row], need_output=False)
        return [row for row in range(len(objects)) if row not in rows]

    def _image(self, frame_idx: int) -> Frame:
        if isinstance(self.source, LiveVideo):
            return self.source.frame
        if self._last_image[0] != frame_idx:
            (image,) = self.source.read(frame_idx, frame_idx + 1)
            self._last_image = frame_idx, image
        return self._last_image[1]

    def _usable(self, found: Detections) -> Detections:
        """Those of enough score, cut to the frame."""
        height, width = self.source.frame_size
        boxes = found.boxes.clip(0, [width, height, width, height])
        usable = (found.scores >= self.options.min_score) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        labels = [label for label, is_usable in zip(found.labels, usable, strict=True) if is_usable]
        return Detections(boxes[usable], found.scores[usable], labels)


def _plain(label: Any) -> Any:
    """A label as a save holds it."""
    if isinstance(label, np.generic):
        label = label.item()
    if type(label) not in (str, int, float, bool, type(None)):
        raise ValueError(
            f"The label {label!r} is of type {type(label).__name__}; with save_every labels must "
            "be strings, numbers or None."
        )
    return label


def _boxes_around(masks: torch.Tensor) -> Boxes:
    """Boxes around masks (n x height x width, bool); an empty mask has an empty one."""
    boxes = np.zeros((len(masks), 4))
    for row, sides in enumerate(zip(masks.any(1).cpu(), masks.any(2).cpu(), strict=True)):
        for axis, side in enumerate(sides):
            (inside,) = side.numpy().nonzero()
            if len(inside):
                boxes[row, [axis, axis + 2]] = inside[0], inside[-1] + 1
    return boxes


def _ious(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """IoU of each box with each other one."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = (high - low).clip(0).prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    ious: npt.NDArray[np.float64] = both / np.maximum(areas[:, None] + other_areas - both, 1e-9)
    return ious


def _shares_inside(
    masks: torch.Tensor, boxes: Boxes
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Which share of each mask lies inside each box, and which of each box is on each mask.

    Both are boxes x masks; 0 for an empty mask.
    """
    of_masks, of_boxes = (np.zeros((len(boxes), len(masks))) for _ in range(2))
    areas = masks.sum((1, 2)).clamp(min=1).cpu().numpy()
    for d, (x0, y0, x1, y1) in enumerate(boxes.round().astype(int)):
        inside = masks[:, y0:y1, x0:x1].sum((1, 2)).cpu().numpy()
        of_masks[d], of_boxes[d] = inside / areas, inside / max(1, (x1 - x0) * (y1 - y0))
    return of_masks, of_boxes


def _same(masks: torch.Tensor) -> list[tuple[int, int]]:
    """Pairs of masks that are nearly the same."""
    boxes = _boxes_around(masks)
    near = np.argwhere(np.triu(_ious(boxes, boxes) > MOSTLY, 1))
    return [
        (int(a), int(b))
        for a, b in near
        if (masks[a] & masks[b]).sum() > SAME_MASK * (masks[a] | masks[b]).sum()
    ]
