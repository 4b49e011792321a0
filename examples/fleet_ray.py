"""Track many videos on many GPUs or CPUs, and lose none to a worker that dies.

    pip install -e '.[fleet]'
    python examples/fleet_ray.py                                      # three generated videos
    python examples/fleet_ray.py --jobs jobs.json --out masks --gpus-per-worker 1 \
        --config configs/sam2.1/sam2.1_hiera_l.yaml --checkpoint sam2.1_hiera_large.pt

jobs.json is a list of {"video": "a.mp4", "prompts": [{"frame": 0, "object": "bee", "box": [x0, y0,
x1, y1]}, {"frame": 0, "object": "wasp", "points": [[x, y]], "labels": [1]}]}. Each video is a task
of Ray (https://docs.ray.io) in its own worker. It saves its state every --save-every frames
beside its masks. Ray restarts a worker that is killed, and the worker resumes from its save, with
the masks that it would have given.

--split-objects tracks the objects of one video in several workers, one for each object, and merges
their masks. That needs no shared state, since upstream tracks objects independently.
"""

import argparse
import json
import os
import shutil
import time
import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from longsam import Autosave, LongVideoPredictor, build_long_video_predictor
from longsam.masks import MaskFolder, MaskWriter
from longsam.testing import SyntheticVideo, load_predictor

Job = dict[str, Any]


def build(options: argparse.Namespace) -> LongVideoPredictor:
    # Upstream says so on every machine without its compiled extension.
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    device = "cuda" if options.gpus_per_worker else "cpu"
    if options.checkpoint is None:
        return load_predictor(device=device)
    return build_long_video_predictor(options.config, options.checkpoint, device=device)


def track(job: Job, options: argparse.Namespace, board: Any) -> dict[str, Any]:
    """Track one video, from its last save if there is one."""
    predictor = build(options)
    folder = Path(job["out"])
    folder.mkdir(parents=True, exist_ok=True)
    save_path = folder / "state.pt"
    if save_path.exists():
        state = predictor.load_state(save_path)
        writer = MaskWriter(folder / "masks", resume=state)
        propagate = predictor.resume_propagation
    else:
        state = predictor.init_state(job["video"])
        for prompt in job["prompts"]:
            given = {name: prompt[name] for name in ("points", "labels", "box") if name in prompt}
            predictor.add_new_points_or_box(state, prompt["frame"], prompt["object"], **given)
        # Masks that were written before the first save are written again.
        writer = MaskWriter(folder / "masks", resume=state)
        propagate = partial(predictor.propagate_in_video, start_frame_idx=job.get("start"))
    started = time.perf_counter()
    first = 0 if writer.last_frame_idx is None else writer.last_frame_idx + 1
    board.note.remote(job["name"], first, state["num_frames"], os.getpid())
    with writer:
        autosave = Autosave(save_path, every=options.save_every, before_save=writer.flush)
        for frame_idx, obj_ids, mask_logits in propagate(state, autosave=autosave):
            writer.write(frame_idx, obj_ids, mask_logits)
            if frame_idx % 10 == 0:
                board.note.remote(job["name"], frame_idx + 1, state["num_frames"], os.getpid())
    seconds = time.perf_counter() - started
    frames = len(MaskFolder(folder / "masks").frames)
    board.note.remote(job["name"], frames, state["num_frames"], os.getpid())
    return {"name": job["name"], "frames": frames, "from": first, "seconds": round(seconds, 1)}


@ray.remote(num_cpus=0)
class Board:
    """How far each video is, for the progress line and the tests."""

    def __init__(self) -> None:
        self.progress: dict[str, tuple[int, int, int]] = {}

    def note(self, name: str, done: int, total: int, pid: int) -> None:
        self.progress[name] = (done, total, pid)

    def read(self) -> dict[str, tuple[int, int, int]]:
        return self.progress


def run(jobs: list[Job], options: argparse.Namespace, on_progress: Any = None) -> list[Any]:
    """Run all jobs; returns a row for each, an exception for one that failed for good."""
    board = Board.remote()
    # Ray restarts a task when its worker dies, not when the task raises: a video that cannot be
    # read fails once, and the others continue.
    task = ray.remote(
        num_cpus=options.cpus_per_worker,
        num_gpus=options.gpus_per_worker,
        max_retries=options.retries,
        max_calls=1,  # a process for each video
    )(track)
    waiting = {task.remote(job, options, board): number for number, job in enumerate(jobs)}
    rows: list[Any] = [None] * len(jobs)
    known: Any = None
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=1.0)
        for reference in done:
            number = waiting.pop(reference)
            try:
                rows[number] = ray.get(reference)
            except ray.exceptions.RayError as error:
                rows[number] = error
        progress = ray.get(board.read.remote())
        if on_progress is not None and progress != known:
            on_progress(progress)
        known = progress
    return rows


def split_objects(job: Job) -> list[Job]:
    """One job for each object of a job; all start where the whole would."""
    start = min(prompt["frame"] for prompt in job["prompts"])
    names = list(dict.fromkeys(prompt["object"] for prompt in job["prompts"]))
    return [
        {
            **job,
            "name": f"{job['name']} {name}",
            "out": str(Path(job["out"]) / f"object_{number}"),
            "start": start,
            "prompts": [prompt for prompt in job["prompts"] if prompt["object"] == name],
        }
        for number, name in enumerate(names)
    ]


def merge(parts: list[Job], out: Path) -> None:
    """Write the masks of jobs that have one object each as those of one video."""
    folders = [MaskFolder(Path(part["out"]) / "masks") for part in parts]
    shutil.rmtree(out / "masks", ignore_errors=True)  # of an earlier run
    with MaskWriter(out / "masks") as writer:
        for frame_idx in sorted({frame for folder in folders for frame in folder.frames}):
            found = [folder.read(frame_idx) for folder in folders if frame_idx in folder.frames]
            ids = [obj_id for frame in found for obj_id in frame.obj_ids]
            masks = np.concatenate([frame.masks for frame in found])
            writer.write(frame_idx, ids, torch.from_numpy(masks[:, None]))


def generated_jobs(folder: Path, num_frames: int) -> list[Job]:
    jobs = []
    folder.mkdir(parents=True, exist_ok=True)
    for seed in (1, 3, 5):
        video = SyntheticVideo(seed, num_frames)
        path = folder / f"video_{seed}.mp4"
        video.write(path)
        prompts = [
            {"frame": 0, "object": number + 1, "box": video.box(0, number)}
            for number in range(video.num_objects)
        ]
        jobs.append({"video": str(path), "prompts": prompts})
    return jobs


def print_progress(progress: dict[str, tuple[int, int, int]]) -> None:
    done, total = (sum(row[i] for row in progress.values()) for i in (0, 1))
    each = ", ".join(f"{name} {row[0]}/{row[1]}" for name, row in sorted(progress.items()))
    print(f"\r{done} of {total} frames: {each}", end="", flush=True)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=Path, help="a JSON file; default: generated videos")
    parser.add_argument("--out", type=Path, default=Path("out/fleet"))
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_l.yaml")
    parser.add_argument("--checkpoint", help="default: the small model that comes with longsam")
    parser.add_argument("--gpus-per-worker", type=float, default=0)
    parser.add_argument("--cpus-per-worker", type=float, default=1)
    parser.add_argument("--address", help="of a Ray cluster; default: this machine")
    parser.add_argument("--save-every", type=int, default=500, help="frames")
    parser.add_argument("--retries", type=int, default=20, help="of a video whose worker dies")
    parser.add_argument("--split-objects", action="store_true")
    parser.add_argument("--frames", type=int, default=150, help="of generated videos")
    return parser.parse_args(words)


def main() -> None:
    options = parse()
    given = options.jobs and json.loads(options.jobs.read_text())
    jobs = given or generated_jobs(options.out / "videos", options.frames)
    for number, job in enumerate(jobs):
        stem = Path(job["video"]).stem
        job["video"] = os.path.abspath(job["video"])
        job["name"] = f"{number:03d}_{stem}"
        job["out"] = os.path.abspath(options.out / job["name"])
    ray.init(address=options.address, log_to_driver=False, configure_logging=False)
    parts = [split_objects(job) if options.split_objects else [job] for job in jobs]
    rows = run([job for of_video in parts for job in of_video], options, print_progress)
    print()
    if options.split_objects:
        of_parts = iter(rows)
        for job, of_video in zip(jobs, parts, strict=True):
            if all([isinstance(row, dict) for row in islice(of_parts, len(of_video))]):
                merge(of_video, Path(job["out"]))
    print(f"{'video':30} {'frames':>8} {'from frame':>10} {'seconds':>8}")
    for of_job, row in zip([job for of_video in parts for job in of_video], rows, strict=True):
        if isinstance(row, dict):
            print(f"{row['name']:30} {row['frames']:8} {row['from']:10} {row['seconds']:8}")
        else:
            print(f"{of_job['name']:30} failed: {str(row).strip().splitlines()[-1]}")
    if not all(isinstance(row, dict) for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
