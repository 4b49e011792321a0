"""A longer pass than the tests of exactness make: upstream and longsam on the same calls.

    python tests/benchmarks/exactness.py          # about four minutes on one core

3,000 frames with two objects, forward from the middle and then in reverse. Every mask must be
equal, bit for bit; random calls are those of random_calls.py. Writes results/exactness.json; fails
at the first difference.
"""

import sys
import tempfile
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


def main() -> None:
    import report
    from sam2 import sam2_video_predictor

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sam2_video_predictor.tqdm = lambda steps, **kwargs: steps  # thousands of progress bars
    with tempfile.TemporaryDirectory() as folder:
        numbers = {"long_pass": long_pass(Path(folder))}
    print(numbers, report.write("exactness", numbers), sep="\n")


if __name__ == "__main__":
    main()
