"""Measure a testing model on videos it was never trained on.

    python evaluate.py                                        # the shipped weights
    python evaluate.py --checkpoint out/testing_model/testing_model.pt --clips 6 --long 0
    python evaluate.py --first-seed 2000 --long 0             # to choose between weights by

The videos were fixed before training: of each difficulty 30 of 300 frames (seeds 0 to 29) and 5 of
5,000 (seeds 100 to 104), 256 x 256. In each one object (number seed % num_objects) is prompted on
frame 0 by a click, a box and its mask, tracked separately. J is the IoU over the frames on which
the object is visible (at least a thousandth of the frame), frame 0 left out, averaged per video
first. An absent object (no pixel is visible) counts as recognized if its mask is empty.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import sys
import time
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longsam import build_long_video_predictor
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo, iou

PROMPTS = ("click", "box", "mask")
CLIPS = [(seed, 300) for seed in range(30)]
LONG = [(seed, 5000) for seed in range(100, 105)]
BLOCK = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--first-seed", type=int, default=0, help="added to every seed")
    parser.add_argument("--clips", type=int, default=len(CLIPS), help="of 300 frames, a difficulty")
    parser.add_argument("--long", type=int, default=len(LONG), help="of 5,000 frames")
    parser.add_argument("--image-size", type=int, help="of the model; default: the shipped size")
    parser.add_argument("--json", type=Path, default=Path("evaluation.json"))
    options = parser.parse_args()

    work = [
        (difficulty, options.first_seed + seed, frames)
        for difficulty in ("easy", "hard")
        for seed, frames in LONG[: options.long] + CLIPS[: options.clips]
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        videos = []
        for video in pool.imap(partial(measure, options), work, chunksize=1):
            videos.append(video)
            print({k: v for k, v in video.items() if k != "J_by_block"}, flush=True)
    result = {
        "environment": environment(options),
        "summary": {
            difficulty: summary([v for v in videos if v["difficulty"] == difficulty])
            for difficulty in ("easy", "hard")
        },
        "videos": videos,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


def measure(options: argparse.Namespace, video: tuple[str, int, int]) -> dict[str, Any]:
    """Track one object from three prompts through one video."""
    difficulty, seed, num_frames = video
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    size = [f"++model.image_size={options.image_size}"] if options.image_size else []
    predictor = build_long_video_predictor(
        CONFIG,
        str(options.checkpoint),
        device=options.device,
        hydra_overrides_extra=[*OVERRIDES, *size],
    )
    synthetic = SyntheticVideo(seed, num_frames, difficulty=difficulty)
    target = seed % synthetic.num_objects
    state = predictor.init_state(synthetic)
    predictor.add_new_points_or_box(state, 0, "click", [synthetic.click(0, target)], [1])
    predictor.add_new_points_or_box(state, 0, "box", box=synthetic.box(0, target))
    predictor.add_new_mask(state, 0, "mask", synthetic.masks(0)[target])
    scores = np.full((num_frames, len(PROMPTS)), np.nan)
    absent, called_absent = 0, np.zeros(len(PROMPTS))
    started = time.perf_counter()
    for i, _, mask_logits in predictor.propagate_in_video(state):
        masks, truth = (mask_logits[:, 0] > 0).cpu().numpy(), synthetic.masks(i)[target]
        if i > 0 and synthetic.visible(i)[target]:
            scores[i] = iou(masks, truth)
        elif not truth.any():
            absent += 1
            called_absent += ~masks.any(axis=(1, 2))
    seconds = time.perf_counter() - started
    blocks = [scores[at : at + BLOCK] for at in range(0, num_frames, BLOCK)]
    return {
        "difficulty": difficulty,
        "seed": seed,
        "frames": num_frames,
        "J": by_prompt(np.nanmean(scores, axis=0)),
        "J_by_block": [by_prompt(np.nanmean(block, axis=0)) for block in blocks],
        "visible_frames": int((~np.isnan(scores[:, 0])).sum()),
        "absent_frames": absent,
        "called_absent": dict(zip(PROMPTS, called_absent.astype(int).tolist(), strict=True)),
        "frames_per_second_three_objects": round(num_frames / seconds, 1),
    }


def summary(videos: list[dict[str, Any]]) -> dict[str, Any]:
    """The label of the bars."""
    clips = [v for v in videos if v["frames"] == 300]
    long = [v for v in videos if v["frames"] > 300]
    result: dict[str, Any] = {}
    if clips:
        scores = np.array([list(v["J"].values()) for v in clips])
        absent = sum(v["absent_frames"] for v in videos)
        called = np.sum([list(v["called_absent"].values()) for v in videos], axis=0)
        result["J_mean"] = by_prompt(scores.mean(axis=0))
        result["J_median"] = by_prompt(np.median(scores, axis=0))
        result["J_lowest"] = by_prompt(scores.min(axis=0))
        result["absent_frames"] = absent
        result["absent_called_absent"] = by_prompt(called / max(1, absent))
    if long:
        result["long_J_mean"] = by_prompt(np.mean([list(v["J"].values()) for v in long], axis=0))
        result["long_J_last_500_frames"] = [v["J_by_block"][-1] for v in long]
    return result


def by_prompt(values: Any) -> dict[str, float]:
    return {prompt: round(float(value), 4) for prompt, value in zip(PROMPTS, values, strict=True)}


def environment(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {n: metadata.version(n) for n in ("longsam", "sam2", "torch", "numpy")},
    }


if __name__ == "__main__":
    main()
