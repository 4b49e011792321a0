"""How much of what goes wrong `longsam.masks.review` finds, and how much of what it flags is wrong.

    python tests/benchmarks/review.py

Into results/review.json: hard generated videos of 400 frames, tracked with the testing model, every
object clicked on frame 0; seeds from 5000 on, none of which chose a weight or a threshold (those
were seeds 2000 to 2019 and 4000 to 4029). A frame of an object is bad where the IoU with the truth
is below 0.5; a mask on an absent object has IoU 0, none on an absent object 1. Frames on which less
than a thousandth of the frame shows of the object are left out, as in
examples/train_testing_model/evaluate.py. A bad span has at least 5 frames; it is found if a span of
the review of the same object has one of its frames.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch

from longsam.masks import MaskFolder, MaskWriter, review
from longsam.testing import SyntheticVideo, iou, load_predictor

LEAST_FRAMES = 5
BAD = 0.5


def track(predictor: Any, seed: int, num_frames: int, folder: Path) -> None:
    """Masks with scores into a folder, and beside it the IoU with the truth, frames x objects."""
    video = SyntheticVideo(seed, num_frames, difficulty="hard")
    state = predictor.init_state(video, batch_objects=True)
    numbers = [n for n in range(video.num_objects) if video.visible(0)[n]]
    for number in numbers:
        click = video.click(0, number)
        predictor.add_new_points_or_box(state, 0, number + 1, [click], [1])
    scores = np.full((num_frames, len(numbers)), np.nan)
    with MaskWriter(folder) as writer:
        for i, obj_ids, logits in predictor.propagate_in_video(state):
            writer.write(i, obj_ids, logits, scores=predictor.scores(state, i), time=i / 30)
            truth, visible = video.masks(i)[numbers], video.visible(i)[numbers]
            counts = visible | ~truth.any(axis=(1, 2))
            scores[i] = np.where(counts, iou(logits[:, 0] > 0, truth), np.nan)
    np.save(folder.with_suffix(".npy"), scores)


def runs(bad: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= LEAST_FRAMES]


def measure(folder: Path) -> dict[str, Any]:
    """Counts of one video."""
    scores = np.load(folder.with_suffix(".npy"))
    ids = MaskFolder(folder).all_obj_ids()
    flagged = np.zeros(scores.shape, bool)
    spans = review(folder)
    for span in spans:
        flagged[span.start : span.stop + 1, ids.index(span.obj_id)] = True
    counts, bad = ~np.isnan(scores), scores < BAD
    found = half = num_bad_spans = 0
    for number in range(len(ids)):
        for start, stop in runs(bad[:, number]):
            num_bad_spans += 1
            found += bool(flagged[start:stop, number].any())
            half += bool(flagged[start:stop, number].mean() >= 0.5)
    return {
        "seed": int(folder.name),
        "frames_of_objects": int(counts.sum()),
        "left_out": int((~counts).sum()),
        "mean_iou": round(float(np.nanmean(scores)), 4),
        "bad": int(bad.sum()),
        "flagged": int((flagged & counts).sum()),
        "flagged_and_bad": int((flagged & bad).sum()),
        "bad_spans": num_bad_spans,
        "bad_spans_found": found,
        "bad_spans_half_flagged": half,
        "spans": len(spans),
    }


def summary(videos: list[dict[str, Any]]) -> dict[str, Any]:
    total = {key: sum(video[key] for video in videos) for key in videos[0] if key != "mean_iou"}
    base = total["bad"] / total["frames_of_objects"]
    precision = total["flagged_and_bad"] / max(1, total["flagged"])
    return {
        "videos": len(videos),
        "frames_of_objects": total["frames_of_objects"],
        "mean_iou": round(float(np.mean([video["mean_iou"] for video in videos])), 3),
        "base_rate": round(base, 3),
        "flagged_share": round(total["flagged"] / total["frames_of_objects"], 3),
        "precision": round(precision, 3),
        "precision_over_base_rate": round(precision / base, 2),
        "bad_spans": total["bad_spans"],
        "recall_of_bad_spans": round(total["bad_spans_found"] / max(1, total["bad_spans"]), 3),
        "bad_spans_half_flagged": round(
            total["bad_spans_half_flagged"] / max(1, total["bad_spans"]), 3
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first-seed", type=int, default=5000)
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--work", type=Path, help="keep what is tracked here, and use it again")
    parser.add_argument("--no-json", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    videos = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(exist_ok=True)
        predictor = load_predictor()
        for seed in range(options.first_seed, options.first_seed + options.videos):
            folder = work / str(seed)
            if not folder.with_suffix(".npy").exists():
                track(predictor, seed, options.frames, folder)
            videos.append(measure(folder))
            print(videos[-1], flush=True)
    numbers = {"summary": summary(videos), "by_video": videos}
    print(json.dumps(numbers["summary"], indent=1))
    if not options.no_json:
        print(report.write("review", numbers))


if __name__ == "__main__":
    main()
