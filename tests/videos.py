"""Real video files for tests: moving textures, encoded by FFmpeg through PyAV."""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

FrameArray = npt.NDArray[np.uint8]


def frames(num_frames: int, height: int = 120, width: int = 160) -> Iterator[FrameArray]:
    """Textured background that drifts, with two textured boxes that move before it."""
    rng = np.random.default_rng(7)

    def texture(rows: int, columns: int, cell: int) -> FrameArray:
        cells = rng.integers(0, 256, (-(-rows // cell), -(-columns // cell), 3), dtype=np.uint8)
        return cells.repeat(cell, 0).repeat(cell, 1)[:rows, :columns]

    background = texture(height, width, 8)
    side = min(height, width) // 3
    boxes = [texture(side, side, 4), texture(side, side, 5)]
    for i in range(num_frames):
        frame = np.roll(background, i, axis=1).copy()
        for number, box in enumerate(boxes):
            top = int((height - side) * (0.5 + 0.5 * np.sin(i / 9 + 2 * number)))
            left = int((width - side) * (0.5 + 0.5 * np.cos(i / 13 + number)))
            frame[top : top + side, left : left + side] = box
        yield frame


def write_video(
    path: Path,
    num_frames: int = 60,
    height: int = 120,
    width: int = 160,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    title: str | None = None,
    source: Sequence[FrameArray] | None = None,
) -> Path:
    """Encode a video.

    Args:
        times: Presentation time of each frame in 1/1000 s, for variable frame rate; None is 30
            frames a second.
        options: The encoder's options.
        container_options: The muxer's options.
        source: The frames; None makes some.
    """
    with av.open(path, "w", options=container_options or {}) as output:
        if title is not None:
            output.metadata["title"] = title
        stream: Any = output.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, array in enumerate(source or frames(num_frames, height, width)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def remux(source: Path, target: Path, **options: str) -> Path:
    """Copy a video's packets into another container."""
    with av.open(source) as input_, av.open(target, "w", options=options) as output:
        stream = input_.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in input_.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    return target


def rotate(path: Path, degrees: int) -> Path:
    """Set the display rotation in an MP4's track header, as a phone held sideways does."""
    one = 1 << 16
    matrix = {
        90: (0, one, -one, 0),
        180: (-one, 0, 0, -one),
        270: (0, -one, one, 0),
    }[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0: times and ids, reserved, layer
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_folder(
    folder: Path, num_frames: int = 60, suffix: str = ".jpg", height: int = 120, width: int = 160
) -> Path:
    """A folder of images, 0.jpg, 1.jpg, ..., so that text order is not numeric order."""
    folder.mkdir()
    for i, array in enumerate(frames(num_frames, height, width)):
        Image.fromarray(array).save(folder / f"{i}{suffix}")
    return folder
