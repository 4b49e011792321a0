"""Masks drawn over the video."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from longsam.masks.drawing import draw
from longsam.masks.formats import MaskFormat
from longsam.masks.frame_times import ticks_of_index
from longsam.masks.overlay_file import OverlayFile
from longsam.masks.record import ImageArray, Record

DEFAULT_FRAME_RATE = Fraction(30)


class Overlay(MaskFormat):
    """`overlay.mp4`: one frame for each record, in the order in which they were written.

    Frames are shown at the index's time stamps; while the file is being written, and without time
    stamps, at an even rate.

    Args:
        folder: Where the file goes.
        num_records: How many frames of the file are kept.
        rate: Frames a second.
        video: Where the frames come from, in their own size, a
            `longsam.frames.FrameSource`; None if they come with the records.
    """

    def __init__(self, folder: Path, num_records: int, rate: Fraction, video: Any = None):
        self._file = OverlayFile(folder, num_records, rate)
        self._folder, self._rate = folder, rate
        self._video = video

    def write(self, record: Record) -> None:
        image = record.image if record.image is not None else self._read(record.frame_idx)
        size, expected = image.shape[:2], record.masks.shape[1:]
        if size != expected:
            raise ValueError(
                f"The image of frame {record.frame_idx} is {size[1]}x{size[0]} pixels, but its "
                f"masks are {expected[1]}x{expected[0]}."
            )
        self._file.append(draw(image, record.obj_ids, record.masks, boxes=record.boxes))

    def sync(self) -> None:
        self._file.sync()

    def close(self, *, complete: bool) -> None:
        if complete:
            self._file.finish(ticks_of_index(self._folder, self._rate))
        else:
            self._file.close()

    def _read(self, frame_idx: int) -> ImageArray:
        if self._video is None:
            raise ValueError(
                f"The overlay of frame {frame_idx} needs the frame itself: give MaskWriter "
                "video=..., or write(..., image=...)."
            )
        image: ImageArray
        (image,) = self._video.read(frame_idx, frame_idx + 1)
        return image
