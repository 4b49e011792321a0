"""`longsam demo`: a video with known answers, to try things on."""

import argparse
from pathlib import Path
from typing import Any

from longsam.testing import SyntheticVideo


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="make a video to try longsam on",
        description="Make a video of moving objects, and print how to track them without a "
        "checkpoint.",
    )
    parser.add_argument("video", type=Path, help="the file to write, for instance demo.mp4")
    parser.add_argument(
        "--frames", type=int, default=300, metavar="N", help="how many frames (300)"
    )
    parser.add_argument("--seed", type=int, default=0, help="each number gives another video (0)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.video.exists():
        raise ValueError(f"{options.video} already exists; choose another name.")
    video = SyntheticVideo(options.seed, options.frames, (360, 640))
    options.video.parent.mkdir(parents=True, exist_ok=True)
    video.write(options.video)
    points = [video.click(0, number) for number in range(video.num_objects)]
    words = " ".join(f"--point {x:.0f},{y:.0f}" for x, y in points)
    print(f"{options.video}: {options.frames} frames, {video.num_objects} objects. Track them:")
    out = options.video.with_suffix("")
    print(f"longsam track {options.video} --testing-model {words} --out {out}")
    return 0
