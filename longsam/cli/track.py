"""`longsam track`: prompts in, masks out."""

import argparse
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longsam import Autosave, LiveVideo, LongVideoPredictor, State
from longsam.cli import model, prompts, results, times
from longsam.frames import is_live, open_source
from longsam.masks import FORMATS, MaskWriter

DESCRIPTION = """\
Track objects through a video and write their masks to a folder as they come.

Say where each object is with --point, --box or --mask, in pixels of a frame: x counts from the
left, y from the top. `longsam frame` shows them, and `longsam preview` what the model makes of
them. Each is an object of its own; to give several hints for one object, name it:
  --point 410,220:bee --point 430,260:bee --not-point 500,300:bee.
For an object that comes in later, name the frame: --point 90,300@1200:wasp.
"""

EPILOG = """\
examples:
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220 --out out
  longsam track bees.mp4 --checkpoint sam2.1_hiera_large.pt --box 100,80,300,260:queen \\
      --format rle,overlay --out out
  longsam track rtsp://camera/stream --checkpoint sam2.1_hiera_tiny.pt --prompts prompts.json \\
      --format rle --out out

formats (--format, one or more):
  rle         out/masks.jsonl: COCO run lengths, the smallest; exact
  png         out/png/000000.png: all objects of a frame in one image; the surer one wins
  object_png  out/object_png/ID/000000.png: a black and white image for each object; exact
  overlay     out/overlay.mp4: the video with its masks drawn on it

Ctrl-C (or SIGTERM) stops after the current frame. What is written is whole; --resume continues.
"""

STATE = results.STATE
"""Where the state is saved, in the folder of the masks."""


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
    prompts.add_flags(parser)
    model.add_flags(parser)
    how = parser.add_argument_group("how to track")
    how.add_argument("--memory-window", type=int, metavar="FRAMES", help="frames remembered (31)")
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
        "--format", default="rle", type=_formats, help=f"of {', '.join(FORMATS)}; with commas (rle)"
    )
    output.add_argument(
        "--resume", action="store_true",
        help="resume in --out where a run was stopped or killed; the masks are those of one run "
        "(off)",
    )  # fmt: skip
    output.add_argument(
        "--save-every", type=_every, default=timedelta(minutes=2), metavar="N|TIME",
        help="between two saves for --resume: a number of frames (500) or a time (90s, 5m); 0: "
        "none (2m)",
    )  # fmt: skip
    output.add_argument(
        "--overwrite", action="store_true",
        help="replace the masks of an earlier run in --out (off)",
    )  # fmt: skip
    output.add_argument("--frames", type=int, metavar="N", help="stop after N frames (all)")
    output.add_argument(
        "--mode", choices=["every", "newest"],
        help="live sources: track every frame, or drop those that there is no time for (every; "
        "newest for cameras and streams)",
    )  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames is {options.frames}; it must be at least 1.")
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite exclude each other; give one of them.")
    model.check_flags(options)
    video: Any = options.video
    if is_live(video) or (re.fullmatch(r"\d{1,2}", video) and not Path(video).exists()):
        video = LiveVideo(int(video) if video.isdecimal() else video, mode=options.mode)
    if options.resume and isinstance(video, LiveVideo):
        raise ValueError("--resume: a live source cannot be resumed where it stopped.")
    has_save = options.resume and (options.out / STATE).exists()
    grouped = {} if has_save else prompts.given(options)
    if not isinstance(video, LiveVideo):
        _check_prompts(video, grouped)
    results.check_folder(options.out, options.resume or options.overwrite)
    recorded = results.read_record(options.out) if options.resume else {}
    _use_recorded(options, recorded)
    predictor = model.load(options, vos_optimized=options.vos_optimized)
    dtype = model.dtype_of(options, predictor.device)
    with model.computing_in(dtype, predictor.device):
        if has_save:
            state = predictor.load_state(options.out / STATE, video)
        else:
            state = _new_state(options, predictor, video, grouped)
        with state:
            if options.overwrite:
                results.remove(options.out)
            writer = MaskWriter(options.out, options.format, video=video, resume=options.resume)
            results.write_record(
                options.out,
                {
                    "dtype": dtype,
                    "device": str(predictor.device),
                    "batch_objects": options.batch_objects,
                    "vos_optimized": options.vos_optimized,
                    "model": predictor.name,
                },
            )
            autosave = None
            if options.save_every and not isinstance(video, LiveVideo):
                autosave = Autosave(
                    options.out / STATE, every=options.save_every, before_save=writer.flush
                )
            if has_save:
                writer.drop_after(state.last_frame_idx)
                steps = predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
            else:
                if len(writer):  # stopped before the first save: from the start again
                    num_frames = len(writer)
                    aside = writer.drop_after(-1, keep_aside=True)
                    print(
                        f"There is no save in {options.out}, so tracking starts again from the "
                        f"prompts. The masks of {num_frames:,} frames that were there are kept in "
                        f"{aside}."
                    )
                steps = predictor.propagate_in_video(state, autosave=autosave, progress_bar=False)
            return _track(options, predictor, state, writer, steps, autosave)


def _check_prompts(
    video: str, grouped: dict[tuple[prompts.ObjectId, int], list[prompts.Prompt]]
) -> None:
    """Refuse prompts that would be tracked for hours in vain, before a model is loaded."""
    source = open_source(video, None)
    try:
        prompts.check(grouped, source)
    finally:
        source.close()
    for mistake in prompts.mistakes(grouped):
        raise ValueError(mistake)
    first = min((frame_idx for _, frame_idx in grouped), default=0)
    if first:
        print(
            f"longsam: note: frames 0 to {first - 1} come before the first prompt and are not "
            "tracked.",
            file=sys.stderr,
        )


def _use_recorded(options: argparse.Namespace, recorded: dict[str, Any]) -> None:
    """Let a resumed run compute as the run before did, or masks would differ.

    Raises:
        ValueError: A flag says something else.
    """
    if not recorded:
        return
    if options.dtype not in (None, recorded["dtype"]):
        raise ValueError(
            f"--dtype is {options.dtype}, but the run in {options.out} is in {recorded['dtype']}; "
            "leave --dtype out to resume it."
        )
    options.dtype = recorded["dtype"]
    options.device = options.device or recorded["device"]
    options.batch_objects = recorded["batch_objects"]
    options.vos_optimized = recorded["vos_optimized"]


def _new_state(
    options: argparse.Namespace,
    predictor: LongVideoPredictor,
    video: Any,
    grouped: dict[tuple[prompts.ObjectId, int], list[prompts.Prompt]],
) -> State:
    """A state with all prompts; the frames that have some are encoded."""
    state = predictor.init_state(
        video, memory_window=options.memory_window, batch_objects=options.batch_objects
    )
    try:
        if isinstance(video, LiveVideo):
            height, width = state.source.frame_size
            prompts.check_inside(grouped, height, width)
        with model.said(f"encoding {len(grouped)} prompt(s)", options):
            for _ in prompts.add(predictor, state, grouped):
                pass
    except BaseException:
        state.close()
        raise
    return state


def _track(
    options: argparse.Namespace,
    predictor: LongVideoPredictor,
    state: State,
    writer: MaskWriter,
    steps: Generator[Any, None, None],
    autosave: Autosave | None,
) -> int:
    """One pass with its progress; returns the exit code."""
    source = state.source
    live = source if isinstance(source, LiveVideo) else None
    num_done = 0 if writer.last_frame_idx is None else len(writer)
    total = options.frames or (None if live else source.num_frames)
    began, num_new = time.perf_counter(), 0
    with (
        writer,
        tqdm(
            total=total,
            initial=num_done,
            unit=" frames",
            disable=options.quiet,
            smoothing=0.05,
        ) as bar,
        _stopped_by_signals() as stop,
        closing(steps) as masks,
    ):
        memory_bar = _MemoryBar(bar, predictor, state, live)
        for frame_idx, obj_ids, mask_logits in masks:
            writer.write(frame_idx, obj_ids, mask_logits)
            num_new += 1
            memory_bar.update()
            if stop.is_set() or num_done + num_new == options.frames:
                if autosave is not None:  # at its end the pass saves itself
                    writer.flush()
                    predictor.save_state(state, autosave.path)
                break
        was_stopped = stop.is_set() and num_done + num_new != total
    seconds = time.perf_counter() - began
    dropped = (
        f"; {live.num_dropped} frames dropped, {live.num_reconnects} reconnects" if live else ""
    )
    print(
        f"{num_new} frames in {seconds:.0f} s ({num_new / max(seconds, 1e-9):.1f} frames/s); "
        f"masks are in {options.out}{dropped}"
    )
    for line in results.summary(options.out):
        print(line)
    if not was_stopped:
        return 0
    print(f"Stopped after frame {writer.last_frame_idx}. {_how_to_resume(options, autosave)}")
    return 130


def _how_to_resume(options: argparse.Namespace, autosave: Autosave | None) -> str:
    if autosave is None:
        return "It cannot be resumed there: the source is live, or --save-every is 0."
    command = [word for word in options.arguments if word not in {"--resume", "--overwrite"}]
    return f"To resume: longsam {shlex.join(command)} --resume"


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Let Ctrl-C or SIGTERM end the pass between two frames; a second one ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()


class _MemoryBar:
    """The progress bar, with memory and dropped frames once a second."""

    def __init__(
        self, bar: Any, predictor: LongVideoPredictor, state: State, live: LiveVideo | None
    ):
        self._bar, self._predictor, self._state, self._live = bar, predictor, state, live
        self._shown_at = 0.0

    def update(self) -> None:
        self._bar.update()
        if self._bar.disable or time.monotonic() - self._shown_at < 1:
            return
        self._shown_at = time.monotonic()
        held = sum(self._predictor.memory_usage(self._state)["total"].values())
        shown = {"state": f"{held / 1e6:.0f} MB"}
        resident = _resident_bytes()
        if resident:
            shown["process"] = f"{resident / 1e6:.0f} MB"
        if self._live is not None:
            shown["dropped"] = str(self._live.num_dropped)
        self._bar.set_postfix(shown, refresh=False)


def _formats(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}")
    return names


def _every(text: str) -> int | timedelta:
    """A number of frames, or a time."""
    at = times.moment(text)
    if at.seconds is None:
        return at.frame_idx or 0
    return timedelta(seconds=at.seconds)


def _resident_bytes() -> int | None:
    """Memory of this process; None where the system does not tell so easily."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
