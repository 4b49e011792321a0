"""`longsam info`: what a video is, and what its masks will take."""

import argparse
from typing import Any

from longsam.frames import VideoFile, open_source

# Outlines are what is stored, so bytes grow with the square root of the frame's pixels; those of an
# overlay with its pixels. About twice what tests/benchmarks/writers.py measures on smooth outlines
# and a soft background.
RLE_BYTES_PER_SIDE = 1.0
PNG_BYTES_PER_SIDE = 7.0
OBJECT_PNG_BYTES_PER_SIDE = 5.0
OVERLAY_BYTES_PER_PIXEL = 0.01


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="say what a video is, and how much disk its masks will take",
        description="Say what a video is, and how much disk its masks will take.",
    )
    parser.add_argument("video", help="a video file or a folder of images")
    parser.add_argument("--objects", type=int, default=1, help="how many objects (1)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    source = open_source(options.video, None)
    height, width = source.frame_size
    frames = source.num_frames
    print(f"{source.name}")
    print(f"  frames     {frames:,}")
    print(f"  size       {width} x {height} pixels (width x height)")
    if source.frame_rate:
        seconds = round(frames / source.frame_rate)
        length = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        print(f"  rate       {float(source.frame_rate):.3f} frames/s, {length} h:m:s")
    if isinstance(source, VideoFile):
        print(f"  codec      {source.codec}")
        print(f"  rotation   {source.rotation} degrees, applied")
    source.close()
    side = (height * width) ** 0.5
    masks = frames * options.objects
    print(f"Masks of {options.objects} object(s): {masks:,}, about")
    for name, num_bytes in (
        ("rle", masks * RLE_BYTES_PER_SIDE * side),
        ("png", frames * PNG_BYTES_PER_SIDE * side),
        ("object_png", masks * OBJECT_PNG_BYTES_PER_SIDE * side),
        ("overlay", frames * OVERLAY_BYTES_PER_PIXEL * height * width),
    ):
        print(f"  {name:10s} {_size(num_bytes)}")
    return 0


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
