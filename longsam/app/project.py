"""A project: its state, its masks, and how each operation of its log is done.

`run.py` has what a user asks for, which is checked and written to the log before it is done here;
`replay.py` does again what the last save does not have. All of it happens in one thread.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longsam import Autosave, LongVideoPredictor, Snapshots, State
from longsam.app import edits as prompting
from longsam.app.edits import Answer, Edit, ObjectId
from longsam.app.folder import Folder
from longsam.app.log import Log, Operation
from longsam.app.tracked import Tracked
from longsam.cli import record as records
from longsam.cli import results
from longsam.cli.correct import SAVE_EVERY
from longsam.cli.record import Record
from longsam.cli.track import SNAPSHOT_BYTES
from longsam.masks import MaskWriter

SNAPSHOTS_EVERY = 300
"""Frames; going back tracks at most this many again, plus `reach`."""

Prompts = dict[tuple[ObjectId, int], list[Edit]]
Passes = list[list[Any]]
"""Each [the next frame, the last frame, whether in reverse]."""


@dataclass
class Correction:
    """A frame that is corrected, while the masks before are kept.

    Args:
        frame: The frame.
        last: The last frame that will be tracked again.
        reverse: Whether that goes towards frame 0.
        at: The last one that was tracked again; None before the first.
        prompts_before: All prompts before it.
        left_before: The passes that were not finished before it.
    """

    frame: int
    last: int
    reverse: bool
    prompts_before: Prompts
    left_before: Passes
    at: int | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First and last frame whose masks are replaced."""
        return (self.last, self.frame) if self.reverse else (self.frame, self.last)


@dataclass
class Project:
    """What a folder holds, opened.

    Args:
        predictor: The predictor.
        folder: Of the project.
        record: How it is computed; what is in the folder comes before it.
        tell: Called when something takes long, with words for it, and with None when it is over.
        warn: Called with what the user should know.
    """

    predictor: LongVideoPredictor
    folder: Folder
    record: Record
    tell: Callable[[str | None], object]
    warn: Callable[[str], object]
    prompts: Prompts = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    left: Passes = field(default_factory=list)
    correction: Correction | None = None
    is_running: bool = False
    num_done: int = 0
    is_rewinding: bool = False
    needs_save: bool = False
    colors: dict[ObjectId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._steps: Generator[Any, None, None] | None = None
        self._writer: MaskWriter | None = None
        self.directions: set[bool] = set()
        self._new_masks: Tracked | None = None
        self._corrected: tuple[int, Any, Any] | None = None
        self.logs_answers = True
        self.log = Log(self.folder.path)
        self.record = records.read(self.folder.path) or self.record
        if self.record.everything is not None or self.record.frames is not None:
            raise ValueError(
                f"{self.folder.path} holds a run of --everything, or of a part of the frames, "
                "which the page cannot continue; give another folder with --out."
            )
        self.state: State
        self.tracked: Tracked

    def close(self) -> None:
        """Save, and release everything."""
        self.pause()
        self.save_if_needed()
        self.state.close()
        self.log.close()

    # What is there ----------------------------------------------------------------------------

    @property
    def num_frames(self) -> int:
        """Of the video."""
        return self.state.source.num_frames

    def objects(self) -> list[ObjectId]:
        """All objects, also those that were removed and have masks, in order of appearance."""
        there = dict.fromkeys(obj_id for obj_id, _ in self.prompts)
        known = [*self.state.obj_ids, *there, *self.tracked.obj_ids]
        for obj_id in known:
            self.colors.setdefault(obj_id, len(self.colors))
        return sorted(set(known), key=lambda obj_id: self.colors[obj_id])

    def masks(self, frame_idx: int) -> tuple[str, Answer]:
        """The masks of a frame, and where they come from; see the page's protocol."""
        if self.correction is not None and self._new_masks is not None:
            if frame_idx == self.correction.frame and frame_idx in self.answers:
                return "prompted", self.answers[frame_idx]
            if frame_idx in self._new_masks:
                return "tracked", self._new_masks.masks(frame_idx)
            first, last = self.correction.span
            if first <= frame_idx <= last and frame_idx in self.tracked:
                return "before", self.tracked.masks(frame_idx)
        if frame_idx in self.tracked:
            return "tracked", self.tracked.masks(frame_idx)
        if frame_idx in self.answers:
            return "prompted", self.answers[frame_idx]
        return "none", []

    def refresh(self) -> list[int]:
        """Take up the masks that have been written since; gives their frames."""
        if self.correction is not None and self._new_masks is not None:
            return self._new_masks.refresh()
        return self.tracked.refresh()

    # Prompts and objects ----------------------------------------------------------------------

    def apply(self, operation: Operation) -> None:
        """Do what the log says was done."""
        name = operation["op"]
        try:
            if name == "prompts":
                self.apply_prompts(operation["object"], operation["frame"], operation["edits"])
            elif name == "remove":
                self.apply_remove(operation["object"])
            elif name == "track":
                self.apply_track(operation["passes"])
            elif name == "correct":
                self.open_correction(operation["frame"])
            elif name == "keep":
                self.apply_keep()
            elif name == "drop":
                self.apply_drop()
        except ValueError as error:  # it was refused then, too
            self.warn(f"the log has an operation that is refused ({error})")

    def apply_prompts(self, obj_id: ObjectId, frame_idx: int, edits: list[Edit]) -> None:
        before = self.prompts.get((obj_id, frame_idx), [])
        obj_ids, logits = prompting.apply(
            self.predictor, self.state, obj_id, frame_idx, before, edits
        )
        if edits:
            self.prompts[obj_id, frame_idx] = edits
        else:
            self.prompts.pop((obj_id, frame_idx), None)
            if not any(name == obj_id for name, _ in self.prompts):
                self.apply_remove(obj_id)
        own = {name for name, frame in self.prompts if frame == frame_idx}
        if not own:
            self.answers.pop(frame_idx, None)
            self._corrected = None
        else:
            shown = obj_ids if self.correction is not None else own
            answer = prompting.answer(self.predictor, self.state, frame_idx, obj_ids, logits, shown)
            self._corrected = (frame_idx, obj_ids, logits)
            self.answers[frame_idx] = answer
            if self.logs_answers:
                self.log.append({"op": "answer", "frame": frame_idx, "objects": answer})
        self.objects()  # gives colours
        self.needs_save = self.needs_save or bool(self.tracked.obj_ids)

    def apply_remove(self, obj_id: ObjectId) -> None:
        self.predictor.remove_object(self.state, obj_id, need_output=False)
        for key in [key for key in self.prompts if key[0] == obj_id]:
            del self.prompts[key]
        for frame_idx, answer in list(self.answers.items()):
            self.answers[frame_idx] = [one for one in answer if one["id"] != obj_id]

    # Passes -----------------------------------------------------------------------------------

    def apply_track(self, passes: Passes) -> None:
        self._write_answer()
        self.left = [list(one) for one in passes]
        self.directions |= {bool(one[2]) for one in passes}
        self.num_done, self.is_running, self.needs_save = 0, True, True
        self._note_record(is_finished=False)
        self._open_pass()

    def _open_pass(self) -> None:
        """Start the first pass that is left."""
        while self.left and is_over(self.left[0]):
            self.left.pop(0)
        if not self.left:
            self.is_running = False
            return
        begin, last, reverse = self.left[0]
        before = begin + (1 if reverse else -1)
        is_tracked = before in self.tracked or (
            self._new_masks is not None and before in self._new_masks
        )
        if is_tracked and before != self.state.last_frame_idx:
            self._rewind(before)
        if self._writer is None:
            self._writer = self.folder.writer(correcting=self.correction is not None)
        self._steps = self.predictor.propagate_in_video(
            self.state,
            begin,
            abs(last - begin),
            reverse,
            autosave=Autosave(
                self.folder.save_in(correcting=self.correction is not None),
                every=SAVE_EVERY,
                before_save=self._before_save,
            ),
            progress_bar=False,
        )

    def track_frame(self) -> int | None:
        """Track one frame of the passes that run; None once they are over.

        A correction stays open.
        """
        if not self.is_running:
            return None
        if self._steps is None:
            self._open_pass()
        while self._steps is not None:
            step = next(self._steps, None)
            if step is not None:
                frame_idx, obj_ids, logits = step
                self._write(frame_idx, obj_ids, logits)
                self.left[0][0] = frame_idx + (-1 if self.left[0][2] else 1)
                self.num_done += 1
                if self.correction is not None:
                    self.correction.at = frame_idx
                return int(frame_idx)
            self._steps = None
            self.left.pop(0)
            self._open_pass()
        self.end_pass()
        if self.correction is None:
            self._note_record(is_finished=True)
        return None

    def pause(self) -> None:
        """Stop the pass that runs; it is left to be continued."""
        if not self.is_running:
            return
        self.end_pass()
        self.log.append({"op": "stop", "done": self.num_done})
        self.needs_save = True

    def end_pass(self) -> None:
        """Stop tracking, with everything on disk."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        self._close_writer()
        self.is_running = False

    def _write(self, frame_idx: int, obj_ids: Any, logits: Any) -> None:
        if self._writer is None:
            self._writer = self.folder.writer(correcting=self.correction is not None)
        scores = None
        with suppress(ValueError):
            scores = self.predictor.scores(self.state, frame_idx)
        self._writer.write(
            frame_idx, obj_ids, logits, scores=scores, time=self.state.source.time(frame_idx)
        )

    def _write_answer(self) -> None:
        """The masks of the corrected frame are those that its prompts gave."""
        if self.correction is None or self.correction.at is not None or self._corrected is None:
            return
        if self._corrected[0] == self.correction.frame:
            self._write(*self._corrected)
            self.correction.at = self.correction.frame

    def _close_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.flush()
            writer.close()

    def _rewind(self, frame_idx: int) -> None:
        self.is_rewinding = True
        self.tell(f"going back to frame {frame_idx}")
        try:
            self.predictor.rewind(self.state, frame_idx)
        finally:
            self.is_rewinding = False
            self.tell(None)

    # Corrections ------------------------------------------------------------------------------

    def open_correction(self, frame_idx: int) -> None:
        left = [list(one) for one in self.left]
        self.folder.begin_correction()
        self.load(correcting=True, save=self.folder.save_in(correcting=False))
        self.note_correction(frame_idx, left)
        self._rewind(frame_idx)

    def note_correction(self, frame_idx: int, left: Passes) -> None:
        reverse = self.tracked.is_reverse(frame_idx)
        last = self.tracked.end_of_span(frame_idx, reverse=reverse)
        prompts = {key: list(edits) for key, edits in self.prompts.items()}
        self.correction = Correction(frame_idx, last, reverse, prompts, left)
        self._new_masks = Tracked(self.folder.new_masks, self.num_frames)
        self.left, self._corrected = [], None

    def continue_correction(self) -> None:
        """Take up the masks of a correction that a crash has interrupted."""
        assert self.correction is not None
        assert self._new_masks is not None
        frames = self._new_masks.refresh()
        self.correction.at = frames[-1] if frames else None

    def apply_keep(self) -> None:
        assert self.correction is not None
        assert self._new_masks is not None
        correction = self.correction
        self.tell("keeping the new masks")
        self._close_writer()
        self._new_masks.refresh()
        if not any(self._new_masks.spans()):  # nothing is new
            self.apply_drop()
            return
        self.left = correction.left_before
        self.save()
        self.state.close()
        self.folder.keep_correction(self._record(is_finished=not self.left))
        self.correction = self._new_masks = None
        self.answers.pop(correction.frame, None)
        self.load(correcting=False)
        self.read_tracked()
        self.tell(None)

    def apply_drop(self) -> None:
        correction, self.correction, self._new_masks = self.correction, None, None
        self._close_writer()
        self.state.close()
        self.folder.drop_correction()
        self.load(correcting=False)
        if correction is not None:
            self.left = correction.left_before
            self.answers.pop(correction.frame, None)
            self.prompts = correction.prompts_before
        self._corrected = None
        self.tell(None)

    # Saves ------------------------------------------------------------------------------------

    def save_if_needed(self) -> None:
        """Save the state, if what was done since would have to be done again."""
        is_answered = self.correction is not None and self.correction.at is None  # is not in a save
        if self.needs_save and not self.is_running and not is_answered:
            self.save()

    def save(self) -> None:
        self.tell("saving")
        self._before_save()
        self.predictor.save_state(
            self.state, self.folder.save_in(correcting=self.correction is not None)
        )
        self.needs_save = False
        self.tell(None)

    def _before_save(self) -> None:
        if self._writer is not None:
            self._writer.flush()
        self.state.extras["app"] = {
            "log": len(self.log),
            "left": [list(one) for one in self.left if not is_over(one)],
            "done": self.num_done,
            "directions": sorted(self.directions),
            "before": [] if self.correction is None else self.correction.left_before,
        }

    def _note_record(self, *, is_finished: bool) -> None:
        if self.correction is None:
            self.record = self._record(is_finished=is_finished)
            self.record.write(self.folder.path)

    def _record(self, *, is_finished: bool) -> Record:
        prompts = [(obj_id, frame, edits) for (obj_id, frame), edits in self.prompts.items()]
        return self.folder.note(
            self.record, prompts, directions=self.directions, is_finished=is_finished
        )

    def load(self, *, correcting: bool, save: Path | None = None) -> dict[str, Any] | None:
        """Open the state from its save; gives what was noted in it."""
        if hasattr(self, "state"):
            self.state.close()
        save = save or self.folder.save_in(correcting=correcting)
        if not save.exists():
            self.state = self.predictor.init_state(
                self.folder.video,
                corrections="condition",
                batch_objects=self.record.batch_objects,
                memory_window=self.record.memory_window,
                snapshots=Snapshots(
                    SNAPSHOTS_EVERY,
                    folder=self.folder.snapshots(correcting=False),
                    max_bytes=SNAPSHOT_BYTES,
                ),
            )
            return None
        snapshots = self.folder.snapshots(correcting=correcting)
        results.check_snapshots(snapshots.parent)
        self.state = self.predictor.load_state(save, self.folder.video, snapshots=snapshots)
        noted = self.state.extras.get("app")
        return noted if isinstance(noted, dict) else {}

    def read_tracked(self) -> None:
        self.tracked = Tracked(self.folder.path, self.num_frames)
        self.tracked.refresh()


def is_over(one: list[Any]) -> bool:
    begin, last, reverse = one
    return bool(begin < last if reverse else begin > last)
