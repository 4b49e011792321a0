"""One video on several workers: what it takes to hand features over, and what two workers gain.

    python tests/benchmarks/together.py

Two parts, into results/together.json; weights are seeded, frames synthetic:

- transfer: the features of a frame at 1024 x 1024, float32 and bfloat16, from one process of a
  real Ray cluster on this machine to another: seconds to pack and put them, and to get and unpack
  them (medians).
- two: the released large config at 512, one object, one process of one thread beside two workers
  of one thread each, which take turns, `--rounds` times: seconds for a frame (the median of
  rounds), and whether the masks are the same. Run it on an idle machine with two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import fleets

from longsam import build_long_video_predictor
from longsam.fleet import Job, Workers, track_together
from longsam.fleet.engine import Cluster
from longsam.fleet.features import pack, unpack

MIB = 2**20
SHAPES = [(1, 32, 256, 256), (1, 64, 128, 128), (1, 256, 64, 64)]
"""Of the levels that are read of a frame at 1024 x 1024, with the released configs."""


class Build:
    """Builds a model of a released size with seeded weights, in any process."""

    def __init__(self, size: str, image_size: int):
        self.size, self.image_size = size, image_size

    def __call__(self) -> Any:
        torch.manual_seed(0)
        predictor = build_long_video_predictor(
            self.size,
            device="cpu",
            hydra_overrides_extra=[f"++model.image_size={self.image_size}"],
        )
        with torch.no_grad():  # objects count as present
            predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
        return predictor


class Holder:
    """A process that puts features, or gets them."""

    def put(self, dtype: str) -> tuple[list[Any], float, int]:
        import ray

        levels = [torch.randn(shape).to(getattr(torch, dtype)) for shape in SHAPES]
        began = time.perf_counter()
        reference = ray.put(pack({"backbone_fpn": levels}))
        return (
            [reference],
            time.perf_counter() - began,
            sum(level.numel() * level.element_size() for level in levels),
        )

    def get(self, references: list[Any]) -> float:
        import ray

        began = time.perf_counter()
        unpack(ray.get(references[0]), [], torch.device("cpu"))
        return time.perf_counter() - began


def transfer(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Cluster(Workers(count=2)) as cluster:
        ray = cluster.ray
        one, other = (ray.remote(num_cpus=0.5)(Holder).remote() for _ in range(2))
        for dtype in ("float32", "bfloat16"):
            puts, gets, size = [], [], 0
            for _ in range(rounds):
                references, seconds, size = ray.get(one.put.remote(dtype))
                puts.append(seconds)
                gets.append(ray.get(other.get.remote(references)))
            found[dtype] = {
                "mib": size / MIB,
                "put_seconds": round(statistics.median(puts), 5),
                "get_seconds": round(statistics.median(gets), 5),
            }
    return found


def two(folder: Path, size: str, image_size: int, frames: int, rounds: int) -> dict[str, Any]:
    (job,) = fleets.write_jobs(folder, [frames], (720, 1280))
    job = Job(job.video, job.prompts[:1], "video")
    measured: list[dict[str, Any]] = []
    for number in range(rounds):
        one, both = folder / f"one_{number}", folder / f"two_{number}"
        command = [sys.executable, __file__, "--single", str(one), "--size", size]
        command += ["--image-size", str(image_size), "--job", json.dumps([job.video, job.prompts])]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = float(run.stdout.splitlines()[-1])
        (row,) = track_together(
            [job], Build(size, image_size), both, workers=Workers(count=2, cpus=1)
        )
        assert row.is_done, row
        measured.append(
            {
                "one_seconds_a_frame": round(seconds / frames, 4),
                "two_seconds_a_frame": round(row.tracked_seconds / frames, 4),
                "same_masks": (one / "masks.jsonl").read_bytes()
                == (both / "video" / "masks.jsonl").read_bytes(),
            }
        )
        print(measured[-1])
    one_median, two_median = (
        statistics.median(each[f"{name}_seconds_a_frame"] for each in measured)
        for name in ("one", "two")
    )
    return {
        "size": size,
        "image_size": image_size,
        "frames": frames,
        "rounds": measured,
        "one_seconds_a_frame": one_median,
        "two_seconds_a_frame": two_median,
        "times_faster": round(one_median / two_median, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="large")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["transfer", "two"])
    parser.add_argument("--single", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single is not None:
        job = Job(*json.loads(options.job))
        load = Build(options.size, options.image_size)
        print(fleets.single_run(job, options.single, load))
        return
    numbers = report.numbers_so_far("together")
    for part in options.parts:
        if part == "transfer":
            numbers[part] = transfer(20)
        else:
            with tempfile.TemporaryDirectory() as name:
                numbers[part] = two(
                    Path(name), options.size, options.image_size, options.frames, options.rounds
                )
        print(part, numbers[part])
        print(report.write("together", numbers))


if __name__ == "__main__":
    main()
