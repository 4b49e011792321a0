"""Masks drawn over the video, as an H.264 file that survives being killed."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image, ImageDraw

from longsam.frames import FrameSource
from longsam.masks.formats import MaskFormat, davis_palette
from longsam.masks.record import ImageArray, Record

DEFAULT_FRAME_RATE = 30
KEYFRAME_EVERY = 60


class Overlay(MaskFormat):
    """`overlay.mp4`: one frame for each record, in the order in which they were written.

    Every frame is an MP4 fragment of its own, so that a file that was cut off plays up to there.
    FFmpeg writes a fragment when the next one begins, so one frame may be missing after a kill.

    Args:
        folder: Where the file goes.
        num_records: How many frames are there already and stay.
        video: Where the frames come from, in their own size; None if they come with the records.
    """

    FILE = "overlay.mp4"

    def __init__(self, folder: Path, num_records: int, video: FrameSource | None = None):
        self._path = folder / self.FILE
        self._video = video
        self._rate = Fraction((video and video.frame_rate) or DEFAULT_FRAME_RATE)
        self._num_written = num_records
        self._file: BinaryIO = open(self._path, "ab" if num_records else "wb", buffering=0)  # noqa: SIM115
        if num_records:
            self._file.truncate(_end_of_fragment(self._path, num_records))
            self._file.seek(0, 2)
        self._output: Any = None
        self._stream: Any = None

    def write(self, record: Record) -> None:
        image = record.image if record.image is not None else self._read(record.frame_idx)
        drawn = draw(image, record)
        if self._output is None:
            self._open(drawn.shape[0] // 2 * 2, drawn.shape[1] // 2 * 2)  # H.264 has even sides
        cropped = np.ascontiguousarray(drawn[: self._stream.height, : self._stream.width])
        frame = av.VideoFrame.from_ndarray(cropped, format="rgb24")
        frame.pts, frame.time_base = self._num_written, 1 / self._rate
        self._output.mux(self._stream.encode(frame))
        self._num_written += 1

    def close(self) -> None:
        if self._output is not None:
            self._output.mux(self._stream.encode(None))
            self._output.close()
        self._file.close()
        if self._video is not None:
            self._video.close()

    def _read(self, frame_idx: int) -> ImageArray:
        if self._video is None:
            raise ValueError(
                f"The overlay of frame {frame_idx} needs the frame itself: give MaskWriter "
                "video=..., or write(..., image=...)."
            )
        (image,) = self._video.read(frame_idx, frame_idx + 1)
        return image

    def _open(self, height: int, width: int) -> None:
        going_on = self._num_written > 0
        target = _WithoutHeader(self._file) if going_on else self._file
        # The trailer lists all fragments, and the list would grow in memory.
        flags = "frag_every_frame+empty_moov+default_base_moof+skip_trailer"
        options = {
            "movflags": flags + ("+frag_discont" if going_on else ""),
            "avoid_negative_ts": "disabled",  # its remedy would move what goes on back to time 0
        }
        self._output = av.open(target, "w", format="mp4", container_options=options)
        # No frame is held back, so that each is in the file once it is written.
        encoder = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "crf": "23",
            "g": str(KEYFRAME_EVERY),
        }
        self._stream = self._output.add_stream("libx264", rate=self._rate, options=encoder)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = 1 / self._rate


def draw(image: ImageArray, record: Record) -> ImageArray:
    """Colour what is masked, outline it, and write the objects' ids.

    Args:
        image: uint8 RGB, height x width x 3.
        record: Masks of the same height and width.
    """
    if image.shape[:2] != record.mask_logits.shape[-2:]:
        raise ValueError(
            f"The image of frame {record.frame_idx} is {image.shape[1]}x{image.shape[0]} pixels, "
            f"but its masks are {record.mask_logits.shape[-1]}x{record.mask_logits.shape[-2]}."
        )
    colours = np.array([colour_of(obj_id, at) for at, obj_id in enumerate(record.obj_ids)])
    winners = record.winners
    half = np.concatenate([colours.reshape(-1, 3) // 2, [[0, 0, 0]]]).astype(np.uint8)
    shown = (winners >= 0)[..., None]
    drawn = np.where(shown, image // 2 + half[winners], image)
    edge = np.zeros(winners.shape, bool)
    edge[:, 1:] |= winners[:, 1:] != winners[:, :-1]
    edge[1:] |= winners[1:] != winners[:-1]
    drawn[edge] = 255
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    size = max(12, image.shape[0] // 25)
    for obj_id, mask in zip(record.obj_ids, record.masks, strict=True):
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if len(rows):
            at = (float(columns.mean()), float(max(0, rows[0] - size)))
            pen.text(at, str(obj_id), (255, 255, 255), font_size=size, stroke_width=1,
                     stroke_fill=(0, 0, 0))  # fmt: skip
    return np.array(canvas)


def colour_of(obj_id: Any, position: int) -> Any:
    """The palette's colour for an object: by its number if it is one, else by its position."""
    number = obj_id if isinstance(obj_id, int) and 1 <= obj_id <= 255 else position + 1
    return davis_palette()[(number - 1) % 255 + 1]


class _WithoutHeader:
    """A file to which a muxer appends; what it writes before its first fragment is there."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._held: bytes | None = b""

    def write(self, data: bytes) -> int:
        if self._held is None:
            self._file.write(data)
            return len(data)
        self._held += bytes(data)
        while len(self._held) >= 8:
            size, kind = struct.unpack(">I4s", self._held[:8])
            if kind == b"moof":
                self._file.write(self._held)
                self._held = None
                break
            if len(self._held) < size:
                break
            self._held = self._held[size:]
        return len(data)


def _boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """The kind and the end of every whole box of an MP4 file."""
    size_of_file = path.stat().st_size
    with open(path, "rb") as file:
        at = 0
        while at + 8 <= size_of_file:
            file.seek(at)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                (size,) = struct.unpack(">Q", file.read(8))
            if size < 8 or at + size > size_of_file:
                return
            at += size
            yield kind, at


def num_whole_frames(folder: Path) -> int:
    """How many frames of an overlay are whole; the last one may be missing after a kill."""
    path = folder / Overlay.FILE
    return sum(kind == b"mdat" for kind, _ in _boxes(path)) if path.exists() else 0


def _end_of_fragment(path: Path, number: int) -> int:
    """Where the n-th fragment ends."""
    for kind, end in _boxes(path):
        number -= kind == b"mdat"
        if number == 0 and kind == b"mdat":
            return end
    raise RuntimeError(f"{path} holds fewer frames than masks were written.")
