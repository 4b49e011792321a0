"""`longsam frame`: a frame with the coordinates of its pixels."""

import argparse
from pathlib import Path
from typing import Any

from longsam.cli import times
from longsam.cli.drawing import with_grid
from longsam.frames import open_source

EPILOG = """\
example:
  longsam frame bees.mp4 --at 120 --at 00:00.5 --out frame.png
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "frame",
        help="write a frame as an image with pixel coordinates along its edges",
        description="Write frames as images at their own size, with a grid and its coordinates\n"
        "in pixels along the edges, so that you can read off where an object is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", help="a video file or a folder of images")
    parser.add_argument(
        "--at", type=times.moment, action="append", metavar="FRAME|TIME",
        help="a frame's number, or its time (00:40.5, 1:02:03, 40.5s); may be repeated (0)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("frame.png"), metavar="FILE",
        help="the image; for several frames FILE_NUMBER.png each (frame.png)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    path: Path = options.out
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise ValueError(f"--out is {path}; its name must end in .png or .jpg.")
    source = open_source(options.video, None)
    given = options.at or [times.Moment(frame_idx=0)]
    frames = sorted({times.frame_at(source, at, "--at") for at in given})
    for frame_idx in frames:
        (frame,) = source.read(frame_idx, frame_idx + 1)
        name = f"{path.stem}_{frame_idx}{path.suffix}" if len(frames) > 1 else path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with_grid(frame).save(path.with_name(name))
        print(f"{path.with_name(name)}: frame {frame_idx}, {frame.shape[1]} x {frame.shape[0]}")
    source.close()
    return 0
