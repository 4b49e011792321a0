"""100,000 random calls to upstream's predictor and ours, compared exactly.

    python tests/benchmarks/random_calls.py --calls 100000 --seed 1    # half an hour on one core

The calls of tests/state_machine.py in sessions of up to 50, the seed counted up after every 100
sessions. The first difference ends the run with the calls that lead to it. Writes
results/random_calls.json: how many calls of each kind, and how many were compared exactly.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import report
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import state_machine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    started, seed = time.perf_counter(), options.seed
    while state_machine.COUNTS["calls"] < options.calls:
        state_machine.run(seed, max_examples=100)
        print(seed, dict(state_machine.COUNTS), flush=True)
        seed += 1
    numbers = {
        "seeds": [options.seed, seed - 1],
        "counts": dict(sorted(state_machine.COUNTS.items())),
        "differences": 0,
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    print(report.write("random_calls", numbers))


if __name__ == "__main__":
    main()
