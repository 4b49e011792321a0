"""Where the time of a frame goes, and what each way to save some of it brings.

    python tests/benchmarks/speed.py                            # CPU; writes results/speed_cpu.json
    python tests/benchmarks/speed.py --device cuda              # writes results/speed_cuda.json
    python tests/benchmarks/speed.py --parts profile --sizes t,s
    python tests/benchmarks/speed.py --parts batch

Weights are seeded, frames synthetic, and every figure is set beside another of the same run: ours
and upstream's take turns. Parts:

- profile: seconds of a tracked frame in each part of the model and between them, upstream and ours;
  operations, least bytes, and the floor that they set on this machine.
- batch: several objects, upstream's loop, ours, and ours with batch_objects.
- end: from opening a file to the last mask, one object, upstream and ours; time to the first mask.
- dtype: masks in bfloat16 (autocast) beside float32, on the testing model.
- compile: vos_optimized, upstream and ours: frames/s after warm-up, recompilations.
- memory: device memory over thousands of frames (cuda only).
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from flops import gflop_by_part

sys.path.insert(0, str(Path(__file__).parents[1]))
from sam2.build_sam import build_sam2_video_predictor

from longsam import build_long_video_predictor
from longsam.testing import (
    CHECKPOINT,
    CONFIG,
    OVERRIDES,
    SyntheticVideo,
    iou,
    load_predictor,
)

CONFIGS = {
    "t": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "s": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "b+": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "l": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
PARTS = ("profile", "batch", "end", "dtype", "compile", "memory")
FULL_MEMORY = 17  # frames after which every memory and pointer slot is taken
MODULES = ("image_encoder", "memory_attention", "sam_mask_decoder", "memory_encoder")
METHODS = ("track_step", "_get_image_feature", "_get_orig_video_res_output")


class Bench:
    """What all parts share: the device, a video file, and models."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.device = options.device
        self.frames: int = options.frames
        self.objects: list[int] = options.objects
        self.sizes: list[str] = options.sizes
        self.image_size: int = options.image_size
        self.folder = folder
        self.is_cuda = self.device == "cuda"

    def video(self, num_frames: int, height: int = 720) -> Path:
        path = self.folder / f"{num_frames}_{height}.mp4"
        if not path.exists():
            world = SyntheticVideo(3, num_frames, (height, height * 16 // 9), num_objects=3)
            world.write(path)
        return path

    def build(self, size: str, ours: bool, image_size: int | None = None, **options: Any) -> Any:
        torch.manual_seed(0)
        build = build_long_video_predictor if ours else build_sam2_video_predictor
        if size == "testing":
            return build(
                CONFIG,
                str(CHECKPOINT),
                device=self.device,
                hydra_overrides_extra=list(OVERRIDES),
                **options,
            )
        predictor = build(
            CONFIGS[size],
            None,
            device=self.device,
            hydra_overrides_extra=[f"++model.image_size={image_size or self.image_size}"],
            **options,
        )
        with torch.no_grad():  # objects count as present
            predictor.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
        return predictor

    def start(self, predictor: Any, video: Path, num_objects: int, **options: Any) -> Any:
        with self.autocast():
            state = predictor.init_state(str(video), **options)
            height, width = state["video_height"], state["video_width"]
            for number in range(num_objects):
                x, y = (0.1 + 0.8 * number / num_objects) * width, 0.3 * height
                box = [x, y, x + 0.15 * width, y + 0.3 * height]
                predictor.add_new_points_or_box(state, 0, number, box=box)
        return state

    def autocast(self) -> Any:
        """As upstream's notebook runs: bfloat16 on a GPU; float32 on a CPU."""
        if not self.is_cuda:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=torch.bfloat16)

    def now(self) -> float:
        if self.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def per_frame(self, steps: Iterator[Any], num_frames: int) -> float:
        """Seconds a frame of the next frames of a pass."""
        with self.autocast():
            started = self.now()
            count = sum(1 for _ in itertools.islice(steps, num_frames))
            assert count == num_frames, f"the pass has only {count} frames"
            return (self.now() - started) / num_frames

    def in_turns(
        self, passes: dict[str, Iterator[Any]], num_frames: int, turns: int = 3, warm: int = 0
    ) -> dict[str, float]:
        """Median seconds a frame of several passes, each running on in turns."""
        seconds = defaultdict(list)
        for steps in passes.values():
            if warm:
                self.per_frame(steps, warm)
        for _ in range(turns):
            for name, steps in passes.items():
                seconds[name].append(self.per_frame(steps, num_frames))
        return {name: round(statistics.median(times), 5) for name, times in seconds.items()}


class Clock:
    """Time spent in parts of a predictor."""

    def __init__(self, bench: Bench, predictor: Any):
        self.seconds: dict[str, float] = defaultdict(float)
        self._bench = bench
        for name in MODULES:
            module = getattr(predictor, name)
            module.forward = self._timed(name, module.forward)
        for name in METHODS:
            setattr(predictor, name, self._timed(name, getattr(predictor, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._bench.now()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += self._bench.now() - started

        return timed


def profile(bench: Bench) -> dict[str, Any]:
    video = bench.video(2 * FULL_MEMORY + bench.frames)
    ceilings = measure_ceilings(bench)
    results: dict[str, Any] = {"ceilings": ceilings}
    for size in bench.sizes:
        result: dict[str, Any] = {}
        for name in ("upstream", "ours"):
            predictor = bench.build(size, name == "ours")
            state = bench.start(predictor, video, 1)
            steps = predictor.propagate_in_video(state)
            bench.per_frame(steps, FULL_MEMORY if bench.is_cuda else 7)
            if name == "ours":
                with bench.autocast():
                    by_part = gflop_by_part(predictor, lambda steps=steps: next(steps))
                gflop = by_part["total"]
                weights = sum(p.numel() * p.element_size() for p in predictor.parameters())
                outputs = state["output_dict_per_obj"][0]["cond_frame_outputs"]
                memory_features = outputs[0]["maskmem_features"].nbytes  # seven are read
                least = weights + 7 * memory_features + 3 * bench.image_size**2
                result["gflop_a_frame"] = round(gflop, 1)
                result["gflop"] = {part: round(by_part.get(part, 0), 1) for part in MODULES}
                result["least_mb_a_frame"] = round(least / 1e6, 1)
                result["floor_seconds"] = round(
                    max(gflop / ceilings["gflops"], least / 1e9 / ceilings["gb_per_second"]), 4
                )
            clock = Clock(bench, predictor)
            total = bench.per_frame(steps, bench.frames)
            of = {part: seconds / bench.frames for part, seconds in clock.seconds.items()}
            of["frame_to_tensor"] = of.pop("_get_image_feature") - of["image_encoder"]
            of["upsampling"] = of.pop("_get_orig_video_res_output")
            step = of.pop("track_step")
            inner = of["memory_attention"] + of["sam_mask_decoder"] + of["memory_encoder"]
            of["rest_of_track_step"] = step - inner
            of["between"] = total - step - of["image_encoder"]
            of["between"] -= of["frame_to_tensor"] + of["upsampling"]
            if name == "ours":  # how near each part comes to the rate of large products
                result["share_of_rate"] = {
                    part: round(by_part.get(part, 0) / of[part] / ceilings["gflops"], 3)
                    for part in MODULES
                }
            result[name] = {
                "seconds_a_frame": round(total, 4),
                "parts": {part: round(seconds, 5) for part, seconds in of.items()},
                "outside_encoder_and_track_step": round(
                    1 - (step + of["image_encoder"]) / total, 5
                ),
            }
            del predictor, state, steps
        result["times_floor"] = round(
            result["ours"]["seconds_a_frame"] / result["floor_seconds"], 2
        )
        results[size] = result
        print(size, json.dumps(result), flush=True)
    return results


def measure_ceilings(bench: Bench) -> dict[str, float]:
    """The rates of a large matrix product and a large copy."""
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    side, size = (8192, 2**30) if bench.is_cuda else (2048, 2**27)
    a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    source = torch.randn(size // 4, device=bench.device)
    target = torch.empty_like(source)
    products, copies = [], []
    for _ in range(6):
        started = bench.now()
        a @ b
        products.append(bench.now() - started)
        started = bench.now()
        target.copy_(source)
        copies.append(bench.now() - started)
    return {
        "gflops": round(2 * side**3 / min(products) / 1e9, 1),
        "gb_per_second": round(2 * size / min(copies) / 1e9, 1),
    }


BATCHES = (("testing", 192), ("t", 256), ("t", 512), ("t", 1024))
"""Models and input sizes, on a CPU."""


def batch(bench: Bench) -> dict[str, Any]:
    """On a CPU at 1024 with one and two objects: 16 take a minute a frame there."""
    results: dict[str, Any] = {}
    frames, warm = (bench.frames, FULL_MEMORY) if bench.is_cuda else (1, 7)
    cases = [(size, bench.image_size) for size in ("t", "l")] if bench.is_cuda else BATCHES
    for size, side in cases:
        ours, upstream = bench.build(size, True, side), bench.build(size, False, side)
        for count in bench.objects:
            if not bench.is_cuda and count * side**2 > 2 * 1024**2 and side > 512:
                continue
            video = bench.video(warm + 5 * frames + 2)
            passes = {
                "upstream": (upstream, {}),
                "ours": (ours, {}),
                "ours, batch_objects": (ours, {"batch_objects": True}),
            }
            running = {
                name: predictor.propagate_in_video(bench.start(predictor, video, count, **options))
                for name, (predictor, options) in passes.items()
            }
            seconds = bench.in_turns(running, frames, turns=5, warm=warm)
            results[f"{size} at {side}, {count} objects"] = compared(seconds)
            print(size, side, count, compared(seconds), flush=True)
    return results


def compared(seconds: dict[str, float]) -> dict[str, Any]:
    first = next(iter(seconds.values()))
    return {
        "seconds_a_frame": seconds,
        "times_the_first": {name: round(first / value, 3) for name, value in seconds.items()},
    }


def end(bench: Bench) -> dict[str, Any]:
    """On a CPU at an input of 256, so that it ends."""
    image_size = bench.image_size if bench.is_cuda else 256
    results = {}
    for num_frames in (100, 300) if not bench.is_cuda else (300, 1000):
        video = bench.video(num_frames, 1080 if bench.is_cuda else 720)
        totals, firsts, alone = defaultdict(list), defaultdict(list), []
        for _ in range(2):
            for name in ("upstream", "ours"):
                predictor = bench.build("t", name == "ours", image_size)
                if bench.is_cuda:  # so that both are warm
                    steps = predictor.propagate_in_video(bench.start(predictor, video, 1))
                    bench.per_frame(steps, 5)
                    del steps
                started = bench.now()
                steps = predictor.propagate_in_video(bench.start(predictor, video, 1))
                bench.per_frame(steps, 1)
                firsts[name].append(bench.now() - started)
                rest = bench.per_frame(steps, num_frames - 1)
                totals[name].append(bench.now() - started)
                if name == "upstream":
                    alone.append(rest)  # its frames are all loaded by now
        results[f"{num_frames} frames"] = {
            "model": f"tiny at {image_size}, {video.name}",
            "seconds_to_last_mask": {n: round(min(t), 3) for n, t in totals.items()},
            "seconds_to_first_mask": {n: round(min(t), 3) for n, t in firsts.items()},
            "ours_over_upstream": round(min(totals["ours"]) / min(totals["upstream"]), 4),
            "ours_over_propagation_alone": round(
                min(totals["ours"]) / (min(alone) * num_frames), 4
            ),
        }
        print(num_frames, results[f"{num_frames} frames"], flush=True)
    return results


def dtype(bench: Bench) -> dict[str, Any]:
    """The testing model on videos with known answers, with and without autocast."""
    predictor = load_predictor(device=bench.device)
    results = {}
    for difficulty in ("easy", "hard"):
        scores: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        agreement, flipped = [], []
        for seed in range(5):
            video = SyntheticVideo(seed, 100, difficulty=difficulty)
            passes = []
            for _ in scores:
                state = predictor.init_state(video)
                predictor.add_new_mask(state, 0, 1, video.masks(0)[0])
                passes.append(predictor.propagate_in_video(state))
            context = torch.autocast(bench.device, dtype=torch.bfloat16)
            for _ in range(100):
                i, _, full = next(passes[0])
                with context:
                    _, _, half = next(passes[1])
                masks = [(logits[0, 0] > 0).cpu().numpy() for logits in (full, half)]
                if video.visible(i)[0]:
                    for name, mask in zip(scores, masks, strict=True):
                        scores[name].append(float(iou(mask, video.masks(i)[0])))
                if masks[0].any():
                    agreement.append(float(iou(masks[1], masks[0])))
                flipped.append(float((masks[0] != masks[1]).mean()))
        results[difficulty] = {
            **{f"J {name}": round(float(np.mean(values)), 4) for name, values in scores.items()},
            "IoU of the two, mean": round(float(np.mean(agreement)), 4),
            "IoU of the two, median": round(float(np.median(agreement)), 4),
            "pixels that differ": round(float(np.mean(flipped)), 6),
        }
        print(difficulty, results[difficulty], flush=True)
    return results


def compile_(bench: Bench) -> dict[str, Any]:
    """Frames a second of the compiled model after warm-up, and whether it compiles again."""
    from torch._dynamo.utils import counters

    image_size = bench.image_size if bench.is_cuda else 256
    results: dict[str, Any] = {"torch": torch.__version__}
    frames = bench.frames
    passes: dict[str, Any] = {}
    video = bench.video(2 * FULL_MEMORY + 3 * frames)
    for name, ours, options in (
        ("upstream, eager", False, {}),
        ("ours, eager", True, {}),
        ("upstream, vos_optimized", False, {"vos_optimized": True}),
        ("ours, vos_optimized", True, {"vos_optimized": True}),
    ):
        started = bench.now()
        try:
            predictor = bench.build("t", ours, image_size, **options)
            steps = predictor.propagate_in_video(bench.start(predictor, video, 1))
            bench.per_frame(steps, FULL_MEMORY + 3)
            compiled = counters["stats"]["unique_graphs"]
            bench.per_frame(steps, 3)
            again = counters["stats"]["unique_graphs"] - compiled
        except Exception as error:
            results[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
        else:
            passes[name] = steps
            results[name] = {
                "seconds_of_warm_up": round(bench.now() - started, 1),
                "graphs_compiled_after_it": again,
            }
        print(name, results[name], flush=True)
    results |= compared(bench.in_turns(passes, min(frames, 4)))
    return results


def memory(bench: Bench) -> dict[str, Any]:
    if not bench.is_cuda:
        return {}
    predictor = bench.build("t", True)

    class Video:
        def __init__(self) -> None:
            self._frames = [SyntheticVideo(3, 64, (720, 1280)).frame(i) for i in range(64)]

        def __len__(self) -> int:
            return 5000

        def __getitem__(self, i: int) -> Any:
            return self._frames[i % 64]

    with bench.autocast():
        state = predictor.init_state(Video())
        predictor.add_new_points_or_box(state, 0, 1, box=[100, 100, 400, 400])
        allocated = []
        for _ in predictor.propagate_in_video(state):
            allocated.append(torch.cuda.memory_allocated())
    return {
        "frames": len(allocated),
        "allocated_mib_at": {
            str(i): round(allocated[i] / 2**20, 2)
            for i in (50, 500, 1000, 2500, len(allocated) - 1)
        },
        "highest_after_50_mib": round(max(allocated[50:]) / 2**20, 2),
        "peak_reserved_mib": round(torch.cuda.max_memory_reserved() / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--parts", default=",".join(PARTS), help="the others stay as they are")
    parser.add_argument("--sizes", default="t,s,b+,l", help="of the released models")
    parser.add_argument("--objects", default="1,2,4,8,16", help="counts for the part batch")
    parser.add_argument("--frames", type=int, default=None, help="measured at once")
    parser.add_argument("--image-size", type=int, default=1024)
    options = parser.parse_args()
    is_cuda = options.device == "cuda"
    options.sizes = options.sizes.split(",")
    options.objects = [int(count) for count in options.objects.split(",")]
    options.frames = options.frames or (40 if is_cuda else 4)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    name_of_report = f"speed_{options.device}"
    numbers = report.numbers_so_far(name_of_report)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bench = Bench(options, Path(folder))
        for name, measure in (
            ("profile", profile),
            ("batch", batch),
            ("end", end),
            ("dtype", dtype),
            ("compile", compile_),
            ("memory", memory),
        ):
            if name in options.parts.split(","):
                started = time.perf_counter()
                # Sizes that are not measured now stay.
                before = numbers.get(name, {}) if name == "profile" else {}
                numbers[name] = {**before, **measure(bench)}
                numbers[name]["seconds_of_this_part"] = round(time.perf_counter() - started)
                print(report.write(name_of_report, numbers), flush=True)


if __name__ == "__main__":
    main()
