"""`longsam correct`: correct masks of a run on a frame, and track what follows again."""

import argparse
import os
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from longsam import Autosave, LongVideoPredictor, State, prompts
from longsam.cli import model, prompt_flags, record, results, span
from longsam.cli.record import Record
from longsam.cli.writing import write_steps
from longsam.masks import MaskWriter
from longsam.masks.copying import copy_frames, frames_written
from longsam.masks.files import check_not_link

DESCRIPTION = """\
Correct the masks of a run where tracking went wrong.

Each prompt names a frame and an object of the run: --point 410,220@120:bee is on the object
on frame 120, and --not-point 500,300@120:bee beside it. The prompts correct the mask of that
frame. Tracking then continues from the next frame, in the direction of the run, up to where
the run stopped; these masks are replaced.
"""

EPILOG = """\
example:
  longsam correct out --point 410,220@120:bee --not-point 500,300@120:bee

The old masks stay until the new ones are complete. If it is killed, `--resume` continues.
"""

SAVE_EVERY = timedelta(minutes=2)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "correct",
        help="correct masks of a run, and track again from there",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="where `longsam track` has written")
    prompt_flags.add_flags(parser)
    model.add_flags(parser)
    parser.add_argument("--video", help="the video, if it has moved (that of the run)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue a correction that was stopped or killed (off)",
    )
    parser.add_argument(
        "--overwrite", action="store_true",
        help="drop a stopped correction, and make this one instead (off)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    out, work = options.out, options.out / results.CORRECTION
    results.finish_correction(out)
    check_not_link(work)
    recorded = record.read(out)
    for name in (results.STATE, record.RECORD):
        if not (out / name).is_file():
            raise ValueError(
                f"{out} holds no run that can be corrected: there is no {name} in it. Give the "
                "folder of `longsam track VIDEO --out FOLDER`."
            )
    assert recorded is not None
    if recorded.everything is not None:
        raise ValueError(
            f"The run in {out} is one of --everything, which keeps no snapshots and cannot be "
            "corrected. To correct an object, track it with a prompt (`longsam track --box`)."
        )
    results.check_snapshots(out)
    corrections = _corrections(options, work)
    record.use_model(options, recorded)
    options.dtype = options.dtype or recorded.dtype
    model.check_flags(options)
    video = str(options.video or recorded.video)
    if not (os.path.isfile(video) or os.path.isdir(video)):
        raise ValueError(f"the run is of {video}, which is not there; give it with --video.")
    predictor = model.load(options, vos_optimized=recorded.vos_optimized)
    recorded = replace(recorded, corrections=[*recorded.corrections, corrections])
    formats = results.formats_while_tracking(recorded)
    with (
        model.computing_in(recorded.dtype, predictor.device),
        MaskWriter(out, formats, video=video, resume=True) as held,  # nothing else may write there
    ):
        correction = _Correction(options, predictor, recorded, video)
        if not correction.run(held):
            print(f"Stopped. To resume: longsam correct {out} --resume")
            return 130
    results.finish_correction(out)
    if "overlay" in set(recorded.formats) - set(formats):
        results.draw_overlay(out, video, correction.frames, is_quiet=options.quiet)
    for line in results.summary(out):
        print(line)
    return 0


def _corrections(options: argparse.Namespace, work: Path) -> list[Any]:
    """The given prompts, or those of the correction that is resumed.

    Raises:
        ValueError: There are none, or they differ from those of the stopped correction.
    """
    if not options.resume:
        if work.exists() and not options.overwrite:
            raise ValueError(
                f"{work} holds a stopped correction: --resume continues it, --overwrite drops it."
            )
        return record.plain(prompt_flags.given(options))
    stopped = record.read(work)
    if stopped is None or not stopped.corrections:
        raise ValueError(f"{options.out} holds no stopped correction; leave out --resume.")
    if (options.prompt or options.prompts) and (
        record.plain(prompt_flags.given(options)) != stopped.corrections[-1]
    ):
        raise ValueError(
            "--resume: these prompts differ from those of the stopped correction; "
            "leave them out to resume it, or start again with --overwrite."
        )
    return stopped.corrections[-1]


@dataclass(frozen=True)
class Job:
    """A corrected frame, by the state's index.

    Args:
        frame_idx: The frame.
        stop: The last frame tracked after it: the next corrected one, or the end.
        before: The frame written before it; -1 is none.
        reverse: Whether tracking goes towards frame 0.
    """

    frame_idx: int
    stop: int
    before: int
    reverse: bool

    def tracks(self, frame_idx: int) -> bool:
        """Whether a frame is tracked after this correction."""
        low, high = sorted((self.frame_idx, self.stop))
        return low <= frame_idx <= high and frame_idx != self.frame_idx


def plan(order: span.Order, written: Sequence[int], corrected: Iterable[int]) -> list[Job]:
    """What is to be done, in this order: forward first.

    Args:
        order: The order of the run's passes.
        written: The frames of the run, in the order of writing.
        corrected: The corrected frames, each once.
    """
    last_forward = max((i for i in written if not order.is_reverse(i)), default=-1)
    jobs = []
    for reverse, end, before_all in (
        (False, last_forward, -1),
        (True, min(written), last_forward),
    ):
        step = -1 if reverse else 1
        first = order.first - 1 if reverse and order.direction == "both" else order.first
        chosen = sorted((i for i in corrected if order.is_reverse(i) is reverse), reverse=reverse)
        for frame_idx, stop in pairwise([*chosen, end]):
            before = before_all if frame_idx == first else frame_idx - step
            jobs.append(Job(frame_idx, stop, before, reverse))
    return jobs


class _Correction:
    """One correction, prepared in a folder within the run's."""

    def __init__(
        self,
        options: argparse.Namespace,
        predictor: LongVideoPredictor,
        recorded: Record,
        video: str,
    ):
        self._options, self._predictor, self._recorded = options, predictor, recorded
        self._video = video
        self._out, self._work = options.out, options.out / results.CORRECTION
        self._save = self._work / results.STATE
        self._snapshots = self._work / results.SNAPSHOTS
        self.frames = range(0)

    def run(self, held: MaskWriter) -> bool:
        """Correct, track, and mark the folder as complete; False if it was stopped before that."""
        if self._options.resume and self._save.exists():
            state = self._predictor.load_state(self._save, self._video, snapshots=self._snapshots)
            with state:
                jobs = self._jobs(state)
                at = [n for n, job in enumerate(jobs) if job.tracks(state.last_frame_idx)]
                if at:
                    return self._run(state, jobs, at[0])
        try:
            state = self._start_over()
            with ExitStack() as on_error:
                on_error.callback(state.close)
                # Tracking cannot continue from what was written after the last save.
                is_cut = not self._recorded.is_finished
                until = state.source.frames[state.last_frame_idx] if is_cut else None
                jobs = self._jobs(state, until)
                on_error.pop_all()
        except BaseException:  # nothing is kept of a correction that has not begun
            shutil.rmtree(self._work, ignore_errors=True)
            raise
        with state:
            if not self._recorded.is_finished:
                _keep_aside(held, state)
            return self._run(state, jobs, None)

    def _start_over(self) -> State:
        """The state of the run, with separate snapshots: the run's own stay valid."""
        shutil.rmtree(self._work, ignore_errors=True)
        results.link_snapshots(self._out, self._work)
        self._recorded.write(self._work)
        save = self._out / results.STATE
        return self._predictor.load_state(save, self._video, snapshots=self._snapshots)

    def _jobs(self, state: State, until: int | None = None) -> list[Job]:
        self.frames = state.source.frames
        grouped = record.grouped(self._recorded.corrections[-1])
        prompts.check_inside(grouped, *state.source.frame_size)
        self._prompts = span.in_state(grouped, self.frames)
        prompted = [self.frames.index(i) for i in self._recorded.prompted_frames]
        written = [self.frames.index(int(i)) for i in frames_written(self._out, until)]
        corrected = {frame_idx for _, frame_idx in self._prompts}
        for frame_idx in sorted(corrected.difference(written)):
            raise ValueError(
                f"frame {self.frames[frame_idx]} has not been tracked yet, so there is no mask to "
                "correct; `longsam track --resume` continues the run."
            )
        return plan(span.Order(self._recorded.direction, prompted), written, corrected)

    def _run(self, state: State, jobs: list[Job], at: int | None) -> bool:
        """All jobs, or those from the stopped one on."""
        num_frames = len(frames_written(self._out))
        for reverse in (False, True):
            own = [job for job in jobs if job.reverse is reverse]
            is_resumed = at is not None and jobs[at].reverse is reverse
            if not own or (not is_resumed and at is not None and jobs[at].reverse):
                continue  # nothing to do, or done before the stop
            writer = self._writer(own[0], jobs, None if not is_resumed else state.last_frame_idx)
            autosave = Autosave(self._save, every=SAVE_EVERY, before_save=writer.flush)
            if is_resumed and at is not None:
                own = own[own.index(jobs[at]) :]
            steps = self._steps(state, own, autosave, is_resumed=is_resumed)
            written = write_steps(
                self._predictor, state, writer, steps,
                total=num_frames, is_quiet=self._options.quiet,
            )  # fmt: skip
            if written.was_stopped:
                return False
        if not any(job.reverse for job in jobs) and self._recorded.direction == "both":
            self._copy_what_comes_after(jobs[-1].stop, None)
        self._predictor.save_state(state, self._save)
        self._recorded.write(self._work)
        os.rename(self._work, self._out / results.CORRECTED)
        return True

    def _writer(self, first: Job, jobs: list[Job], resume_after: int | None) -> MaskWriter:
        """Where the masks go: it already has what comes before the first correction."""
        if resume_after is None:
            forward = [job for job in jobs if not job.reverse]
            if first.reverse and forward:
                self._copy_what_comes_after(forward[-1].stop, first.before)
            else:
                before = -1 if first.before < 0 else self.frames[first.before]
                copy_frames(self._out, self._work, until=before)
        formats = results.formats_while_tracking(self._recorded)
        writer = MaskWriter(self._work, formats, video=self._video, resume=True, frames=self.frames)
        if resume_after is not None:
            writer.drop_after(self.frames[resume_after], keep_aside=True)
        return writer

    def _copy_what_comes_after(self, last_forward: int, until: int | None) -> None:
        """The frames of the pass in reverse, which the forward one does not change."""
        if until == last_forward:
            return
        copy_frames(
            self._out,
            self._work,
            after=self.frames[last_forward],
            until=None if until is None else self.frames[until],
        )

    def _steps(
        self, state: State, jobs: list[Job], autosave: Autosave, *, is_resumed: bool
    ) -> Generator[Any, None, None]:
        """The corrected frames and those that are tracked again."""
        predictor = self._predictor
        for number, job in enumerate(jobs):
            if number or not is_resumed:
                if number == 0:
                    with model.said("going back", is_quiet=self._options.quiet):
                        predictor.rewind(state, job.frame_idx)
                own = {
                    key: group for key, group in self._prompts.items() if key[1] == job.frame_idx
                }
                *_, (_, answer) = prompts.add(predictor, state, own)
                yield answer
                if job.frame_idx == job.stop:
                    continue
                start = job.frame_idx + (-1 if job.reverse else 1)
                steps = predictor.propagate_in_video(
                    state, start, reverse=job.reverse, autosave=autosave, progress_bar=False
                )
            else:
                steps = predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
            is_over = (state.last_frame_idx if number == 0 and is_resumed else job.frame_idx) == (
                job.stop
            )
            with closing(steps):
                while not is_over:
                    step = next(steps)
                    is_over = step[0] == job.stop
                    if not is_over or job is jobs[-1]:  # else it is corrected next
                        yield step


def _keep_aside(held: MaskWriter, state: State) -> None:
    """Tracking cannot continue from masks written after the last save."""
    last = state.source.frames[state.last_frame_idx]
    num_after = held.num_after(last)
    if num_after:
        aside = held.drop_after(last, keep_aside=True)
        print(
            f"The run was killed: the masks of {num_after:,} frames after its last save are kept "
            f"in {aside}."
        )
