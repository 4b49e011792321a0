"""What one look of `everything` takes: seconds, and memory beyond that of the model.

    python tests/benchmarks/everything.py

The testing model on a generated frame of 1920 x 1080, a grid of 8 x 8 points, prompted in batches
of several sizes, each in a process of its own. Into results/everything.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import psutil
import report

from longsam.detections import everything
from longsam.testing import SyntheticVideo, load_predictor

BATCHES = (4, 16, 64)
POINTS_PER_SIDE = 8
SIZE = (1080, 1920)


def run_one(points_per_batch: int) -> None:
    predictor = load_predictor()
    frame = SyntheticVideo(4, 1, SIZE).frame(0)
    everything(predictor, points_per_side=2)(frame[:200, :200])  # whatever comes with a first call
    before = psutil.Process().memory_info().rss
    detector = everything(
        predictor, points_per_side=POINTS_PER_SIDE, points_per_batch=points_per_batch
    )
    started = time.perf_counter()
    detector(frame)
    seconds = time.perf_counter() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": round(seconds, 1), "more_mb": round((peak - before) / 1e6)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", type=int)
    options = parser.parse_args()
    if options.one:
        run_one(options.one)
        return
    by_batch = {}
    for points_per_batch in BATCHES:
        words = [sys.executable, "-W", "ignore", __file__, "--one", str(points_per_batch)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        by_batch[str(points_per_batch)] = json.loads(done.stdout)
        print(points_per_batch, by_batch[str(points_per_batch)], flush=True)
    numbers = {"points": POINTS_PER_SIDE**2, "frame": SIZE, "by_points_per_batch": by_batch}
    print(report.write("everything", numbers))


if __name__ == "__main__":
    main()
