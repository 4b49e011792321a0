"""What memory policies do on hard generated videos, with the testing model.

    python tests/benchmarks/policies.py --videos 120          # one object a video
    python tests/benchmarks/policies.py --videos 4 --frames 5000 --name policies_long

Seeds from 3000 on, on which nothing was chosen. One object, `seed % num_objects`, is prompted with
its mask on the first frame on which it shows. Each video goes through upstream's rule, the three
policies, and upstream's rule with SAMURAI's threshold of presence. Per video and method:

- J: mean IoU over later frames on which the truth shows at least 16 pixels;
- absent: the share of frames without the object on which the mask is empty;
- found: of the times the object came back after at least 5 frames without it, how often the mask
  overlaps it by an IoU over 0.5 within 15 frames;
- Q: mean over later frames of the IoU where the truth shows at least 16 pixels, and of 1 for an
  empty mask and 0 for another where it shows none (frames of 1 to 15 pixels do not count);
- CPU time a frame, and bytes of the state without features and frames at the end.

It does not show what happens with the released models on real video: the model is small and the
videos are generated. Adds to results/NAME.json video after video, and goes on where it stopped.
"""

import argparse
import time
import warnings
from typing import Any

import numpy as np
import report
import torch

from longsam.policies import Upstream
from longsam.testing import SyntheticVideo, iou, load_predictor

FIRST_SEED = 3000
FEWEST_PIXELS = 16


class LowPresence(Upstream):
    """Upstream's rule with SAMURAI's threshold of presence."""

    name = "low_presence"
    presence = -1.0


METHODS: dict[str, Any] = {
    "none": None,
    "low_presence": LowPresence(),
    "samurai": "samurai",
    "dam4sam": "dam4sam",
    "sam2long": "sam2long",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="policies")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")

    predictor = load_predictor()
    videos = report.numbers_so_far(options.name).get("videos", {})
    for seed in range(FIRST_SEED, FIRST_SEED + options.videos):
        if str(seed) in videos:
            continue
        videos[str(seed)] = {
            method: follow(predictor, policy, seed, options.frames)
            for method, policy in METHODS.items()
        }
        print(seed, {m: round(one["Q"], 3) for m, one in videos[str(seed)].items()}, flush=True)
        report.write(options.name, {"videos": videos, "all": summary(videos)})
    print(summary(videos))


def follow(predictor: Any, policy: Any, seed: int, num_frames: int) -> dict[str, float]:
    video = SyntheticVideo(seed, num_frames, (192, 192), "hard")
    target = seed % video.num_objects
    start = next(i for i in range(num_frames) if video.visible(i)[target])
    overlaps, pixels, shown = [], [], []
    with predictor.init_state(video, memory_policy=policy) as state:
        predictor.add_new_mask(state, start, 1, video.masks(start)[target])
        spent = 0.0
        steps = predictor.propagate_in_video(state, progress_bar=False)
        while True:
            began = time.process_time()
            step = next(steps, None)
            spent += time.process_time() - began
            if step is None:
                break
            if step[0] > start:
                mask, truth = (step[2][0, 0] > 0).numpy(), video.masks(step[0])[target]
                overlaps.append(float(iou(mask, truth)))
                pixels.append(int(truth.sum()))
                shown.append(bool(mask.any()))
        usage = predictor.memory_usage(state)
    held = sum(usage[kind]["cpu"] for kind in usage if kind not in {
        "cached_features", "frame_buffer", "total"})  # fmt: skip
    visible, absent = np.array(pixels) >= FEWEST_PIXELS, np.array(pixels) == 0
    empty, overlap = ~np.array(shown), np.array(overlaps)
    returns, found = came_back(visible, absent, overlap)
    counted = visible | absent
    return {
        "J": float(overlap[visible].mean()) if visible.any() else float("nan"),
        "Q": float(np.where(visible, overlap, empty)[counted].mean()),
        "Q_of_nothing": float(absent[counted].mean()),
        "num_visible": int(visible.sum()),
        "num_absent": int(absent.sum()),
        "num_absent_called_absent": int((absent & empty).sum()),
        "num_returns": returns,
        "num_found": found,
        "cpu_ms_a_frame": 1e3 * spent / (len(overlaps) + 1),
        "state_bytes": held,
    }


def came_back(visible: Any, absent: Any, overlap: Any) -> tuple[int, int]:
    """How often the object came back after 5 frames or more without it, and was found again."""
    returns = found = gone = 0
    for i in range(len(visible)):
        if absent[i]:
            gone += 1
        elif visible[i]:
            if gone >= 5:
                returns += 1
                found += bool((overlap[i : i + 15] > 0.5).any())
            gone = 0
    return returns, found


def summary(videos: dict[str, Any]) -> dict[str, Any]:
    """Means over videos, and a paired bootstrap of the difference from upstream's rule."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(videos), (10_000, len(videos)))
    of_all = {}
    for method in METHODS:
        rows = [video[method] for video in videos.values()]
        plain = [video["none"] for video in videos.values()]
        one: dict[str, Any] = {"videos": len(rows)}
        for measure in ("J", "Q"):
            values = np.array([row[measure] for row in rows])
            differences = values - np.array([row[measure] for row in plain])
            means = np.nanmean(differences[drawn], axis=1)
            one[measure] = round(float(np.nanmean(values)), 4)
            one[f"{measure}_less_none"] = [
                round(float(x), 4)
                for x in (np.nanmean(differences), *np.quantile(means, (0.025, 0.975)))
            ]
        for part, whole in (
            ("num_absent_called_absent", "num_absent"),
            ("num_found", "num_returns"),
        ):
            one[part] = [sum(row[part] for row in rows), sum(row[whole] for row in rows)]
        one["Q_of_nothing"] = round(float(np.mean([row["Q_of_nothing"] for row in rows])), 4)
        for measure in ("cpu_ms_a_frame", "state_bytes"):
            one[f"median_{measure}"] = round(float(np.median([row[measure] for row in rows])), 1)
        of_all[method] = one
    return of_all


if __name__ == "__main__":
    main()
