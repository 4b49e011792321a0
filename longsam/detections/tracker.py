"""A run: frames are tracked, and the detector is asked on every few of them."""

import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longsam import _upstream, memory, saving
from longsam.detections.boxes import Boxes
from longsam.detections.detections import Detections, Detector, as_detections, usable
from longsam.detections.matching import match
from longsam.detections.objects import KnownObjects
from longsam.detections.options import Options
from longsam.frames import EndOfStreamError, EndOfVideoError, FrameSource, LiveVideo
from longsam.predictor import LongVideoPredictor

LabelledStep = tuple[int, list[Any], torch.Tensor, list[Any]]
"""Frame index, object ids, mask logits (num_objects x 1 x height x width), labels."""


@dataclass
class Tracker:
    """A run of `track_detections`; `source` gives frames in their own size."""

    predictor: LongVideoPredictor
    state: _upstream.State
    detector: Detector
    source: FrameSource
    options: Options

    def __post_init__(self) -> None:
        # Objects of a memory bank are known from the start.
        self.objects = KnownObjects(self.state["obj_ids"], self.options)
        self._next_frame = 0
        self._resumes_pass = False
        self._can_be_saved = False
        self._last_image: tuple[int, npt.NDArray[np.uint8]] = -1, np.empty((0, 0, 3), np.uint8)

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the saved run."""
        self.objects.from_plain(saved)
        self._next_frame = int(saved["next_frame"])
        self._resumes_pass = bool(saved["resumes_pass"])
        self._can_be_saved = True  # the caller has the state

    def saved_run(
        self,
        save_every: int | timedelta | None,
        save_path: Any,
        before_save: Callable[[], object] | None,
    ) -> Generator[LabelledStep, None, None]:
        """`run`, with the state saved now and then."""
        self._can_be_saved |= save_every is not None
        return saving.saved(
            self.predictor, self.state, self.run(), save_every, save_path, before_save
        )

    def run(self) -> Generator[LabelledStep, None, None]:
        """All frames, in passes from one change of objects or prompts to the next."""
        try:
            while self._next_frame < self.source.num_frames:
                with closing(self._pass()) as steps:
                    for frame_idx, _, mask_logits in steps:
                        self._next_frame, is_changed = frame_idx + 1, False
                        if frame_idx % self.options.every == 0:
                            mask_logits, is_changed = self._detect(frame_idx, mask_logits)
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

    def _note(self, *, is_changed: bool) -> None:
        """Put what a save must hold besides the predictor's state where it is saved."""
        self.state[memory.KEY].detections = {
            "options": asdict(self.options),
            **self.objects.to_plain(),
            "next_frame": self._next_frame,
            "resumes_pass": len(self.objects) > 0 and not is_changed,
        }

    def _pass(self) -> Generator[tuple[int, list[Any], torch.Tensor], None, None]:
        """Frames from the next one on, tracked if there is anything to track."""
        if not len(self.objects):
            return self._empty_pass()
        if self._resumes_pass:
            self._resumes_pass = False
            return _without_bar(self.predictor.resume_propagation(self.state))
        return _without_bar(
            self.predictor.propagate_in_video(self.state, start_frame_idx=self._next_frame)
        )

    def _empty_pass(self) -> Generator[tuple[int, list[Any], torch.Tensor], None, None]:
        """Frames while there are no objects."""
        height, width = self.source.frame_size
        nothing = torch.zeros((0, 1, height, width), device=self.predictor.device)
        for frame_idx in range(self._next_frame, self.source.num_frames):
            if not isinstance(self.source, LiveVideo):
                self._image(frame_idx)  # is there such a frame?
            elif frame_idx > 0:
                self.predictor.advance(self.state)
            yield frame_idx, [], nothing

    def _detect(self, frame_idx: int, mask_logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Ask the detector, and bring objects and prompts up to date with what it has found.

        Returns:
            The frame's mask logits, and whether objects or prompts have changed.
        """
        num_before = len(mask_logits)
        mask_logits = self._let_go(
            self.objects.retired(frame_idx, mask_logits[:, 0] > 0), mask_logits
        )
        num_old = len(mask_logits)
        found = as_detections(self.detector(self._image(frame_idx)))
        found = usable(found, self.source.frame_size, self.options.min_score)
        prompts = self._prompts(frame_idx, found, mask_logits[:, 0] > 0)
        if prompts:
            mask_logits = self._prompted(frame_idx, prompts, mask_logits)
        refused = self.objects.refused(frame_idx, mask_logits[:, 0] > 0, num_old)
        mask_logits = self._let_go(refused, mask_logits)
        return mask_logits, bool(prompts) or len(mask_logits) < num_before

    def _prompts(
        self, frame_idx: int, found: Detections, masks: torch.Tensor
    ) -> dict[Any, npt.NDArray[np.float64]]:
        """Note who was detected, and who is new; returns the boxes to prompt with, by object."""
        matches = match(found, masks, self.objects.labels, self.options)
        self.objects.note_hits(matches.confirmed, frame_idx)
        ids = self.objects.ids
        prompts = {ids[row]: found.boxes[d] for row, d in matches.corrections.items()}
        for d in matches.new[: self.objects.num_free]:
            label = _plain(found.labels[d]) if self._can_be_saved else found.labels[d]
            prompts[self.objects.add(label, frame_idx)] = found.boxes[d]
        return prompts

    def _prompted(
        self, frame_idx: int, prompts: dict[Any, Boxes], mask_logits: torch.Tensor
    ) -> torch.Tensor:
        """Give the prompts; returns the mask logits with those of the prompted objects."""
        # New objects come last and have no row yet.
        rows = dict(zip(self.objects.ids, torch.split(mask_logits, 1), strict=False))
        for obj_id, box in prompts.items():
            _, ids, after = self.predictor.add_new_points_or_box(
                self.state, frame_idx, obj_id, box=box.astype(np.float32)
            )
            row = list(ids).index(obj_id)
            rows[obj_id] = after[row : row + 1]
        return torch.cat([rows[obj_id] for obj_id in self.objects.ids])

    def _let_go(self, rows: Iterable[int], mask_logits: torch.Tensor) -> torch.Tensor:
        """Track some objects no longer; returns the mask logits of the others."""
        ids, gone = self.objects.ids, set(rows)
        for row in gone:
            del self.objects.by_id[ids[row]]
            self.predictor.remove_object(self.state, ids[row], need_output=False)
        return mask_logits[[row for row in range(len(ids)) if row not in gone]]

    def _confirmed(self, frame_idx: int, mask_logits: torch.Tensor) -> LabelledStep:
        """What is yielded of a frame: the objects that were detected often enough."""
        shown = self.objects.confirmed
        if len(shown) < len(mask_logits):
            mask_logits = mask_logits[[obj_id in shown for obj_id in self.objects.ids]]
        return frame_idx, list(shown), mask_logits, list(shown.values())

    def _image(self, frame_idx: int) -> npt.NDArray[np.uint8]:
        if isinstance(self.source, LiveVideo):
            return self.source.frame
        if self._last_image[0] != frame_idx:
            (image,) = self.source.read(frame_idx, frame_idx + 1)
            self._last_image = frame_idx, image
        return self._last_image[1]


def _without_bar(steps: Generator[Any, None, None]) -> Generator[Any, None, None]:
    with closing(steps):
        with _upstream.no_progress_bar():  # there may be many passes
            first = next(steps, None)
        if first is not None:
            yield first
            yield from steps


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
