"""Masks drawn over the video."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from longsam.masks.formats import MaskFormat, davis_palette
from longsam.masks.overlay_file import OverlayFile
from longsam.masks.record import ImageArray, Record

DEFAULT_FRAME_RATE = Fraction(30)
MOST_CHARACTERS = 40
"""Of an id that is drawn."""


class Overlay(MaskFormat):
    """`overlay.mp4`: one frame for each record, in the order in which they were written.

    Args:
        folder: Where the file goes.
        num_records: How many frames are there already and stay.
        rate: Frames a second.
        video: Where the frames come from, in their own size, a
            `longsam.frames.FrameSource`; None if they come with the records.
    """

    def __init__(self, folder: Path, num_records: int, rate: Fraction, video: Any = None):
        self._file = OverlayFile(folder, num_records, rate)
        self._video = video

    def write(self, record: Record) -> None:
        image = record.image if record.image is not None else self._read(record.frame_idx)
        self._file.append(draw(image, record))

    def sync(self) -> None:
        self._file.sync()

    def close(self, *, complete: bool) -> None:
        if complete:
            self._file.finish()
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
            label = str(obj_id)[:MOST_CHARACTERS].encode(errors="replace").decode()
            pen.text(at, label, (255, 255, 255), font_size=size, stroke_width=1,
                     stroke_fill=(0, 0, 0))  # fmt: skip
    return np.array(canvas)


def colour_of(obj_id: Any, position: int) -> Any:
    """The palette's colour for an object: by its number if it is one, else by its position."""
    number = obj_id if isinstance(obj_id, int) and 1 <= obj_id <= 255 else position + 1
    return davis_palette()[(number - 1) % 255 + 1]
