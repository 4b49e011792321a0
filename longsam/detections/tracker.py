"""A run: frames are tracked, and the detector runs on every few of them."""

import warnings
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from longsam import LiveVideo, LongVideoPredictor, State
from longsam.detections.detections import Detections, Detector, as_detections, usable
from longsam.detections.matching import match
from longsam.detections.objects import KnownObjects
from longsam.detections.options import Options
from longsam.frames import EndOfStreamError, EndOfVideoError, Frame, FrameSource

EXTRAS = "detections"
"""The key of a run's own data in a state's extras."""

Step = tuple[int, list[Any], torch.Tensor]
"""Frame index, object ids, mask logits (num_objects x 1 x height x width)."""

LabelledStep = tuple[int, list[Any], torch.Tensor, list[Any]]
"""The same, and a label for each object."""


class Saves(Protocol):
    """The autosave of a run, from `predictor.begin_autosave`."""

    def step_done(self) -> None: ...

    def finish(self) -> None: ...


@dataclass
class Tracker:
    """A run of `track_detections`.

    Args:
        predictor: What tracks.
        state: The state that it tracks in.
        source: The video again, in the frames' own size; the state's source if it is live.
        detector: Runs on every few frames.
        options: The run's options.
        is_saved: Whether the state may be saved, so that labels must be plain.
        owns_state: Whether the state is closed at the end of the run.
    """

    predictor: LongVideoPredictor
    state: State
    source: FrameSource
    detector: Detector
    options: Options
    is_saved: bool
    owns_state: bool

    def __post_init__(self) -> None:
        # Objects of a memory bank are known from the start.
        self.objects = KnownObjects(self.state.obj_ids, self.options)
        self._next_frame_idx = 0
        self._resumes_pass = False
        self._last_image: tuple[int, Frame] = -1, np.empty((0, 0, 3), np.uint8)

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore what a save holds."""
        self.objects.restore(saved)
        self._next_frame_idx = int(saved["next_frame_idx"])
        self._resumes_pass = bool(saved["resumes_pass"])

    def run(self, saves: Saves | None) -> Generator[LabelledStep, None, None]:
        """All frames, in passes from one change of objects or prompts to the next."""
        with ExitStack() as at_end:
            at_end.callback(self._close)
            try:
                while self._next_frame_idx < self.source.num_frames:
                    with closing(self._pass()) as steps:
                        for frame_idx, _, tracked in steps:
                            mask_logits, is_changed = self._step(frame_idx, tracked)
                            yield self._confirmed(frame_idx, mask_logits)
                            if saves:
                                saves.step_done()
                            if is_changed:
                                break
                        else:
                            break
            except EndOfStreamError:
                pass
            except EndOfVideoError as end:
                warnings.warn(f"{end} Tracking ends there.", stacklevel=2)
            if saves:
                saves.finish()

    def _close(self) -> None:
        if not isinstance(self.source, LiveVideo):
            self.source.close()
        if self.owns_state:
            self.predictor.close(self.state)

    def _note(self, *, is_changed: bool) -> None:
        """Put what a save must hold besides the predictor's state into the state's extras."""
        self.state.extras["last_frame_idx"] = self._next_frame_idx - 1
        self.state.extras[EXTRAS] = {
            "options": asdict(self.options),
            **self.objects.to_plain(),
            "next_frame_idx": self._next_frame_idx,
            "resumes_pass": len(self.objects) > 0 and not is_changed,
        }

    def _pass(self) -> Generator[Step, None, None]:
        """Frames from the next one on, tracked if there are objects."""
        if not len(self.objects):
            return self._empty_pass()
        if self._resumes_pass:
            self._resumes_pass = False
            return self.predictor.resume_propagation(self.state, progress_bar=False)
        return self.predictor.propagate_in_video(
            self.state, start_frame_idx=self._next_frame_idx, progress_bar=False
        )

    def _empty_pass(self) -> Generator[Step, None, None]:
        """Frames while there are no objects."""
        height, width = self.source.frame_size
        nothing = torch.zeros((0, 1, height, width), device=self.predictor.device)
        for frame_idx in range(self._next_frame_idx, self.source.num_frames):
            if not isinstance(self.source, LiveVideo):
                self._image(frame_idx)  # is there such a frame?
            elif frame_idx > 0:
                self.predictor.advance(self.state)
            yield frame_idx, [], nothing

    def _step(self, frame_idx: int, mask_logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Run the detector on a tracked frame if it is time, and note what a save must hold.

        Returns:
            The frame's mask logits, and whether objects or prompts have changed.
        """
        self._next_frame_idx, is_changed = frame_idx + 1, False
        if frame_idx % self.options.detect_every == 0:
            mask_logits, is_changed = self._detect(frame_idx, mask_logits)
        if self.is_saved:
            self._note(is_changed=is_changed)
        return mask_logits, is_changed

    def _detect(self, frame_idx: int, mask_logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Run the detector, and update objects and prompts with what it found."""
        num_before = len(mask_logits)
        retired = self.objects.retired(frame_idx, mask_logits[:, 0] > 0)
        mask_logits = self._let_go(retired, mask_logits)
        num_old = len(mask_logits)
        found = as_detections(self.detector(self._image(frame_idx)))
        found = usable(found, self.source.frame_size, self.options.min_score)
        prompts = self._prompts(frame_idx, found, mask_logits[:, 0] > 0)
        if prompts:
            mask_logits = self._prompted(frame_idx, found, prompts, mask_logits)
        refused = self.objects.refused(frame_idx, mask_logits[:, 0] > 0, num_old)
        mask_logits = self._let_go(refused, mask_logits)
        return mask_logits, bool(prompts) or len(mask_logits) < num_before

    def _prompts(self, frame_idx: int, found: Detections, masks: torch.Tensor) -> dict[Any, int]:
        """Note detected and new objects; returns which to prompt with which detection."""
        matches = match(found, masks, self.objects.labels, self.options)
        self.objects.note_hits(matches.confirmed, frame_idx)
        ids = self.objects.ids
        prompts = {ids[row]: d for row, d in matches.corrections.items()}
        for d in matches.new[: self.objects.num_free]:
            label = _plain(found.labels[d]) if self.is_saved else found.labels[d]
            prompts[self.objects.add(label, frame_idx)] = d
        return prompts

    def _prompted(
        self,
        frame_idx: int,
        found: Detections,
        prompts: dict[Any, int],
        mask_logits: torch.Tensor,
    ) -> torch.Tensor:
        """Give the prompts; returns the mask logits, updated for the prompted objects."""
        # New objects come last and have no row yet.
        rows = dict(zip(self.objects.ids, torch.split(mask_logits, 1), strict=False))
        for obj_id, d in prompts.items():
            if found.masks is not None:
                _, ids, after = self.predictor.add_new_mask(
                    self.state, frame_idx, obj_id, found.masks[d]
                )
            else:
                _, ids, after = self.predictor.add_new_points_or_box(
                    self.state, frame_idx, obj_id, box=found.boxes[d].astype(np.float32)
                )
            row = list(ids).index(obj_id)
            rows[obj_id] = after[row : row + 1]
        return torch.cat([rows[obj_id] for obj_id in self.objects.ids])

    def _let_go(self, gone: set[int], mask_logits: torch.Tensor) -> torch.Tensor:
        """Stop tracking some objects; returns the mask logits of the others."""
        ids = self.objects.ids
        for row in sorted(gone):
            del self.objects.by_id[ids[row]]
            self.predictor.remove_object(self.state, ids[row], need_output=False)
        return mask_logits[[row for row in range(len(ids)) if row not in gone]]

    def _confirmed(self, frame_idx: int, mask_logits: torch.Tensor) -> LabelledStep:
        """What is yielded of a frame: the objects that were detected often enough."""
        shown = self.objects.confirmed
        if len(shown) < len(mask_logits):
            mask_logits = mask_logits[[obj_id in shown for obj_id in self.objects.ids]]
        return frame_idx, list(shown), mask_logits, list(shown.values())

    def _image(self, frame_idx: int) -> Frame:
        if isinstance(self.source, LiveVideo):
            return self.source.frame
        if self._last_image[0] != frame_idx:
            (image,) = self.source.read(frame_idx, frame_idx + 1)
            self._last_image = frame_idx, image
        return self._last_image[1]


def _plain(label: Any) -> Any:
    """A label as a save holds it."""
    if isinstance(label, np.generic):
        label = label.item()
    if type(label) not in (str, int, float, bool, type(None)):
        raise ValueError(
            f"The label {label!r} is of type {type(label).__name__}; with autosave labels must "
            "be strings, numbers or None."
        )
    return label
