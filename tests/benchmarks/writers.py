"""What writing masks costs, and that it takes no more memory for longer videos.

    python tests/benchmarks/writers.py

Four parts, into results/writers.json:

- memory: 20,000 frames of a live source (a generator) tracked with the testing model at an input of
  128, once for each format and once without a writer, each in a process of its own; resident memory
  after 1,000 frames and the most after that.
- cost: the released tiny config with seeded weights at 1024 x 1024, a 1080p video, three objects,
  the same frames with and without a writer (of masks, scores and time stamps), in turns.
- size: bytes on disk for each mask, 1080p, three objects of the synthetic world.
- resume: seconds and memory to resume in, and to open, an index of 500,000 frames.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from longsam.masks import FORMATS, MaskFolder, MaskWriter
from longsam.testing import SyntheticVideo, load_predictor

WARM = 1000


def track_live(name: str, num_frames: int) -> None:
    """One process: track a live source and print how much memory it takes."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    video = SyntheticVideo(1, num_frames, (240, 320), num_objects=1)
    predictor = load_predictor(hydra_overrides_extra=["++model.image_size=128"])
    state = predictor.init_state(iter(video))
    predictor.add_new_points_or_box(state, 0, 1, points=[video.click(0, 0)], labels=[1])
    process = psutil.Process()
    resident = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = state.source
        writer = MaskWriter(folder, name, video=source) if name in FORMATS else None
        for step in predictor.propagate_in_video(state):
            if writer is not None:
                writer.write(*step)
            resident.append(process.memory_info().rss)
        if writer is not None:
            writer.close()
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    later = np.array(resident[WARM:], float)
    slope = np.polyfit(np.arange(len(later)), later, 1)[0]
    numbers = {
        "frames": len(resident),
        "frames_per_second": round(len(resident) / (time.perf_counter() - started), 1),
        f"resident_mb_after_{WARM}": round(resident[WARM] / 1e6, 1),
        "most_mb_later": round(later.max() / 1e6, 1),
        "last_mb": round(resident[-1] / 1e6, 1),
        "slope_bytes_a_frame": round(float(slope), 1),
        "disk_mb": round(size / 1e6, 1),
    }
    print(json.dumps(numbers))


def memory(num_frames: int, at_once: int) -> dict[str, Any]:
    results = {}
    waiting = ["none", *FORMATS]
    while waiting:
        batch, waiting = waiting[:at_once], waiting[at_once:]
        processes = {
            name: subprocess.Popen(
                [sys.executable, __file__, "--one", name, "--frames", str(num_frames)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for name in batch
        }
        for name, process in processes.items():
            results[name] = json.loads(process.communicate()[0])
            print(name, results[name], flush=True)
    return results


def cost(num_frames: int) -> dict[str, Any]:
    """Seconds a frame of tracking with and without each writer, in turns in one process."""
    import models

    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    video = SyntheticVideo(3, 10**6, (1080, 1920), num_objects=3)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = models.save_checkpoint(Path(folder) / "tiny.pt", overrides=())
        predictor = models.build_ours(checkpoint, overrides=())
        state = predictor.init_state(video)
        for number in range(3):
            predictor.add_new_mask(state, 0, number + 1, video.masks(0)[number])
        steps = predictor.propagate_in_video(state)
        for _ in itertools.islice(steps, 8):  # from then on memory is full and frames cost the same
            pass
        seconds: dict[str, list[float]] = {}
        for turn, name in enumerate(["none", *FORMATS] * 2):
            writer = None
            if name in FORMATS:
                writer = MaskWriter(Path(folder) / str(turn), name, video=video)
            started = time.perf_counter()
            for frame_idx, obj_ids, _ in itertools.islice(steps, num_frames):
                if writer is not None:
                    # The true masks: those of seeded weights are specks, and cost more.
                    truth = torch.from_numpy(video.masks(frame_idx)[:, None]).float() - 0.5
                    scores = predictor.scores(state, frame_idx)
                    writer.write(frame_idx, obj_ids, truth, scores=scores, time=frame_idx / 30)
            if writer is not None:
                writer.close()
            seconds.setdefault(name, []).append((time.perf_counter() - started) / num_frames)
    mean = {name: statistics.mean(times) for name, times in seconds.items()}
    return {
        "frames_a_turn": num_frames,
        "seconds_a_frame": {n: [round(t, 3) for t in times] for n, times in seconds.items()},
        "cost_relative_to_none": {
            name: round(mean[name] / mean["none"] - 1, 4) for name in FORMATS
        },
        "writer_alone_ms_a_frame": writer_alone(video),
    }


def writer_alone(video: SyntheticVideo, num_frames: int = 30) -> dict[str, float]:
    """Milliseconds a frame of the worker's work, with nothing beside it."""
    frames = [
        (i, torch.from_numpy(video.masks(i)[:, None]).float() - 0.5, video.frame(i))
        for i in range(num_frames)
    ]
    milliseconds = {}
    for name in FORMATS:
        times = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                with MaskWriter(folder, name) as writer:
                    for i, masks, image in frames:
                        writer.write(i, [1, 2, 3], masks, image=image)
                times.append(1e3 * (time.perf_counter() - started) / num_frames)
        milliseconds[name] = round(statistics.median(times), 1)
    return milliseconds


def size(num_frames: int = 60) -> dict[str, Any]:
    video = SyntheticVideo(3, num_frames, (1080, 1920), num_objects=3)
    side, pixels = (1080 * 1920) ** 0.5, 1080 * 1920
    numbers = {}
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            with MaskWriter(folder, name, video=video) as writer:
                for i in range(num_frames):
                    masks = torch.from_numpy(video.masks(i)[:, None]).float() - 0.5
                    writer.write(i, [1, 2, 3], masks)
            total = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        numbers[name] = {
            "bytes_a_frame": round(total / num_frames),
            "bytes_a_mask_over_sqrt_pixels": round(total / num_frames / 3 / side, 2),
            "bytes_a_frame_over_pixels": round(total / num_frames / pixels, 4),
        }
    return numbers


def resume(num_frames: int = 500_000) -> dict[str, Any]:
    """Of an index of "rle" and "png" with two objects a frame, as if it had been written."""
    with tempfile.TemporaryDirectory() as name:
        folder, formats = Path(name), ["rle", "png"]
        with MaskWriter(folder, formats) as writer:
            writer.write(0, [1, "bee"], torch.ones(2, 32, 48))
        path = folder / "frames.jsonl"
        header, first = path.read_bytes().split(b"\n")[:2]
        content = json.loads(first)
        del content["new"]
        after = json.dumps(content, separators=(",", ":")).encode().removeprefix(b'{"frame":0')
        lines = (b'{"frame":%d%s' % (i, after) for i in range(1, num_frames))
        path.write_bytes(b"\n".join([header, first, *lines, b""]))
        numbers: dict[str, Any] = {"frames": num_frames, "index_mb": path.stat().st_size / 1e6}
        begins: dict[str, Any] = {
            "writer": lambda: MaskWriter(folder, formats, resume=True),
            "folder": lambda: MaskFolder(folder),
        }
        for kind, begin in begins.items():
            seconds, cpu_seconds = time.perf_counter(), time.process_time()
            opened = begin()
            numbers[f"{kind}_seconds"] = round(time.perf_counter() - seconds, 2)
            numbers[f"{kind}_cpu_seconds"] = round(time.process_time() - cpu_seconds, 2)
            if kind == "writer":
                opened.close()
            tracemalloc.start()
            opened = begin()
            held, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            numbers[f"{kind}_bytes_a_frame"] = round(held / num_frames, 2)
            numbers[f"{kind}_bytes_a_frame_while_opening"] = round(most / num_frames, 2)
            if kind == "writer":
                opened.close()
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--cost-frames", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument(
        "--parts", default="size,cost,memory,resume", help="the others stay as they are"
    )
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        track_live(options.one, options.frames)
        return
    numbers = report.numbers_so_far("writers")
    parts = options.parts.split(",")
    if "size" in parts:
        numbers["size"] = size()
    if "resume" in parts:
        numbers["resume"] = resume()
    if "cost" in parts:
        numbers["cost"] = cost(options.cost_frames)
    if "memory" in parts:
        numbers["memory"] = memory(options.frames, options.at_once)
    print(json.dumps(numbers, indent=1))
    print(report.write("writers", numbers))


if __name__ == "__main__":
    main()
