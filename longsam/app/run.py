"""One project: what was prompted, what was tracked, and what is being corrected.

All of it happens in one thread; `session.py` has it. Whatever is asked for is in the log first, so
that a project that is opened after a crash does again what the last save does not have.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from longsam import Autosave, LongVideoPredictor, Snapshots, State
from longsam.app import edits as prompting
from longsam.app.edits import Answer, Edit, ObjectId
from longsam.app.folder import Folder
from longsam.app.log import Log, Operation
from longsam.app.tracked import Tracked
from longsam.cli import record as records
from longsam.cli.record import Record
from longsam.masks import MaskWriter

SAVE_EVERY = timedelta(minutes=2)

SNAPSHOTS_EVERY = 300
"""Frames; going back tracks up to so many again, plus `reach`."""

SNAPSHOT_BYTES = 2 << 30

Prompts = dict[tuple[ObjectId, int], list[Edit]]
Passes = list[list[Any]]
"""Each [the next frame, the last frame, whether in reverse]."""


class ConflictError(ValueError):
    """What is asked for cannot be done now."""


@dataclass
class Mend:
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
class Run:
    """See above.

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
    mend: Mend | None = None
    is_running: bool = False
    num_done: int = 0
    is_rewinding: bool = False
    needs_save: bool = False
    colors: dict[ObjectId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._steps: Generator[Any, None, None] | None = None
        self._writer: MaskWriter | None = None
        self.directions: set[bool] = set()
        self._mended: Tracked | None = None
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
        self._open()

    def close(self) -> None:
        """Save, and release everything."""
        self.pause()
        self.save_if_needed()
        self.state.close()
        self.log.close()

    # What is there ------------------------------------------------------------------------------

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
        if self.mend is not None and self._mended is not None:
            if frame_idx == self.mend.frame and frame_idx in self.answers:
                return "prompted", self.answers[frame_idx]
            if frame_idx in self._mended:
                return "tracked", self._mended.masks(frame_idx)
            first, last = self.mend.span
            if first <= frame_idx <= last and frame_idx in self.tracked:
                return "before", self.tracked.masks(frame_idx)
        if frame_idx in self.tracked:
            return "tracked", self.tracked.masks(frame_idx)
        if frame_idx in self.answers:
            return "prompted", self.answers[frame_idx]
        return "none", []

    def refresh(self) -> list[int]:
        """Take up the masks that have been written since; gives their frames."""
        if self.mend is not None and self._mended is not None:
            return self._mended.refresh()
        return self.tracked.refresh()

    # What the page asks for ---------------------------------------------------------------------

    def prompt(self, obj_id: ObjectId, frame_idx: int, edits: list[Edit]) -> tuple[str, Answer]:
        """Make these all edits of an object on a frame.

        Raises:
            ValueError: They cannot be.
            ConflictError: Another frame is being corrected.
        """
        self._check_frame(frame_idx)
        prompting.check(edits, self.state.source.frame_size)
        before = self.prompts.get((obj_id, frame_idx), [])
        if edits == before:
            return self.masks(frame_idx)
        if not edits:
            self._check_can_clear(obj_id, frame_idx)
        self.pause()
        if self.mend is not None and frame_idx != self.mend.frame:
            first, last = self.mend.span
            if first <= frame_idx <= last or frame_idx in self.tracked:
                raise ConflictError(
                    f"frame {self.mend.frame} is being corrected. Track on from there, or drop the "
                    "correction, before another frame that was tracked is prompted."
                )
        elif self.mend is None and frame_idx in self.tracked:
            self.begin_mend(frame_idx)
        self.log.append({"op": "prompts", "object": obj_id, "frame": frame_idx, "edits": edits})
        self.apply_prompts(obj_id, frame_idx, edits)
        return self.masks(frame_idx)

    def remove(self, obj_id: ObjectId) -> None:
        """Remove an object; the masks that were tracked of it stay in the folder.

        Raises:
            ValueError: There is no such object.
            ConflictError: A frame is being corrected.
        """
        if obj_id not in self.state.obj_ids:
            raise ValueError(f"there is no object {obj_id}; there are {self.state.obj_ids}.")
        if self.mend is not None:
            raise ConflictError("keep the correction, or drop it, before an object is removed.")
        self.pause()
        self.log.append({"op": "remove", "object": obj_id})
        self.apply_remove(obj_id)
        self.needs_save = True

    def rename(self, obj_id: ObjectId, to: ObjectId) -> None:
        """Give an object that was not tracked yet another id.

        Raises:
            ValueError: There is no such object, or there is one of the new id.
            ConflictError: It was tracked.
        """
        if to in self.objects():
            raise ValueError(f"there is an object {to} already.")
        if obj_id in self.tracked.obj_ids or self.mend is not None:
            raise ConflictError(f"object {obj_id} has been tracked under this name, so it stays.")
        own = {frame: edits for (name, frame), edits in self.prompts.items() if name == obj_id}
        color = self.colors.get(obj_id)
        self.remove(obj_id)
        if color is not None:
            self.colors.pop(obj_id)
            self.colors[to] = color
        for frame_idx, edits in own.items():
            self.prompt(to, frame_idx, edits)

    def track(self, direction: str, start: int | None, end: int | None) -> None:
        """Begin to track.

        Args:
            direction: "forward", "reverse" or "both".
            start: The first frame; None is the first with a prompt, or where it was left off.
            end: The last frame; None is the end of the video.

        Raises:
            ValueError: There is nothing to track.
        """
        for frame_idx in (start, end):
            if frame_idx is not None:
                self._check_frame(frame_idx)
        if not self.prompts:
            raise ValueError("there is no object yet: click on one first.")
        self.pause()
        if self.mend is None and start is not None and start in self.tracked:
            self.begin_mend(start)
        if self.mend is not None:
            self._begin([self._mend_pass()])
            return
        passes = self._passes(direction, start, end)
        if not passes:
            raise ValueError(
                "all frames there are tracked. To track some again, go to one and prompt it, or "
                "start from it."
            )
        self._begin(passes)

    def resume(self) -> None:
        """Continue where it was left off, or track on from a mend.

        Raises:
            ValueError: Nothing was left off.
        """
        self.pause()
        if self.mend is not None:
            self._begin([self._mend_pass()])
        elif self.left:
            self._begin([list(one) for one in self.left])
        else:
            raise ValueError("no pass was left off.")

    def pause(self) -> None:
        """Stop the pass that runs; it is left to be continued."""
        if not self.is_running:
            return
        self.end_pass()
        self.log.append({"op": "stop", "done": self.num_done})
        self.needs_save = True

    def step(self) -> int | None:
        """Track one frame; None once all passes are over."""
        frame_idx = self.track_frame()
        if frame_idx is None and not self.is_running and self.mend is not None:
            self.keep()
            if self.left:
                self._begin([list(one) for one in self.left])
        return frame_idx

    def begin_mend(self, frame_idx: int) -> None:
        """Go back to a frame that was tracked.

        Raises:
            ValueError: That is not possible.
        """
        self.pause()
        self._save()
        self.log.append({"op": "mend", "frame": frame_idx})
        try:
            self.open_mend(frame_idx)
        except (ValueError, OSError):
            self.log.append({"op": "drop"})
            self.apply_drop()
            raise

    def keep(self) -> None:
        """Let the masks of a mend replace those before, as far as there are any.

        Raises:
            ConflictError: There is no mend.
        """
        if self.mend is None:
            raise ConflictError("no frame is being corrected.")
        self.pause()
        self._write_answer()
        self.log.append({"op": "keep", "at": self.mend.at})
        self.apply_keep()

    def drop(self) -> None:
        """Forget a mend: masks and prompts are as they were before.

        Raises:
            ConflictError: There is no mend.
        """
        if self.mend is None:
            raise ConflictError("no frame is being corrected.")
        self.pause()
        self.log.append({"op": "drop"})
        self.apply_drop()

    def save_if_needed(self) -> None:
        """Save the state, if what was done since would have to be done again."""
        is_answered = self.mend is not None and self.mend.at is None  # is not in a save
        if self.needs_save and not self.is_running and not is_answered:
            self._save()

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
            elif name == "mend":
                self.open_mend(operation["frame"])
            elif name == "keep":
                self.apply_keep()
            elif name == "drop":
                self.apply_drop()
        except ValueError as error:  # it was refused then, too
            self.warn(f"the log has an operation that is refused ({error})")

    # How it is done -----------------------------------------------------------------------------

    def _check_frame(self, frame_idx: int) -> None:
        if not 0 <= frame_idx < self.num_frames:
            raise ValueError(
                f"frame {frame_idx} is not in the video, which has frames 0 to "
                f"{self.num_frames - 1}."
            )

    def _check_can_clear(self, obj_id: ObjectId, frame_idx: int) -> None:
        others = [frame for name, frame in self.prompts if name == obj_id and frame != frame_idx]
        if not others and obj_id in self.tracked.obj_ids:
            raise ConflictError(
                f"this is the only prompt of object {obj_id}, which was tracked; give it another "
                "first, or remove the object."
            )

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
            shown = obj_ids if self.mend is not None else own
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

    def _passes(self, direction: str, start: int | None, end: int | None) -> Passes:
        prompted = sorted({frame_idx for _, frame_idx in self.prompts})
        first = start
        if first is None:
            first = prompted[-1] if direction == "reverse" else prompted[0]
        passes: Passes = []
        if direction != "reverse":
            begin = first
            if begin in self.tracked:
                begin = self.tracked.end_of_span(first, reverse=False) + 1
            last = end if end is not None and end >= first else self.num_frames - 1
            passes.append([begin, last, False])
        if direction != "forward":
            begin = first - 1 if direction == "both" else first
            if begin in self.tracked:
                begin = self.tracked.end_of_span(begin, reverse=True) - 1
            last = end if end is not None and end <= first else 0
            passes.append([begin, last, True])
        return [one for one in passes if not is_over(one)]

    def _mend_pass(self) -> list[Any]:
        """What is left of the mend."""
        assert self.mend is not None
        step = -1 if self.mend.reverse else 1
        if self.mend.at is not None:
            begin = self.mend.at + step
        else:
            is_prompted = any(frame == self.mend.frame for _, frame in self.prompts)
            begin = self.mend.frame + (step if is_prompted else 0)
        return [begin, self.mend.last, self.mend.reverse]

    def _begin(self, passes: Passes) -> None:
        self.log.append({"op": "track", "passes": [list(one) for one in passes]})
        self.apply_track(passes)

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
        is_tracked = before in self.tracked or (self._mended is not None and before in self._mended)
        if is_tracked and before != self.state.last_frame_idx:
            self._rewind(before)
        if self._writer is None:
            self._writer = self.folder.writer(mending=self.mend is not None)
        self._steps = self.predictor.propagate_in_video(
            self.state,
            begin,
            abs(last - begin),
            reverse,
            autosave=Autosave(
                self.folder.save_in(mending=self.mend is not None),
                every=SAVE_EVERY,
                before_save=self._before_save,
            ),
            progress_bar=False,
        )

    def track_frame(self) -> int | None:
        """Track one frame of the passes that run; None once they are over. A mend stays open."""
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
                if self.mend is not None:
                    self.mend.at = frame_idx
                return int(frame_idx)
            self._steps = None
            self.left.pop(0)
            self._open_pass()
        self.end_pass()
        if self.mend is None:
            self._note_record(is_finished=True)
        return None

    def _write(self, frame_idx: int, obj_ids: Any, logits: Any) -> None:
        if self._writer is None:
            self._writer = self.folder.writer(mending=self.mend is not None)
        scores = None
        with suppress(ValueError):
            scores = self.predictor.scores(self.state, frame_idx)
        self._writer.write(
            frame_idx, obj_ids, logits, scores=scores, time=self.state.source.time(frame_idx)
        )

    def _write_answer(self) -> None:
        """The masks of the corrected frame are those that its prompts gave."""
        if self.mend is None or self.mend.at is not None or self._corrected is None:
            return
        if self._corrected[0] == self.mend.frame:
            self._write(*self._corrected)
            self.mend.at = self.mend.frame

    def end_pass(self) -> None:
        """Stop tracking, with everything on disk."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        self._close_writer()
        self.is_running = False

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

    # Saves --------------------------------------------------------------------------------------

    def _before_save(self) -> None:
        if self._writer is not None:
            self._writer.flush()
        self.state.extras["app"] = {
            "log": len(self.log),
            "left": [list(one) for one in self.left if not is_over(one)],
            "done": self.num_done,
            "directions": sorted(self.directions),
            "before": [] if self.mend is None else self.mend.left_before,
        }

    def _save(self) -> None:
        self.tell("saving")
        self._before_save()
        self.predictor.save_state(self.state, self.folder.save_in(mending=self.mend is not None))
        self.needs_save = False
        self.tell(None)

    def _note_record(self, *, is_finished: bool) -> None:
        if self.mend is None:
            self.record = self._record(is_finished=is_finished)
            self.record.write(self.folder.path)

    def _record(self, *, is_finished: bool) -> Record:
        prompts = [(obj_id, frame, edits) for (obj_id, frame), edits in self.prompts.items()]
        return self.folder.note(
            self.record, prompts, directions=self.directions, is_finished=is_finished
        )

    # Mends --------------------------------------------------------------------------------------

    def open_mend(self, frame_idx: int) -> None:
        left = [list(one) for one in self.left]
        self.folder.begin_mend()
        self.load(mending=True, save=self.folder.save_in(mending=False))
        self.note_mend(frame_idx, left)
        self._rewind(frame_idx)

    def note_mend(self, frame_idx: int, left: Passes) -> None:
        reverse = self.tracked.is_reverse(frame_idx)
        last = self.tracked.end_of_span(frame_idx, reverse=reverse)
        prompts = {key: list(edits) for key, edits in self.prompts.items()}
        self.mend = Mend(frame_idx, last, reverse, prompts, left)
        self._mended = Tracked(self.folder.mended, self.num_frames)
        self.left, self._corrected = [], None

    def continue_mend(self) -> None:
        """Take up the masks of a mend that a crash has interrupted."""
        assert self.mend is not None
        assert self._mended is not None
        frames = self._mended.refresh()
        self.mend.at = frames[-1] if frames else None

    def apply_keep(self) -> None:
        assert self.mend is not None
        assert self._mended is not None
        mend = self.mend
        self.tell("keeping the new masks")
        self._close_writer()
        self._mended.refresh()
        if not any(self._mended.spans()):  # nothing is new
            self.apply_drop()
            return
        self.left = mend.left_before
        self._save()
        self.state.close()
        self.folder.keep_mend(self._record(is_finished=not self.left))
        self.mend = self._mended = None
        self.answers.pop(mend.frame, None)
        self.load(mending=False)
        self.read_tracked()
        self.tell(None)

    def apply_drop(self) -> None:
        mend, self.mend, self._mended = self.mend, None, None
        self._close_writer()
        self.state.close()
        self.folder.drop_mend()
        self.load(mending=False)
        if mend is not None:
            self.left = mend.left_before
            self.answers.pop(mend.frame, None)
            self.prompts = mend.prompts_before
        self._corrected = None
        self.tell(None)

    # Opening ------------------------------------------------------------------------------------

    def load(self, *, mending: bool, save: Path | None = None) -> dict[str, Any] | None:
        """Open the state from its save; gives what was noted in it."""
        if hasattr(self, "state"):
            self.state.close()
        save = save or self.folder.save_in(mending=mending)
        if not save.exists():
            self.state = self.predictor.init_state(
                self.folder.video,
                corrections="condition",
                batch_objects=self.record.batch_objects,
                memory_window=self.record.memory_window,
                snapshots=Snapshots(
                    SNAPSHOTS_EVERY,
                    folder=self.folder.snapshots(mending=False),
                    max_bytes=SNAPSHOT_BYTES,
                ),
            )
            return None
        self.state = self.predictor.load_state(
            save, self.folder.video, snapshots=self.folder.snapshots(mending=mending)
        )
        noted = self.state.extras.get("app")
        return noted if isinstance(noted, dict) else {}

    def read_tracked(self) -> None:
        self.tracked = Tracked(self.folder.path, self.num_frames)
        self.tracked.refresh()

    def _open(self) -> None:
        from longsam.app.replay import reopen  # it needs this module

        self.tell("opening the project")
        reopen(self)
        self.tell(None)


def is_over(one: list[Any]) -> bool:
    begin, last, reverse = one
    return bool(begin < last if reverse else begin > last)
