"""100,000 random calls to upstream's predictor and ours, compared exactly.

    python tests/benchmarks/random_calls.py --calls 100000 --seed 1     # an hour on one core
    python tests/benchmarks/random_calls.py --calls 100000 --seed 1 --resume --processes 2

The calls of tests/state_machine.py in sessions of up to 50, the seed counted up after every 40
sessions. The first difference ends the run with the calls that lead to it. Writes
results/random_calls.json: how many calls of each kind, and how many were compared exactly. Until
all are made, the counts of each finished seed are in random_calls.progress.json beside it, from
which `--resume` goes on; `--processes` changes nothing but the time.

    python tests/benchmarks/random_calls.py --find --commit-of-old-code 44bcd0b

runs the machines that look at one thing each until each has found a difference, and writes down
their seeds under "found_in_44bcd0b".
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # upstream's progress bars
sys.path.insert(0, str(Path(__file__).parents[1]))
import report
import state_machine
import torch

SESSIONS = 40
"""For each seed, half a minute."""

PROGRESS = report.RESULTS / "random_calls.progress.json"


def set_up() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")


def run(seed: int, machine: str = "Calls", num_sessions: int = SESSIONS) -> dict[str, int]:
    """The counts of one seed.

    Raises:
        Exception: The first difference, with the calls that lead to it in its notes.
    """
    state_machine.COUNTS.clear()
    state_machine.run(seed, num_sessions, state_machine.MACHINES[machine])
    return dict(state_machine.COUNTS)


def first_difference(
    machine: str, seed: int, num_sessions: int, checks_memory: bool
) -> dict[str, Any] | None:
    """What a machine finds with one seed, and after how many calls."""
    state_machine.COUNTS.clear()
    chosen = state_machine.MACHINES[machine]
    chosen.checks_memory = checks_memory
    try:
        state_machine.run(seed, num_sessions, chosen, shrinks=False)
    except Exception as error:
        return {
            "seed": seed,
            "calls": state_machine.COUNTS["calls"],
            "compared": "masks and what is remembered" if checks_memory else "masks",
            "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}",
        }
    return None


def find(seed: int, num_seeds: int, code: str) -> None:
    """Write down what each machine finds in the code that is imported."""
    numbers = report.numbers_so_far("random_calls")
    found: dict[str, Any] = {"longsam": code, "environment": report.environment()}
    for machine in state_machine.MACHINES:
        found[machine] = []
        for checks_memory in (False, True):
            for one in range(seed, seed + num_seeds):
                difference = first_difference(machine, one, SESSIONS, checks_memory)
                print(machine, one, difference, flush=True)
                if difference is not None:
                    found[machine].append(difference)
                    break
        numbers[f"found_in_{code}"] = found
        print(report.write("random_calls", numbers), flush=True)


def progress_so_far(seed: int) -> dict[str, Any]:
    """The progress of a run that was interrupted.

    Raises:
        SystemExit: It is of another commit, or began with another seed.
    """
    fresh = {"commit": report.COMMIT, "first_seed": seed, "minutes": 0.0, "seeds": {}}
    if not PROGRESS.exists():
        return fresh
    progress: dict[str, Any] = json.loads(PROGRESS.read_text())
    for what in ("commit", "first_seed"):
        if progress[what] != fresh[what]:
            raise SystemExit(
                f"{PROGRESS} has {what} {progress[what]!r}, but this run {fresh[what]!r}: run "
                "without --resume."
            )
    return progress


def write_progress(progress: dict[str, Any]) -> None:
    partial = PROGRESS.with_suffix(".partial")
    partial.write_text(json.dumps(progress, indent=1) + "\n")
    os.replace(partial, PROGRESS)


def make_calls(num_calls: int, progress: dict[str, Any], num_processes: int) -> Counter[str]:
    """Run seed after seed until so many calls are made; returns their counts."""
    counts: Counter[str] = Counter()
    for of_seed in progress["seeds"].values():
        counts.update(of_seed)
    before, started = progress["minutes"], time.perf_counter()
    seed = progress["first_seed"]
    running: dict[Any, int] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, initializer=set_up) as pool:
        try:
            while counts["calls"] < num_calls or running:
                while counts["calls"] < num_calls and len(running) < num_processes:
                    if str(seed) not in progress["seeds"]:
                        running[pool.submit(run, seed)] = seed
                    seed += 1
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    of_seed = running.pop(done)
                    progress["seeds"][str(of_seed)] = done.result()
                    counts.update(done.result())
                    minutes = before + (time.perf_counter() - started) / 60
                    progress["minutes"] = round(minutes, 2)
                    write_progress(progress)
                    print(f"seed {of_seed}: {counts['calls']} calls, {minutes:.1f} min", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on with what is done")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--find", action="store_true", help="what each machine finds")
    parser.add_argument("--seeds", type=int, default=5, help="with --find: how many to try")
    parser.add_argument("--commit-of-old-code", default=report.COMMIT[:7])
    options = parser.parse_args()
    set_up()
    if options.find:
        find(options.seed, options.seeds, options.commit_of_old_code)
        return
    if not options.resume:
        PROGRESS.unlink(missing_ok=True)
    progress = progress_so_far(options.seed)
    counts = make_calls(options.calls, progress, options.processes)
    seeds = sorted(map(int, progress["seeds"]))
    found = {
        name: value
        for name, value in report.numbers_so_far("random_calls").items()
        if name.startswith("found_in_")
    }
    numbers = {
        "seeds": [seeds[0], seeds[-1]],
        "sessions": SESSIONS * len(seeds),
        "counts": dict(sorted(counts.items())),
        "differences": 0,
        "minutes": progress["minutes"],
        "processes": options.processes,
        **found,
    }
    print(report.write("random_calls", numbers))
    PROGRESS.unlink()


if __name__ == "__main__":
    main()
