"""What exports cost, and that they take no more memory for longer videos.

    python tests/benchmarks/exports.py

For every format, into results/exports.json: 20,000 frames of two objects at 240x320, exported in a
process of its own; resident memory after 1,000 frames and the most after that, seconds, and bytes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report
import torch

from longsam.masks import MaskWriter
from longsam.masks.exports import FORMATS, export

WARM = 1000
SIZE = (240, 320)


def make(folder: Path, num_frames: int) -> None:
    """Two that move; one has a hole, and is gone for a tenth of the time."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    with MaskWriter(folder) as writer:
        for i in range(num_frames):
            one = np.hypot(y - 120 - 60 * np.sin(i / 50), x - 160 - 90 * np.cos(i / 70))
            ring = np.hypot(y - 120 - 50 * np.cos(i / 40), x - 160 - 80 * np.sin(i / 90))
            shown = i % 1000 >= 100
            masks = np.stack([one < 40, (ring < 45) & (ring > 20) & shown])
            writer.write(i, [1, "bee"], torch.from_numpy(masks), time=i / 30)


def run_one(folder: Path, to: str) -> None:
    process = psutil.Process()
    resident: list[int] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        path = export(
            folder,
            to,
            Path(out) / to,
            progress=lambda _: resident.append(process.memory_info().rss),
        )
        seconds = time.perf_counter() - started
        resident.append(process.memory_info().rss)
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    later = np.array(resident[WARM:], float)
    numbers = {
        "seconds": round(seconds, 1),
        f"resident_mb_after_{WARM}": round(resident[WARM] / 1e6, 1),
        "most_mb_later": round(later.max() / 1e6, 1),
        "slope_bytes_a_frame": round(float(np.polyfit(np.arange(len(later)), later, 1)[0]), 1),
        "disk_mb": round(size / 1e6, 1),
    }
    print(json.dumps(numbers))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--one")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.one:
        run_one(options.folder, options.one)
        return
    numbers: dict[str, Any] = report.numbers_so_far("exports")
    numbers["frames"] = options.frames
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "masks", options.frames)
        for to in options.formats.split(","):
            words = [sys.executable, __file__, "--one", to, "--folder", f"{folder}/masks"]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            numbers[to] = json.loads(done.stdout)
            print(to, numbers[to], flush=True)
    print(report.write("exports", numbers))


if __name__ == "__main__":
    main()
