"""`longsam track`: prompts in, masks out."""

import argparse
import re
import shlex
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from longsam import Autosave, LiveVideo, LongVideoPredictor, Snapshots, State, prompts
from longsam.cli import everything, model, prompt_flags, record, results, span, times
from longsam.cli.everything import Everything
from longsam.cli.record import Record
from longsam.cli.writing import Written, write_steps
from longsam.frames import FrameSource, is_live, open_source
from longsam.masks import FORMATS, MaskWriter
from longsam.policies import POLICIES

DESCRIPTION = """\
Track objects through a video and write their masks to a folder as they come.

Say where each object is with --point, --box or --mask, in pixels of a frame: x counts from the
left, y from the top. `longsam frame` shows them, and `longsam preview` shows the resulting masks.
Each prompt is a new object; to give several for one object, name it:
  --point 410,220:bee --point 430,260:bee --not-point 500,300:bee.
For an object that appears later, name the frame: --point 90,300@120:wasp.
Or leave it to the model: --everything finds things, and looks for new ones as they appear.
"""

EPILOG = """\
examples:
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220:bee --out out
  longsam track bees.mp4 --checkpoint sam2.1_hiera_large.pt --box 100,80,300,260:queen \\
      --format rle,overlay --out queen
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220@120 --both --step 5 \\
      --out thinned
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --everything --min-area 400 --out found
  longsam track rtsp://camera/stream --checkpoint sam2.1_hiera_tiny.pt --prompts prompts.json \\
      --format rle --out live

formats (--format, one or more):
  rle         out/masks.jsonl: COCO run lengths, the smallest; exact
  png         out/png/000000.png: all objects of a frame in one image; the surer one wins
  object_png  out/object_png/ID/000000.png: a black and white image for each object; exact
  overlay     out/overlay.mp4: the video with its masks drawn on it

Ctrl-C (or SIGTERM) stops after the current frame. What is written is complete; --resume continues,
with the flags of the run. `longsam correct` corrects existing masks, except those of --everything.
"""

SNAPSHOT_BYTES = 2 * 10**9
"""Two hours of three objects take 1.1 GB at 30 frames/s and one snapshot a minute."""

SNAPSHOT_EVERY = timedelta(minutes=1)
MEMORY = tuple(POLICIES)
"""The values of --memory; "upstream" is no policy."""

DEFAULT_RATE = 30
"""Frames a second of sources without a rate, such as a folder of images."""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "track",
        help="track objects through a video and write their masks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "video",
        help="a video file, a folder of images, a URL (rtsp://...), or a camera's index (0)",
    )
    prompt_flags.add_flags(parser)
    everything.add_flags(parser)
    span.add_flags(parser)
    model.add_flags(parser)
    how = parser.add_argument_group("how to track")
    how.add_argument("--memory-window", type=int, metavar="FRAMES", help="frames remembered (31)")
    how.add_argument(
        "--memory", choices=MEMORY,
        help="which memories a frame reads: SAM 2's own rule (upstream), or a published method "
        "that chooses differently where objects are hidden or look alike (upstream)",
    )  # fmt: skip
    how.add_argument(
        "--batch-objects", action="store_true",
        help="objects first prompted on one frame as one batch: faster with several, masks within "
        "rounding of one by one (off)",
    )  # fmt: skip
    how.add_argument(
        "--vos-optimized", action="store_true",
        help="compile the model: faster after the first minutes (off)",
    )  # fmt: skip
    output = parser.add_argument_group("what to write")
    output.add_argument("--out", type=Path, required=True, help="a folder (must be given)")
    output.add_argument(
        "--format", type=formats, help=f"of {', '.join(FORMATS)}; with commas (rle)"
    )
    output.add_argument(
        "--resume", action="store_true",
        help="resume in --out where a run was stopped or killed; the masks are those of one run "
        "(off)",
    )  # fmt: skip
    output.add_argument(
        "--save-every", type=every, default=timedelta(minutes=2), metavar="N|TIME",
        help="between two saves for --resume: a number of frames (500) or a time (90s, 5m); 0: "
        "none (2m)",
    )  # fmt: skip
    output.add_argument(
        "--snapshot-every", type=every, metavar="N|TIME",
        help="between two snapshots, from which `longsam correct` tracks again: a number of frames "
        "or a time in the video; at most 2 GB in --out; 0: none (1m; with --everything: none)",
    )  # fmt: skip
    output.add_argument(
        "--overwrite", action="store_true",
        help="replace the masks of an earlier run in --out (off)",
    )  # fmt: skip
    output.add_argument("--frames", type=int, metavar="N", help="stop after N frames (all)")
    output.add_argument(
        "--mode", choices=["every", "newest"],
        help="live sources: track every frame, or drop frames if there is no time (every; "
        "newest for cameras and streams)",
    )  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames is {options.frames}; it must be at least 1.")
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite cannot be combined; give one of them.")
    video: Any = options.video
    if is_live(video) or (re.fullmatch(r"\d{1,2}", video) and not Path(video).exists()):
        return _track_live(options, int(video) if video.isdecimal() else video)
    return _track_file(options)


def _track_file(options: argparse.Namespace) -> int:
    out, save = options.out, options.out / results.STATE
    if options.resume:
        results.finish_correction(out)
    recorded = record.read(out) if options.resume else None
    has_save = options.resume and save.exists()
    if has_save and recorded is not None and recorded.is_finished:
        can = "; `longsam correct` corrects its masks" if recorded.everything is None else ""
        print(f"The run in {out} is finished{can}.")
        return 0
    if recorded is not None:
        _use_recorded(options, recorded)
    model.check_flags(options)
    with closing(open_source(options.video, None)) as source:
        found = everything.given(options) if recorded is None else _recorded_everything(recorded)
        is_prompted = recorded is None and found is None
        grouped = prompt_flags.given(options) if is_prompted else {}
        which = span.given(options, source) if recorded is None else record.frames_of(recorded)
        frames = source.frames if which is None else source.frames[which]
        if is_prompted:
            _check_prompts(grouped, source, frames, options.direction or "forward")
        if found is not None:
            found.check(source.frame_size)
        snapshots = None if found is not None else _snapshots(options, source, frames)
    results.check_folder(out, may_hold_masks=options.resume or options.overwrite)
    if recorded is None:
        recorded = _new_record(options, grouped, found, which)
    predictor = model.load(options, vos_optimized=recorded.vos_optimized)
    recorded = replace(
        recorded,
        dtype=model.dtype_of(options, predictor.device),
        device=str(predictor.device),
        model=predictor.name,
    )
    with model.computing_in(recorded.dtype, predictor.device):
        if has_save:
            state = predictor.load_state(save, options.video)
        else:
            state = predictor.init_state(
                options.video,
                memory_window=recorded.memory_window,
                batch_objects=recorded.batch_objects,
                max_prompt_frames=None if found is None else found.max_prompt_frames,
                memory_policy=_policy(recorded.memory),
                frames=which,
                snapshots=snapshots,
            )
        with state, ExitStack() as at_end:
            if not has_save and found is None:
                _add_prompts(options, predictor, state, record.grouped(recorded.prompts), frames)
            if options.overwrite:
                results.remove(out, keep_snapshots=snapshots is not None)
            formats = results.formats_while_tracking(recorded)
            writer = MaskWriter(
                out, formats, video=options.video, resume=options.resume, frames=frames
            )
            recorded.write(out)
            if has_save:
                writer.drop_after(frames[state.last_frame_idx])
            elif len(writer):  # stopped before the first save: start again
                _keep_aside(out, writer)
            autosave = None
            if options.save_every:
                autosave = Autosave(save, every=options.save_every, before_save=writer.flush)
            if found is None:
                first = [frames.index(i) for i in recorded.prompted_frames]
                order = span.Order(recorded.direction, first)
                total, time_of = order.num_frames(len(frames)), None
                steps = order.steps(predictor, state, is_resumed=has_save, autosave=autosave)
            else:
                source = at_end.enter_context(closing(open_source(options.video, None)))
                total, time_of = len(frames), everything.times(state, source)
                steps = found.steps(
                    predictor, state, source, is_resumed=has_save, autosave=autosave
                )
            written = write_steps(
                predictor,
                state,
                writer,
                steps,
                total=min(total, options.frames or total),
                most=options.frames if (options.frames or total) < total else None,
                is_quiet=options.quiet,
                save=None if autosave is None else save,
                time_of=time_of,
            )
    if not written.was_stopped:
        replace(recorded, is_finished=written.is_over).write(out)
        if "overlay" in set(recorded.formats) - set(formats):
            results.draw_overlay(out, options.video, frames, is_quiet=options.quiet)
    _say_end(options, written)
    if not written.was_stopped:
        return 0
    print(f"Stopped after frame {written.last_frame_idx}. {_how_to_resume(options)}")
    return 130


def _track_live(options: argparse.Namespace, source: Any) -> int:
    if options.resume:
        raise ValueError("--resume: a live source cannot be resumed where it stopped.")
    span.check_flags_of_live(options)
    model.check_flags(options)
    found = everything.given(options)
    grouped = {} if found is not None else prompt_flags.given(options)
    results.check_folder(options.out, may_hold_masks=options.overwrite)
    live = LiveVideo(source, mode=options.mode)
    if found is not None:
        found.check(live.frame_size)
    predictor = model.load(options, vos_optimized=options.vos_optimized)
    dtype = model.dtype_of(options, predictor.device)
    with (
        model.computing_in(dtype, predictor.device),
        predictor.init_state(
            live,
            memory_window=options.memory_window,
            batch_objects=options.batch_objects,
            max_prompt_frames=None if found is None else found.max_prompt_frames,
            memory_policy=_policy(options.memory),
        ) as state,
    ):
        if found is None:
            prompts.check_inside(grouped, *live.frame_size)
            _add_prompts(options, predictor, state, grouped, None)
            steps = predictor.propagate_in_video(state, progress_bar=False)
        else:
            steps = found.steps(predictor, state, live)
        if options.overwrite:
            results.remove(options.out)
        writer = MaskWriter(options.out, options.format or ["rle"], video=live)
        written = write_steps(
            predictor,
            state,
            writer,
            steps,
            total=options.frames,
            most=options.frames,
            is_quiet=options.quiet,
        )
    _say_end(
        options, written, f"; {live.num_dropped} frames dropped, {live.num_reconnects} reconnects"
    )
    if not written.was_stopped:
        return 0
    print(
        f"Stopped after frame {written.last_frame_idx}. It cannot be resumed there: the source is "
        "live."
    )
    return 130


def _check_prompts(
    grouped: prompts.Grouped, source: FrameSource, frames: range, direction: str
) -> None:
    """Before a model is loaded, refuse prompts that would waste hours of tracking."""
    prompts.check(grouped, source)
    span.in_state(grouped, frames)
    for mistake in prompts.mistakes(grouped):
        raise ValueError(mistake)
    note = span.untracked(grouped, frames, direction)
    if note is not None:
        print(f"longsam: note: {note}", file=sys.stderr)


def _use_recorded(options: argparse.Namespace, recorded: Record) -> None:
    """Let a resumed run compute as before, or masks would differ.

    Raises:
        ValueError: A flag differs.
    """
    everything.check_resumed(options, recorded.everything)
    is_prompted = bool(options.prompt or options.prompts)
    if is_prompted and record.plain(prompt_flags.given(options)) != recorded.prompts:
        raise ValueError(
            f"--resume: these prompts differ from those of the run in {options.out}. Leave "
            "them out to resume it; `longsam correct` corrects existing masks."
        )
    for flag, given, before in (
        ("dtype", options.dtype, recorded.dtype),
        ("memory-window", options.memory_window, recorded.memory_window),
        ("memory", options.memory, recorded.memory),
        ("format", options.format, recorded.formats),
        ("batch-objects", options.batch_objects or None, recorded.batch_objects),
        ("vos-optimized", options.vos_optimized or None, recorded.vos_optimized),
        (options.direction, options.direction, recorded.direction),
    ):
        if given is not None and given != before:
            raise ValueError(
                f"--{flag}: the run in {options.out} has {before or 'not this'}, so it would not "
                f"be resumed as it was; leave --{flag} out."
            )
    spans = (options.start, options.end, options.step)
    if spans != (None, None, None):
        with closing(open_source(options.video, None)) as source:
            if span.given(options, source) != record.frames_of(recorded):
                raise ValueError(
                    f"--start, --end, --step: the run in {options.out} has other frames; leave "
                    "them out to resume it."
                )
    options.dtype = recorded.dtype
    record.use_model(options, recorded)


def _recorded_everything(recorded: Record) -> Everything | None:
    return None if recorded.everything is None else Everything(**recorded.everything)


def _new_record(
    options: argparse.Namespace,
    grouped: prompts.Grouped,
    found: Everything | None,
    which: slice | None,
) -> Record:
    """The record of a new run; its device and number format are known once the model is loaded."""
    return Record(
        video=str(Path(options.video).absolute()),
        prompts=record.plain(grouped),
        frames=None if which is None else [which.start, which.stop, which.step],
        direction=options.direction or "forward",
        formats=options.format or ["rle"],
        dtype="float32",
        device="",
        batch_objects=options.batch_objects,
        vos_optimized=options.vos_optimized,
        memory_window=options.memory_window,
        memory=options.memory or "upstream",
        model=None,
        checkpoint=None if options.testing_model else str(Path(options.checkpoint).absolute()),
        config=options.config,
        everything=None if found is None else asdict(found),
    )


def _policy(name: str | None) -> str | None:
    return None if name == "upstream" else name


def _snapshots(options: argparse.Namespace, source: FrameSource, frames: range) -> Snapshots | None:
    every = SNAPSHOT_EVERY if options.snapshot_every is None else options.snapshot_every
    if not every:
        return None
    if isinstance(every, timedelta):
        rate = float(source.frame_rate or DEFAULT_RATE) / frames.step
        every = max(1, round(every.total_seconds() * rate))
    return Snapshots(every, folder=options.out / results.SNAPSHOTS, max_bytes=SNAPSHOT_BYTES)


def _add_prompts(
    options: argparse.Namespace,
    predictor: LongVideoPredictor,
    state: State,
    grouped: prompts.Grouped,
    frames: range | None,
) -> None:
    counted = grouped if frames is None else span.in_state(grouped, frames)
    with model.said(f"encoding {len(counted)} prompt(s)", is_quiet=options.quiet):
        for _ in prompts.add(predictor, state, counted):
            pass


def _keep_aside(out: Path, writer: MaskWriter) -> None:
    num_frames = len(writer)
    aside = writer.drop_after(-1, keep_aside=True)
    print(
        f"There is no save in {out}, so tracking starts again from the beginning. The masks of "
        f"{num_frames:,} earlier frames are kept in {aside}."
    )


def _say_end(options: argparse.Namespace, written: Written, more: str = "") -> None:
    rate = written.num_frames / max(written.seconds, 1e-9)
    print(
        f"{written.num_frames} frames in {written.seconds:.0f} s ({rate:.1f} frames/s); masks are "
        f"in {options.out}{more}"
    )
    for line in results.summary(options.out):
        print(line)


def _how_to_resume(options: argparse.Namespace) -> str:
    if not options.save_every:
        return "It cannot be resumed there: --save-every is 0."
    command = [word for word in options.arguments if word not in {"--resume", "--overwrite"}]
    return f"To resume: longsam {shlex.join(command)} --resume"


def formats(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(FORMATS)}")
    return names


def every(text: str) -> int | timedelta:
    """A number of frames, or a time."""
    at = times.moment(text)
    if at.seconds is None:
        return at.frame_idx or 0
    return timedelta(seconds=at.seconds)
