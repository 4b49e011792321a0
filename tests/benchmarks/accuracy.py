"""J over long videos, upstream beside longsam, with the testing model.

    python tests/benchmarks/accuracy.py --videos 2

Each video has 5,000 frames (seeds 100, 101, ... of examples/train_testing_model/evaluate.py, here
encoded as H.264); one object is clicked on frame 0. J is the mean IoU over the frames of a block of
500 on which the object is visible, frame 0 left out. Upstream keeps all frames: 2.2 GB at 192 x
192. Both must give the same masks, frame by frame. Writes results/accuracy.json and accuracy.png.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import report
from sam2.build_sam import build_sam2_video_predictor

from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo, iou, load_predictor

BLOCK = 500
FIRST_SEED = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=int, default=2, help="of each difficulty")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")

    results = []
    with tempfile.TemporaryDirectory() as folder:
        for difficulty in ("easy", "hard"):
            for seed in range(FIRST_SEED, FIRST_SEED + options.videos):
                video = SyntheticVideo(seed, options.frames, difficulty=difficulty)
                path = Path(folder) / f"{difficulty}{seed}.mp4"
                started = time.perf_counter()
                video.write(path)
                written = time.perf_counter() - started
                results.append(compare(video, path))
                results[-1]["generate_and_encode_ms_a_frame"] = 1e3 * written / options.frames
                print(results[-1])
    results_by_side = {"videos": results, "generation_ms_a_frame": generation_time()}
    print(report.write("accuracy", results_by_side))
    plot(results, report.RESULTS / "accuracy.png")


def compare(video: SyntheticVideo, path: Path) -> dict[str, Any]:
    target = video.seed % video.num_objects
    scores, seconds, hashes = {}, {}, {}
    for side in ("upstream", "longsam"):
        predictor: Any = load_predictor()
        if side == "upstream":
            predictor = build_sam2_video_predictor(
                CONFIG, str(CHECKPOINT), device="cpu", hydra_overrides_extra=list(OVERRIDES)
            )
        started = time.perf_counter()
        state = predictor.init_state(str(path))
        predictor.add_new_points_or_box(state, 0, 1, points=[video.click(0, target)], labels=[1])
        scores[side], hashes[side] = [], []
        for i, _, mask_logits in predictor.propagate_in_video(state):
            mask = (mask_logits[0, 0] > 0).numpy()
            seen = i > 0 and video.visible(i)[target]
            scores[side].append(float(iou(mask, video.masks(i)[target])) if seen else np.nan)
            hashes[side].append(hash(mask_logits.numpy().tobytes()))
        seconds[side] = time.perf_counter() - started
    np.testing.assert_array_equal(scores["upstream"], scores["longsam"])
    return {
        "difficulty": video.difficulty,
        "seed": video.seed,
        "frames": len(scores["longsam"]),
        "logits_equal_frames": int(
            np.sum(np.array(hashes["upstream"]) == np.array(hashes["longsam"]))
        ),
        "frames_per_second": {s: round(len(scores[s]) / seconds[s], 1) for s in seconds},
        "J_by_block": {
            side: [
                round(float(np.nanmean(values[at : at + BLOCK])), 4)
                for at in range(0, len(values), BLOCK)
            ]
            for side, values in scores.items()
        },
    }


def generation_time() -> dict[str, float]:
    """Milliseconds a frame at 256 x 256, frame and masks, over 500 frames."""
    times = {}
    for difficulty in ("easy", "hard"):
        video = SyntheticVideo(0, 500, difficulty=difficulty)
        started = time.perf_counter()
        for i in range(500):
            video.frame(i)
            video.masks(i)
        times[difficulty] = round((time.perf_counter() - started) * 1e3 / 500, 2)
    return times


def plot(results: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, difficulty in zip(axes, ("easy", "hard"), strict=True):
        for video in (r for r in results if r["difficulty"] == difficulty):
            blocks = video["J_by_block"]
            ends = BLOCK * np.arange(1, len(blocks["longsam"]) + 1)
            label = f"seed {video['seed']}"
            (line,) = axis.plot(ends, blocks["upstream"], linewidth=6, alpha=0.35)
            axis.plot(ends, blocks["longsam"], color=line.get_color(), label=label, marker=".")
        axis.set(
            title=f"{difficulty}: upstream (wide), longsam (thin)", xlabel="frame", ylim=(0, 1)
        )
        axis.legend()
    axes[0].set_ylabel(f"J over {BLOCK} frames")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
