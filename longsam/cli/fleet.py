"""`longsam fleet`: many videos on many GPUs or machines."""

import argparse
import shlex
from copy import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from longsam import __version__
from longsam.cli import model
from longsam.cli.track import every, formats
from longsam.cli.usage import UsageError
from longsam.fleet import Job, Row, Settings, Workers, read_jobs, track_together, track_videos
from longsam.fleet.jobs import Load
from longsam.fleet.store import Store
from longsam.fleet.video import Progress
from longsam.masks import FORMATS

DESCRIPTION = """\
Track many videos on the GPUs or CPUs of this machine, or of a Ray cluster (extra `fleet`).

jobs.jsonl has a video on each line, with prompts as in the file of `longsam track --prompts`:
  {"video": "a.mp4", "prompts": [{"frame": 0, "object": "bee", "box": [100, 80, 300, 260]}]}
Paths in it are relative to its folder. "name" is the masks' folder within --out, by default the
video's name.

Each worker loads the model once and tracks one video at a time, the longest first. If a worker
dies, another resumes its video. After Ctrl-C or a crash, the same command continues, and skips
videos whose masks are complete.
"""

EPILOG = """\
examples:
  longsam fleet jobs.jsonl --checkpoint sam2.1_hiera_large.pt --out masks
  longsam fleet jobs.jsonl --checkpoint sam2.1_hiera_large.pt --gpus-per-worker 1 \\
      --address auto --out s3://bucket/masks
  longsam fleet long.jsonl --checkpoint sam2.1_hiera_large.pt --together --out masks

The exit code is 1 if a video has no masks. OUT/report.json says which and why.
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "fleet",
        help="track many videos on many GPUs or machines",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jobs", type=Path, help="a file with a video and its prompts on each line")
    model.add_flags(parser)
    workers = parser.add_argument_group("the workers")
    workers.add_argument(
        "--gpus-per-worker", type=float, metavar="N",
        help="0.5 lets two share one; 0: on the CPU (1 where this machine has a GPU, else 0)",
    )  # fmt: skip
    workers.add_argument(
        "--cpus-per-worker", type=float, default=1, metavar="N",
        help="CPUs, and threads of the model (1)",
    )  # fmt: skip
    workers.add_argument("--workers", type=int, metavar="N", help="(as many as there is room for)")
    workers.add_argument(
        "--address", help="of a Ray cluster; auto: the one that runs here (none: this machine)"
    )
    workers.add_argument(
        "--together", action="store_true",
        help="one video at a time on all workers: each frame is encoded once, and the objects are "
        "split; for fewer videos than workers (off)",
    )  # fmt: skip
    workers.add_argument(
        "--part", type=_part, metavar="I/N",
        help="every Nth video from the Ith on, counted from 0, for schedulers without Ray (all)",
    )  # fmt: skip
    workers.add_argument(
        "--max-deaths", type=int, default=3, metavar="N",
        help="skip a video when this many workers died in a row without a new save (3)",
    )  # fmt: skip
    output = parser.add_argument_group("what to write")
    output.add_argument(
        "--out", required=True, help="a folder, or a URL of fsspec such as s3://... (must be given)"
    )
    output.add_argument(
        "--scratch", type=Path, metavar="DIR",
        help="where a video is tracked until it is done; a disk that all nodes see lets another "
        "node resume it (OUT/unfinished; for a URL a folder of the user's cache)",
    )  # fmt: skip
    output.add_argument(
        "--format", type=formats, default=["rle"],
        help=f"of {', '.join(FORMATS)}; with commas (rle)",
    )  # fmt: skip
    output.add_argument(
        "--save-every", type=every, default=500, metavar="N|TIME",
        help="between two saves from which a video resumes (500)",
    )  # fmt: skip
    output.add_argument(
        "--memory-window", type=int, metavar="FRAMES", help="frames remembered (31)"
    )
    output.add_argument(
        "--batch-objects", action="store_true",
        help="as in `longsam track` (off)",
    )  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.gpus_per_worker is None:
        has_gpu = torch.cuda.is_available() and not options.testing_model
        options.gpus_per_worker = 1.0 if has_gpu else 0.0
    device = options.device or ("cuda" if options.gpus_per_worker else "cpu")
    if options.gpus_per_worker and torch.device(device).type == "cpu":
        raise UsageError(f"--device is {device}, and --gpus-per-worker above 0; give one of them.")
    if ":" in device:
        raise UsageError(f"--device is {device}; Ray gives each worker its GPU, so give cuda.")
    here = copy(options)  # the GPUs may be on other machines
    here.device, here.quiet = "cpu", True
    model.check_flags(here)
    here.device = device
    here.checkpoint = options.checkpoint and options.checkpoint.absolute()
    here.run = None  # it is sent to the workers
    jobs, report = read_jobs(options.jobs), "report.json"
    if options.part is not None:
        number, count = options.part
        jobs, report = jobs[number::count], f"report_{number}_of_{count}.json"
    settings = Settings(
        formats=tuple(options.format),
        save_every=options.save_every,
        batch_objects=options.batch_objects,
        memory_window=options.memory_window,
        dtype=options.dtype,
        model=f"{options.config} {here.checkpoint.name if here.checkpoint else 'testing model'}",
    )
    try:
        rows = _track(options, jobs, settings, partial(model.load, here))
    except KeyboardInterrupt:
        print(f"Stopped. To continue: longsam {shlex.join(options.arguments)}")
        return 130
    told = {"longsam": __version__, "videos": [asdict(row) for row in rows]}
    where = Store(options.out).write_json(report, told)
    for line in table(rows):
        print(line)
    num_done = sum(row.is_done for row in rows)
    print(f"{num_done} of {len(rows)} videos have masks in {options.out}; the report is {where}")
    return 0 if num_done == len(rows) else 1


def _track(
    options: argparse.Namespace, jobs: list[Job], settings: Settings, load: Load
) -> list[Row]:
    with tqdm(unit=" frames", disable=options.quiet, smoothing=0.05) as bar:
        return (track_together if options.together else track_videos)(
            jobs,
            load,
            options.out,
            settings=settings,
            workers=Workers(
                options.workers, options.gpus_per_worker, options.cpus_per_worker, options.address
            ),
            scratch=options.scratch,
            max_deaths=options.max_deaths,
            on_progress=partial(_show, bar),
        )


def table(rows: list[Row]) -> list[str]:
    """The result of each video, as lines."""
    width = max([5, *(len(row.name) for row in rows)])
    lines = [f"{'video':{width}}  {'frames':>8}  {'seconds':>8}  {'deaths':>6}  status"]
    for row in rows:
        status = row.status
        if row.resumed_at is not None:
            status += f", resumed at frame {row.resumed_at}"
        if row.error is not None:
            status += f": {row.error}"
        lines.append(
            f"{row.name:{width}}  {row.frames:8}  {row.seconds:8.1f}  {row.deaths:6}  {status}"
        )
    return lines


def _show(bar: Any, progress: dict[str, Progress]) -> None:
    bar.total = sum(max(each.num_frames, each.num_done) for each in progress.values())
    num_videos = sum(0 < each.num_frames <= each.num_done for each in progress.values())
    bar.set_postfix({"videos": f"{num_videos}/{len(progress)}"}, refresh=False)
    bar.update(sum(each.num_done for each in progress.values()) - bar.n)
    bar.refresh()


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N, with I from 0 to N - 1")
    return int(number), int(count)
