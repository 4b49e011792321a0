"""Fleets for tests and benchmarks: jobs, the command as a process, its workers, single runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from longsam.fleet import Job
from longsam.masks import MaskWriter
from longsam.testing import SyntheticVideo, load_predictor

FILES = ("frames.jsonl", "masks.jsonl")


def write_jobs(
    folder: Path, lengths: Sequence[int], size: tuple[int, int] = (240, 320)
) -> list[Job]:
    """Encode videos, and write a jobs.jsonl that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs, lines = [], []
    for number, num_frames in enumerate(lengths):
        video = SyntheticVideo(2 * number + 1, num_frames, size)
        name = f"video_{number:02d}"
        video.write(folder / f"{name}.mp4")
        prompts: list[dict[str, Any]] = [
            {"frame": 0, "object": i + 1, "box": [float(x) for x in video.box(0, i)]}
            for i in range(video.num_objects)
        ]
        lines.append(json.dumps({"video": f"{name}.mp4", "prompts": prompts}))
        jobs.append(Job(str(folder / f"{name}.mp4"), tuple(prompts)))
    (folder / "jobs.jsonl").write_text("\n".join(lines) + "\n")
    return jobs


def single_run(job: Job, out: Path, load: Callable[[], Any] = load_predictor) -> float:
    """The masks of a job without a fleet, on one thread; returns the seconds."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor = load()
    began = time.perf_counter()
    with predictor.init_state(job.video) as state, MaskWriter(out) as writer:
        for prompt in job.prompts:
            predictor.add_new_points_or_box(
                state, prompt["frame"], prompt["object"], box=prompt["box"]
            )
        for step in predictor.propagate_in_video(state, progress_bar=False):
            writer.write(
                *step,
                scores=predictor.scores(state, step[0]),
                time=state.source.time(step[0]),
            )
    torch.set_num_threads(num_threads)
    return time.perf_counter() - began


def environment() -> dict[str, str]:
    """Of a process that finds this longsam, and what else is on the path here."""
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@contextmanager
def started(folder: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """`longsam fleet` of a folder's jobs into its `out`, as a process of its own."""
    command = [sys.executable, "-m", "longsam", "fleet", str(folder / "jobs.jsonl")]
    command += ["--testing-model", "--out", str(folder / "out"), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def family(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    """All processes that a driver has started."""
    try:
        return psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The workers of a driver, by the title that Ray gives to the process of an actor.

    While a call runs, the title may have its name: "ray::Worker.track".
    """
    found = []
    for process in family(driver):
        try:
            title = "".join(process.cmdline()[:1])
            if title.split(".")[0] in ("ray::Worker", "ray::PartWorker"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
    """What a callable gives as soon as it gives something."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def saved(folder: Path) -> set[str]:
    """The names of the videos of which there is a save."""
    return {path.parent.name for path in (folder / "out" / "unfinished").glob("*/state.pt")}


def same_masks(one: Path, other: Path) -> bool:
    """Whether two folders hold the same masks, byte for byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)
