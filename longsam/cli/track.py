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
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longsam import Autosave, LiveVideo, LongVideoPredictor, State, build_long_video_predictor
from longsam.cli import prompts
from longsam.frames import is_live
from longsam.masks import FORMATS, MaskWriter
from longsam.testing import load_predictor

DESCRIPTION = """\
Track objects through a video and write their masks to a folder as they come.

Say where each object is with --point, --box or --mask, in pixels of a frame: x counts from the
left, y from the top. Any image viewer shows them. Each is an object of its own; to give several
hints for one object, name it: --point 410,220:bee --point 430,260:bee --not-point 500,300:bee.
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

Ctrl-C stops after the current frame. What is written is whole; --resume continues.
"""

STATE = "state.pt"
"""Where the state is saved, in the folder of the masks."""

CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


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
    where = parser.add_argument_group("where the objects are")
    adds = {"action": "append", "dest": "prompt", "default": []}
    where.add_argument(
        "--point", type=prompts.point, metavar="X,Y[@FRAME][:OBJECT]", help="on the object", **adds
    )
    where.add_argument(
        "--not-point", type=prompts.not_point, metavar="X,Y[@FRAME]:OBJECT",
        help="beside the object", **adds
    )  # fmt: skip
    where.add_argument(
        "--box", type=prompts.box, metavar="X0,Y0,X1,Y1[@FRAME][:OBJECT]",
        help="left, top, right, bottom", **adds
    )  # fmt: skip
    where.add_argument(
        "--mask", type=prompts.mask, metavar="FILE[@FRAME][:OBJECT]",
        help="an image of the frame's size, black where the object is not", **adds
    )  # fmt: skip
    where.add_argument(
        "--prompts", type=Path, metavar="FILE.json",
        help='a list of {"frame": 0, "object": 1, "points": [[x, y]], "labels": [1], '
        '"box": [x0, y0, x1, y1], "mask": "file.png"}',
    )  # fmt: skip
    model = parser.add_argument_group("the model")
    model.add_argument("--checkpoint", type=Path, help="one of Meta's files, sam2.1_hiera_tiny.pt")
    model.add_argument(
        "--config", help="upstream's config; default: the one of the checkpoint's name"
    )
    model.add_argument(
        "--testing-model", action="store_true",
        help="the small model that comes with longsam; follows only what `longsam demo` makes",
    )  # fmt: skip
    model.add_argument("--device", help="cuda, cpu, ...; default: cuda where there is one")
    model.add_argument("--memory-window", type=int, help="frames remembered (31)")
    output = parser.add_argument_group("what to write")
    output.add_argument("--out", type=Path, required=True, help="a folder")
    output.add_argument(
        "--format", default="rle", type=_formats, help=f"of {', '.join(FORMATS)}; with commas (rle)"
    )
    output.add_argument(
        "--resume", action="store_true",
        help="resume in --out where a run was stopped or killed; the masks are those of one run",
    )  # fmt: skip
    output.add_argument(
        "--save-every", type=int, default=500, metavar="N",
        help="frames between two saves for --resume (500); 0: none",
    )  # fmt: skip
    output.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    output.add_argument(
        "--mode", choices=["every", "newest"],
        help="live sources: track every frame, or drop those that there is no time for",
    )  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    given = options.prompt + (prompts.from_json(options.prompts) if options.prompts else [])
    if not given and not options.resume:
        raise ValueError("no object was named: give --point, --box, --mask or --prompts.")
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames is {options.frames}; it must be at least 1.")
    video = options.video
    if is_live(video) or (re.fullmatch(r"\d{1,2}", video) and not Path(video).exists()):
        source = int(video) if video.isdecimal() else video
        video = LiveVideo(source, mode=options.mode)
    if options.resume and isinstance(video, LiveVideo):
        raise ValueError("--resume: a live source cannot be resumed where it stopped.")
    writer = MaskWriter(options.out, options.format, video=video, resume=options.resume)
    autosave = None
    if options.save_every and not isinstance(video, LiveVideo):
        autosave = Autosave(options.out / STATE, every=options.save_every, before_save=writer.flush)
    predictor = _predictor(options)
    if options.resume and autosave is not None and Path(autosave.path).exists():
        with predictor.load_state(autosave.path, video) as state:
            writer.drop_after(state.last_frame_idx)
            steps = predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
            return _track(options, predictor, state, writer, steps, autosave)
    if len(writer):
        writer.drop_after(-1)  # stopped before the first save: from the start again
    with predictor.init_state(video, memory_window=options.memory_window) as state:
        prompts.add(predictor, state, given)
        steps = predictor.propagate_in_video(state, autosave=autosave, progress_bar=False)
        return _track(options, predictor, state, writer, steps, autosave)


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
        _stopped_by_ctrl_c() as stop,
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
    if not was_stopped:
        return 0
    print(f"Stopped after frame {writer.last_frame_idx}. {_how_to_resume(autosave)}")
    return 130


def _how_to_resume(autosave: Autosave | None) -> str:
    if autosave is None:
        return "It cannot be resumed there: the source is live, or --save-every is 0."
    command = [word for word in sys.argv[1:] if word != "--resume"]
    return f"To resume: longsam {shlex.join(command)} --resume"


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """Let Ctrl-C end the pass between two frames; a second one ends the program at once."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


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


def _predictor(options: argparse.Namespace) -> LongVideoPredictor:
    if options.testing_model:
        return load_predictor(options.device or "cpu")
    if options.checkpoint is None:
        raise ValueError(
            "no model: give --checkpoint with one of Meta's files (https://github.com/"
            "facebookresearch/sam2#download-checkpoints), or --testing-model to try longsam."
        )
    config = options.config or _config_of(options.checkpoint)
    return build_long_video_predictor(config, str(options.checkpoint), device=options.device)


def _config_of(checkpoint: Path) -> str:
    match = re.match(r"(sam2(?:\.1)?)_hiera_(tiny|small|base_plus|large)", checkpoint.name)
    if match is None:
        raise ValueError(
            f"{checkpoint.name} is not a name of Meta's, so its config is not known; give "
            "--config, for instance configs/sam2.1/sam2.1_hiera_t.yaml."
        )
    return f"configs/{match[1]}/{match[1]}_hiera_{CONFIGS[match[2]]}.yaml"


def _formats(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}")
    return names


def _resident_bytes() -> int | None:
    """Memory of this process; None where the system does not tell so easily."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
