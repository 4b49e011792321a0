"""A fleet whose workers and driver are killed, and what the engine itself costs.

    python tests/benchmarks/fleet.py

Two parts, into results/fleet.json, with the testing model on workers of one thread:

- killed: `longsam fleet` tracks 12 videos of 300 frames on two workers. A worker is killed with
  SIGKILL three times, each time when a new save is there, and the driver once; then the same
  command again. All files are compared, byte for byte, with those of single runs of one thread.
- overhead: the same videos on one worker. From the moment the worker has its model (one start of
  an actor is not counted) to the end of the last upload, less the seconds of single runs in a
  process of their own, as a share of these. Fleet and single runs take turns, `--rounds` times;
  the median is the figure. Run it on an idle machine.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

sys.path.insert(0, str(Path(__file__).parents[1]))
import fleets

from longsam.fleet import Job, Workers, track_videos
from longsam.testing import load_predictor


def killed(folder: Path, jobs: list[Job], save_every: int) -> dict[str, Any]:
    flags = ("--save-every", str(save_every), "--workers", "2", "--quiet")
    num_killed, began = 0, time.perf_counter()
    with fleets.started(folder, *flags) as driver:
        while num_killed < 3:
            seen = saves(folder)
            fleets.wait_for(lambda seen=seen: saves(folder) - seen, 600)
            found = fleets.workers(driver)
            if found:
                found[num_killed % len(found)].kill()
                num_killed += 1
                fleets.wait_for(lambda: len(fleets.workers(driver)) == 2)
        seen = saves(folder)
        fleets.wait_for(lambda: saves(folder) - seen, 600)
        driver.kill()
    with fleets.started(folder, *flags) as driver:
        out, errors = driver.communicate()
    seconds = time.perf_counter() - began
    assert driver.returncode == 0, out + errors
    rows = json.loads((folder / "out" / "report.json").read_text())["videos"]
    same = {}
    for job in jobs:
        fleets.single_run(job, folder / "single" / job.name)
        same[job.name] = fleets.same_masks(folder / "single" / job.name, folder / "out" / job.name)
    return {
        "videos": len(jobs),
        "frames": sum(row["frames"] for row in rows),
        "workers_killed": num_killed,
        "drivers_killed": 1,
        "videos_resumed": sum(row["resumed_at"] is not None for row in rows),
        "videos_with_the_masks_of_a_single_run": sum(same.values()),
        "seconds": round(seconds, 1),
    }


def saves(folder: Path) -> set[tuple[str, int]]:
    """Each save that is there, and when it was written."""
    found = set()
    for path in (folder / "out" / "unfinished").glob("*/state.pt"):
        try:
            found.add((path.parent.name, path.stat().st_mtime_ns))
        except FileNotFoundError:  # the video has just been uploaded
            continue
    return found


def overhead(folder: Path, jobs: list[Job], rounds: int) -> dict[str, Any]:
    shares = []
    for number in range(rounds):
        alone = in_a_process(single_runs, jobs, folder / f"alone_{number}")
        fleet = in_a_process(as_a_fleet, jobs, folder / f"fleet_{number}")
        shares.append({"single_seconds": alone, "fleet_seconds": fleet,
                       "overhead": round(fleet / alone - 1, 4)})  # fmt: skip
        print(shares[-1])
        for way in ("alone", "fleet"):
            shutil.rmtree(folder / f"{way}_{number}")
    return {
        "videos": len(jobs),
        "rounds": shares,
        "overhead": statistics.median(each["overhead"] for each in shares),
    }


def single_runs(jobs: list[Job], out: Path) -> float:
    return sum(fleets.single_run(job, out / job.name) for job in jobs)


def as_a_fleet(jobs: list[Job], out: Path) -> float:
    """Seconds from the moment the model is there to the last row; Ray's end is not counted."""
    told = out / "started"

    def load() -> Any:
        predictor = load_predictor()
        out.mkdir(parents=True, exist_ok=True)
        told.write_text(str(time.time()))  # the model is there
        return predictor

    seen: list[float] = []
    rows = track_videos(
        jobs, load, out, workers=Workers(count=1), on_progress=lambda _: seen.append(time.time())
    )
    ended = seen[-1]
    assert all(row.is_done for row in rows), rows
    return ended - float(told.read_text())


def _call(function: Any, jobs: list[Job], out: Path, queue: Any) -> None:
    queue.put(function(jobs, out))


def in_a_process(function: Any, jobs: list[Job], out: Path) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_call, args=(function, jobs, out, queue))
    process.start()
    seconds = float(queue.get())
    process.join()
    return round(seconds, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["killed", "overhead"])
    options = parser.parse_args()
    numbers = report.numbers_so_far("fleet")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            jobs = fleets.write_jobs(folder, [options.frames] * options.videos)
            if part == "killed":
                numbers[part] = killed(folder, jobs, options.save_every)
            else:
                numbers[part] = overhead(folder, jobs, options.rounds)
        print(part, numbers[part])
        print(report.write("fleet", numbers))


if __name__ == "__main__":
    main()
