"""What memory policies do on hard generated videos, with the testing model.

    python tests/benchmarks/policies.py --processes 2            # all parts; continues if stopped
    python tests/benchmarks/policies.py --part quality --estimate # says how long, and ends
    python tests/benchmarks/policies.py --part time               # on an idle machine

Seeds from 3000 on, on which nothing was chosen. Each video goes through upstream's rule, upstream's
rule with SAMURAI's threshold of presence, and the three policies. An object is prompted with its
mask on the first frame that shows it. Parts:

- quality: 120 videos of 300 frames, all objects of each in one session. "several" is of all of
  them, "one" of the object `seed % num_objects`: objects are tracked as if each were alone
  (tests/test_policies.py), so one run gives both.
- long: 5 videos of 5,000 frames, the object `seed % num_objects`.
- time: CPU time a frame with one object, passes taking turns frame by frame; of SAM2Long also with
  three hypotheses on every frame ("sam2long_splits").

Measures, of an object over the frames after its prompt:

- J: mean IoU over frames on which the truth shows at least 16 pixels;
- absent_called_absent: the share of frames without the object on which the mask is empty;
- found_again: of the times the object came back after at least 5 frames without it, how often the
  mask overlaps it by an IoU over 0.5 within 15 frames;
- Q: mean of the IoU where the truth shows at least 16 pixels, and of 1 for an empty mask and 0 for
  another where it shows none (frames of 1 to 15 pixels do not count); Q_of_nothing is that of empty
  masks on all frames.

J and Q are means over a video's objects, then over videos; shares are of all frames or returns.
Differences are means over videos with the bounds of a paired bootstrap over videos.

It does not show what happens with the released models on real video: the model is small, and the
videos are generated and are what it was trained on. `longsam evaluate` is for that.

Writes results/policies.json and policies.png. What is done is in policies.progress.json beside
them, from which the next run continues with the same code; --restart forgets it. With --methods,
the numbers of the other policies stay as they are in the JSON.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import policies_follow
import report
import torch
from policies_follow import FIRST_SEED, SIZE, first_shown, follow, set_up
from policies_methods import METHODS, code_of
from policies_summary import blocks, held, joined, plot, summary

import longsam
from longsam.policies import Sam2Long
from longsam.testing import SyntheticVideo

ROUNDS = 5
FRAMES_A_ROUND = 60
WARM_UP = 40
"""Frames before the first round: until then memories fill up."""


class Splits(Sam2Long):
    """Once split, hypotheses stay three."""

    num_followed: ClassVar[int] = 0

    def branch(self, memos: Any, offers: Any) -> Any:
        pairs = super().branch(memos, offers)
        Splits.num_followed = len(pairs)
        return pairs


TIMED = METHODS | {"sam2long_splits": Splits(certain_score=100.0)}

MOST = {"spaced": 1.1, "samurai": 1.1, "dam4sam": 1.1, "sam2long": 2.2, "sam2long_splits": 2.2}
"""The bars: CPU time a frame over that of upstream's rule."""


SHOWN = ("Q", "Q_of_nothing", "J", "absent_called_absent", "found_again")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["all", "quality", "long", "time"], default="all")
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--long-videos", type=int, default=5)
    parser.add_argument("--long-frames", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    parser.add_argument("--restart", action="store_true", help="forget what is done")
    parser.add_argument("--methods", help="only these, with commas (all)")
    parser.add_argument("--name", default="policies", help="of the JSON, for trials")
    options = parser.parse_args()
    parts = ["quality", "long", "time"] if options.part == "all" else [options.part]
    asked = options.methods.split(",") if options.methods else list(METHODS)

    progress = Progress(options.name)
    if options.restart:
        progress.forget()
    progress.read()
    lengths = {"quality": options.frames, "long": options.long_frames}
    numbers_of = {"quality": options.videos, "long": options.long_videos}
    units = [
        Unit(part, seed, lengths[part])
        for part in parts
        if part != "time"
        for seed in range(FIRST_SEED, FIRST_SEED + numbers_of[part])
    ]
    left = {
        unit: methods
        for unit in units
        if (methods := [method for method in asked if not progress.has(unit, method)])
    }
    set_up()
    if left:
        minutes = estimate(left) / 60
        print(
            f"{len(left)} of {len(units)} videos are left: about {minutes:.0f} min of CPU time, "
            f"{minutes / options.processes:.0f} min with {options.processes} processes",
            flush=True,
        )
    if options.estimate:
        return
    if left:
        run(left, progress, options.processes)
    numbers = report.numbers_so_far(options.name)
    for part in parts:
        numbers[part] = (
            times(options.long_frames)
            if part == "time"
            else summarised(
                progress, part, numbers_of[part], lengths[part], asked, numbers.get(part, {})
            )
        )
        numbers[part]["commit"] = report.COMMIT
        for objects in ("one", "several"):
            for method, one in numbers[part].get(objects, {}).items():
                print(part, objects, method, {name: one[name] for name in SHOWN})
        if part == "time":
            print(json.dumps(numbers[part], indent=1))
        print(report.write(options.name, numbers))
    plot(numbers, report.RESULTS / f"{options.name}.png")


def code() -> str:
    """A hash of the wrapper, the model and how it is counted; of policies see `code_of`."""
    package, found = Path(longsam.__file__).parent, hashlib.sha256()
    parts = ("*.py", "_upstream/*.py", "frames/*.py", "policies/follower.py",
             "policies/protocol.py", "testing/weights/*.pt", "testing/model.py",
             "testing/scores.py", "testing/synthetic_video.py")  # fmt: skip
    files = sorted(path for part in parts for path in package.glob(part))
    for path in [*files, Path(policies_follow.__file__)]:
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


class Progress:
    """The runs that are done, on disk. Those of a policy that has changed since are made again.

    Raises:
        SystemExit: They were made by other code.
    """

    def __init__(self, name: str):
        self.path = report.RESULTS / f"{name}.progress.json"
        self.content: dict[str, Any] = {
            "code": code(),
            "policies": {method: code_of(method) for method in METHODS},
            "commit": report.COMMIT,
            "runs": {},
        }

    def read(self) -> None:
        if not self.path.exists():
            return
        content = json.loads(self.path.read_text())
        if content["code"] != self.content["code"]:
            raise SystemExit(
                f"{self.path} was made with other code, at commit {content['commit']}: check that "
                "one out, or give --restart."
            )
        for key, result in content["runs"].items():
            method = key.rpartition("/")[2]
            if content["policies"].get(method) == self.content["policies"].get(method):
                self.content["runs"][key] = result

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def has(self, unit: "Unit", method: str) -> bool:
        return self._key(unit, method) in self.content["runs"]

    def get(self, unit: "Unit", method: str) -> Any:
        return self.content["runs"][self._key(unit, method)]

    def add(self, unit: "Unit", results: dict[str, Any]) -> None:
        for method, result in results.items():
            self.content["runs"][self._key(unit, method)] = result
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content) + "\n")
        os.replace(partial, self.path)

    def _key(self, unit: "Unit", method: str) -> str:
        return f"{unit.part}/{unit.num_frames}/{unit.seed}/{method}"


class Unit(NamedTuple):
    """One video."""

    part: str
    seed: int
    num_frames: int

    @property
    def num_objects(self) -> int | None:
        return None if self.part == "quality" else 1


def estimate(units: dict[Unit, list[str]]) -> float:
    """Seconds of CPU time, from the first 40 frames of a video."""
    rates: dict[tuple[str, int], float] = {}
    seconds = 0.0
    for unit, methods in units.items():
        kind = unit.part, len(methods)
        if kind not in rates:
            began = time.process_time()
            follow(methods, unit.seed, 40, unit.num_objects)
            rates[kind] = (time.process_time() - began) / 40
            print(f"{unit.part}, {len(methods)} policies: {1e3 * rates[kind]:.0f} ms a frame")
        seconds += rates[kind] * unit.num_frames
    return seconds


def run(units: dict[Unit, list[str]], progress: Progress, num_processes: int) -> None:
    """Do what is left, as many videos at a time as there are processes."""
    began, frames_done, waiting = time.perf_counter(), 0, list(units)
    num_frames = sum(unit.num_frames for unit in units)
    running: dict[Any, Unit] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, initializer=set_up) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < num_processes:
                    unit = waiting.pop(0)
                    job = pool.submit(
                        follow, units[unit], unit.seed, unit.num_frames, unit.num_objects
                    )
                    running[job] = unit
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    unit = running.pop(done)
                    progress.add(unit, done.result())
                    frames_done += unit.num_frames
                    spent = (time.perf_counter() - began) / 60
                    to_go = spent * (num_frames / frames_done - 1)
                    print(*unit, f"{spent:.1f} min, {to_go:.0f} to go", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def summarised(
    progress: Progress,
    part: str,
    num_videos: int,
    num_frames: int,
    methods: list[str],
    before: dict[str, Any],
) -> dict[str, Any]:
    """The numbers of a part; those of other methods are taken from what was there before."""
    videos = {
        str(seed): {
            method: progress.get(Unit(part, seed, num_frames), method) for method in methods
        }
        for seed in range(FIRST_SEED, FIRST_SEED + num_videos)
    }
    if before and (before["videos"].keys(), before["num_frames"]) != (videos.keys(), num_frames):
        before = {}
    known = before.get("videos", {})
    found: dict[str, Any] = {"num_frames": num_frames}
    for objects in ("one", "several") if part == "quality" else ("one",):
        found[objects] = joined(summary(videos, methods, objects, known), before.get(objects, {}))
    if part == "long" and num_frames > policies_follow.BLOCK:
        found["Q_by_block"] = before.get("Q_by_block", {}) | blocks(videos, methods)
    found["bytes"] = before.get("bytes", {}) | held(videos, methods)
    found["videos"] = {
        seed: known.get(seed, {})
        | {
            method: {obj: [count["J"], count["Q"]] for obj, count in one["objects"].items()}
            for method, one in by_method.items()
        }
        for seed, by_method in videos.items()
    }
    return found


def times(num_frames: int) -> dict[str, Any]:
    """CPU time a frame of each method: all passes are open, and take turns frame by frame."""
    video = SyntheticVideo(FIRST_SEED, num_frames, SIZE, "hard")
    target = FIRST_SEED % video.num_objects
    start = first_shown(video, target)
    assert start is not None
    last = WARM_UP + ROUNDS * FRAMES_A_ROUND
    frames = [video.frame(i) for i in range(start, start + last + 1)]
    predictor = policies_follow.PREDICTOR
    with ExitStack() as at_end:
        steps = {}
        for method, policy in TIMED.items():
            state = at_end.enter_context(predictor.init_state(frames, memory_policy=policy))
            predictor.add_new_mask(state, 0, 1, video.masks(start)[target])
            steps[method] = predictor.propagate_in_video(state, progress_bar=False)
        rounds = []
        for number in range(-1, ROUNDS):
            spent = dict.fromkeys(TIMED, 0.0)
            for _ in range(WARM_UP if number < 0 else FRAMES_A_ROUND):
                for method, pass_ in steps.items():
                    began = time.thread_time()
                    next(pass_)
                    spent[method] += time.thread_time() - began
            assert Splits.num_followed == 3
            if number >= 0:
                rounds.append({m: 1e3 * total / FRAMES_A_ROUND for m, total in spent.items()})
    found: dict[str, Any] = {"clock": "time.thread_time, one thread of torch"}
    for method in TIMED:
        ratios = [one[method] / one["none"] for one in rounds]
        middle = statistics.median(one[method] for one in rounds)
        found[method] = {
            "ms_a_frame": round(middle, 3),
            "frames_per_second": round(1e3 / middle, 1),
            "over_none": round(statistics.median(ratios), 4),
            "over_none_of_rounds": [round(ratio, 4) for ratio in ratios],
        }
    found["bars"] = {
        method: {"most": most, "is_met": found[method]["over_none"] < most}
        for method, most in MOST.items()
    }
    found["torch_threads"] = torch.get_num_threads()
    return found


if __name__ == "__main__":
    main()
