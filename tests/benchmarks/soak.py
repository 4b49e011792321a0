"""One million frames of a real H.264 file in one pass: memory, time, files and threads, by tenth.

    python tests/benchmarks/soak.py                  # about two hours on one core; 2 GB of disk

A small model of upstream's architecture with seeded weights follows one object at an input size of
64, with a bounded window, its masks written by `MaskWriter` and its state saved every 10,000
frames. Writes results/soak.json; interrupted, of the frames until then. Times are CPU time of the
process, so that other work on the machine counts less. `tests/test_soak.py` runs a shorter form.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

SIDE = 64
EVERY = 500
"""Frames between two samples."""


def track(video: Path, folder: Path, save_every: int) -> Iterator[dict[str, int]]:
    """Track the whole video; a sample every so many frames."""
    import models

    from longsam import Autosave
    from longsam.masks import MaskWriter

    overrides = [*models.SMALL[1:], f"++model.image_size={SIDE}"]
    checkpoint = models.save_checkpoint(folder / "model.pt", overrides=overrides)
    predictor = models.build_ours(checkpoint, overrides=overrides)
    process = psutil.Process()
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, points=[[SIDE / 2, SIDE / 2]], labels=[1])
    area = 0
    with MaskWriter(folder / "masks") as writer:
        for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(
            state,
            autosave=Autosave(folder / "state.pt", save_every, writer.flush),
        ):
            writer.write(frame_idx, obj_ids, mask_logits)
            area += int((mask_logits > 0).sum())
            if (frame_idx + 1) % EVERY == 0:
                yield {
                    "frame": frame_idx,
                    "resident": process.memory_info().rss,
                    "state": sum(predictor.memory_usage(state)["total"].values()),
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                    "cpu_us": time.process_time_ns() // 1000,
                    "area": area,
                }


def summary(samples: list[dict[str, int]]) -> dict[str, Any]:
    """By tenth of the run; the slope leaves out the first tenth."""
    tenths = np.array_split(np.arange(len(samples)), 10)
    of = {name: np.array([sample[name] for sample in samples]) for name in samples[0]}

    def most(name: str) -> list[int]:
        return [int(of[name][tenth].max()) for tenth in tenths]

    late = np.concatenate(tenths[1:])
    slope = np.polyfit(of["frame"][late], of["resident"][late], 1)[0]
    ends = [0, *(tenth[-1] for tenth in tenths)]
    return {
        "frames": samples[-1]["frame"] + 1,
        "mean_area": round(samples[-1]["area"] / samples[-1]["frame"], 1),
        "resident_slope_bytes_per_frame": round(float(slope), 2),
        "resident_by_tenth": most("resident"),
        "state_bytes_by_tenth": most("state"),
        "open_files_by_tenth": most("files"),
        "threads_by_tenth": most("threads"),
        "cpu_ms_per_frame_by_tenth": [
            round(
                float(of["cpu_us"][b] - of["cpu_us"][a])
                / 1000
                / float(of["frame"][b] - of["frame"][a]),
                3,
            )
            for a, b in pairwise(ends)
        ],
    }


def main() -> None:
    import report
    import torch
    import videos

    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--track", type=Path)
    parser.add_argument("--save-every", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.track:
        for sample in track(options.track, options.track.parent, options.save_every):
            print(json.dumps(sample), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        video = videos.write_video(
            Path(folder) / "video.mp4", options.frames, SIDE, SIDE, options={"preset": "ultrafast"}
        )
        command = [sys.executable, __file__, "--track", str(video)]
        samples = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as worker:
            assert worker.stdout is not None
            try:
                for line in worker.stdout:
                    samples.append(json.loads(line))
                    if len(samples) % 20 == 0:
                        print(line.strip(), flush=True)
            except KeyboardInterrupt:  # what there is counts
                worker.kill()
        assert worker.returncode in (0, -9), worker.returncode
        numbers = summary(samples)
        numbers["saves"] = numbers["frames"] // 10_000
        numbers["masks_mb"] = round((Path(folder) / "masks" / "masks.jsonl").stat().st_size / 1e6)
    print(json.dumps(numbers, indent=1))
    print(report.write("soak", numbers))


if __name__ == "__main__":
    main()
