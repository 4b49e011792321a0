"""Longer runs of what the tests of exactness do: upstream and longsam on the same calls.

    python tests/benchmarks/exactness.py --minutes 10

One pass of 3,000 frames with two objects, forward from the middle and then in reverse, and random
calls (tests/test_random_calls.py) for the rest of the time. Every mask must be equal, bit for bit.
Writes results/exactness.json; fails at the first difference.
"""

import argparse
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

LENGTH = 3000


def long_pass(folder: Path) -> Any:
    import models
    import videos

    checkpoint = models.save_checkpoint(folder / "small.pt")
    video = videos.write_video(folder / "long.mp4", LENGTH, options={"g": "100", "bf": "2"})
    passes = []
    for build in (models.build_upstream, models.build_ours):
        predictor = build(checkpoint)
        state = predictor.init_state(str(video))
        middle = LENGTH // 2
        predictor.add_new_points_or_box(state, middle, 1, points=[[60, 50]], labels=[1])
        predictor.add_new_points_or_box(state, middle, 2, box=[30, 20, 110, 90])

        def steps(predictor: Any = predictor, state: Any = state) -> Any:
            yield from predictor.propagate_in_video(state)
            yield from predictor.propagate_in_video(state, reverse=True)

        passes.append(steps())
    compared = positive = 0
    for theirs, mine in zip(*passes, strict=True):
        assert theirs[0] == mine[0]
        assert torch.equal(theirs[2], mine[2]), f"masks differ at frame {mine[0]}"
        compared += 1
        positive += float((mine[2] > 0).float().mean())
    return {
        "frames_compared": compared,
        "objects": 2,
        "all_equal": True,
        "mean_share_of_positive_logits": round(positive / compared, 3),
    }


def random_calls(folder: Path, seconds: float) -> Any:
    import models
    import test_random_calls as calls
    import videos

    video = videos.write_video(
        folder / "random.mp4", calls.NUM_FRAMES, calls.HEIGHT, calls.WIDTH, options={"g": "20"}
    )
    pairs = []
    for number, options in enumerate(calls.OPTIONS.values()):
        checkpoint = models.save_checkpoint(
            folder / f"{number}.pt", overrides=[*calls.SMALL, *options]
        )
        pairs.append(calls.build_pair(checkpoint, options))
    started, seed = time.perf_counter(), 1_000_000
    exact_calls = ended_by_a_warning = 0
    while time.perf_counter() - started < seconds:
        exact, forgot = calls.run_sequence(*pairs[seed % len(pairs)], video, random.Random(seed))
        exact_calls += exact
        ended_by_a_warning += forgot
        seed += 1
    return {
        "first_seed": 1_000_000,
        "sequences": seed - 1_000_000,
        "calls_compared": exact_calls,
        "sequences_ended_by_a_warning_of_forgotten_frames": ended_by_a_warning,
        "all_equal": True,
    }


def main() -> None:
    import report
    from sam2 import sam2_video_predictor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sam2_video_predictor.tqdm = lambda steps, **kwargs: steps  # thousands of progress bars
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        numbers = {"long_pass": long_pass(Path(folder))}
        left = 60 * options.minutes - (time.perf_counter() - started)
        numbers["random_calls"] = random_calls(Path(folder), left)
    print(numbers, report.write("exactness", numbers), sep="\n")


if __name__ == "__main__":
    main()
