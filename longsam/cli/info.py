"""`longsam info`: a video's properties, and how much disk its masks will take."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from longsam.cli import record, results
from longsam.frames import VideoFile, open_source
from longsam.masks import MaskFolder

# Outlines are stored, so bytes grow with the square root of the frame's pixels; an overlay's grow
# with the pixels. About twice what tests/benchmarks/writers.py measures on smooth outlines and a
# soft background.
RLE_BYTES_PER_SIDE = 1.0
PNG_BYTES_PER_SIDE = 7.0
OBJECT_PNG_BYTES_PER_SIDE = 5.0
OVERLAY_BYTES_PER_PIXEL = 0.01


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="show a video's properties, and how much disk its masks will take",
        description="Show a video's properties, and how much disk its masks will take.",
    )
    parser.add_argument("video", help="a video file, a folder of images, or a folder of results")
    parser.add_argument(
        "--objects",
        type=int,
        default=1,
        metavar="N",
        help="how many objects to estimate disk for (1)",
    )
    parser.set_defaults(run=run)


CODECS = {
    "av1": "AV1",
    "ffv1": "FFV1",
    "h264": "H.264 (AVC)",
    "hevc": "H.265 (HEVC)",
    "mjpeg": "Motion JPEG",
    "mpeg1video": "MPEG-1",
    "mpeg2video": "MPEG-2",
    "mpeg4": "MPEG-4 (Xvid, DivX)",
    "prores": "Apple ProRes",
    "theora": "Theora",
    "vp8": "VP8",
    "vp9": "VP9",
}
"""FFmpeg's names of codecs, and their common names."""


def run(options: argparse.Namespace) -> int:
    if options.objects < 1:
        raise ValueError(f"--objects is {options.objects}; it must be at least 1.")
    if (Path(options.video) / results.INDEX).exists():
        return _results(Path(options.video))
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
        _file(source)
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


def _file(source: VideoFile) -> None:
    """Lines for video files; packets are read, not decoded."""
    with av.open(f"file:{source.path}") as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)  # otherwise it could not have been opened
        name = stream.codec_context.codec.canonical_name
        print(f"  codec      {CODECS.get(name, name)}, pixels {stream.codec_context.pix_fmt}")
        print(f"  rotation   {source.rotation} degrees, applied")
        tick = float(stream.time_base or 0)
        packets = (p for p in container.demux(stream) if p.size and not p.is_discard)
        stamps = np.sort(np.array([p.pts for p in packets if p.pts is not None], np.int64))
        if len(stamps) and tick:
            first, last = (f"{stamp * tick:.3f}" for stamp in (stamps[0], stamps[-1]))
            print(f"  time       {first} s (first frame) to {last} s (last frame)")
        gaps = np.diff(stamps)
        gaps = gaps[gaps > 0]
        if len(gaps):
            usual = float(np.median(gaps))
            is_steady = np.abs(gaps - usual) <= 1 + 0.1 * usual  # containers round to their ticks
            if not is_steady.all():
                slowest, fastest = (1 / (gap * tick) for gap in (gaps.max(), gaps.min()))
                print(
                    f"  variable   the frame rate varies, {slowest:.3g} to {fastest:.4g} frames/s; "
                    "a frame's number does not give its time"
                )
        container.seek(0)
        if any(frame.interlaced_frame for frame in islice(container.decode(stream), 1)):
            print("  interlaced yes; moving outlines have combs (ffmpeg -vf bwdif removes them)")


def _results(path: Path) -> int:
    """What a run wrote."""
    folder = MaskFolder(path)
    height, width = folder.size
    print(f"{path}: masks written by longsam (no video, and no images to track)")
    print(f"  video      {folder.video or 'not noted'}")
    if folder.frames:
        print(f"  frames     {len(folder):,}: {folder.frames[0]} to {folder.frames[-1]}")
    print(f"  size       {width} x {height} pixels (width x height)")
    recorded = record.read(path)
    if recorded is not None:
        print(f"  computed   in {recorded.dtype} on {recorded.device}")
    for line in results.summary(path):
        print(f"  {line}")
    return 0


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
