"""read_masks: masks from disk, as they were."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from longsam.masks.formats import ObjectPng, Png, Rle, name, png_ids
from longsam.masks.record import MaskArray
from longsam.masks.writer import INDEX, read_index
from longsam.object_ids import ObjectId

READABLE = ("rle", "object_png", "png")


class FrameMasks(NamedTuple):
    """The masks of one frame: bool, num_objects x height x width."""

    frame_idx: int
    obj_ids: list[ObjectId]
    masks: MaskArray


class MaskFolder:
    """What a `MaskWriter` has written: an index in memory, masks read when asked for.

    Args:
        folder: The writer's folder. It may still be written to; what came later is not seen.
        format: "rle", "object_png" or "png"; None takes the first of these that is there. "png"
            gives masks without overlap.

    Attributes:
        frames: The indices of all frames that are whole, ascending.
        size: (height, width) of the masks.
        video: The path of the video, if the writer was told.

    Raises:
        FileNotFoundError: The folder holds no masks.
        ValueError: It holds none in this format.
    """

    def __init__(self, folder: str | os.PathLike[str], format: str | None = None):
        self.folder = Path(folder)
        header, records = read_index(self.folder)
        if not header:
            raise FileNotFoundError(f"{self.folder} holds no masks: there is no {INDEX} in it.")
        there = [known for known in READABLE if known in header["formats"]]
        if format is not None and format not in there:
            raise ValueError(
                f"{self.folder} holds the formats {header['formats']}; {format!r} cannot be read "
                f"from it, but {' or '.join(map(repr, there)) or 'none'} can."
            )
        if not there:
            raise ValueError(f"{self.folder} holds an overlay only, which gives no masks.")
        self.format = format or there[0]
        self.size: tuple[int, int] = (header["size"][0], header["size"][1])
        self.video: str | None = header["video"]
        # A frame that was written twice counts as it was written last.
        self._records = {record["frame"]: record for record in records}
        self.frames = sorted(self._records)
        self._line_starts: dict[int, int] = {}
        if self.format == "rle":
            at = 0
            with open(self.folder / Rle.FILE, "rb") as lines_of_masks:
                for record in records:
                    self._line_starts[record["frame"]] = at
                    at += len(lines_of_masks.readline())

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[FrameMasks]:
        return map(self.read, self.frames)

    def obj_ids(self, frame_idx: int) -> list[ObjectId]:
        """The objects of a frame."""
        ids: list[ObjectId] = self._records[frame_idx]["ids"]
        return ids

    def all_obj_ids(self) -> list[ObjectId]:
        """The objects of all frames, in the order in which they came."""
        return list(dict.fromkeys(i for frame in self.frames for i in self.obj_ids(frame)))

    def areas(self, frame_idx: int) -> list[int]:
        """Pixels of each object's mask on a frame."""
        areas: list[int] = self._records[frame_idx]["areas"]
        return areas

    def read(self, frame_idx: int) -> FrameMasks:
        """The masks of one frame.

        Raises:
            KeyError: No masks of this frame were written.
        """
        ids = self.obj_ids(frame_idx)
        masks = np.zeros((len(ids), *self.size), bool)
        if self.format == "rle":
            with open(self.folder / Rle.FILE, "rb") as lines:
                lines.seek(self._line_starts[frame_idx])
                objects = json.loads(lines.readline())["objects"]
            with warnings.catch_warnings():  # pycocotools 2.0.x on numpy 2
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                for mask, described in zip(masks, objects, strict=True):
                    mask[:] = coco.decode(described["segmentation"])
        elif self.format == "png":
            path = self.folder / Png.FOLDER / name(frame_idx)
            numbers = {obj_id: number for number, obj_id in png_ids(path)}
            with Image.open(path) as image:
                labels = np.asarray(image)
            for mask, obj_id in zip(masks, ids, strict=True):
                mask[:] = labels == numbers[obj_id]
        else:
            for mask, obj_id in zip(masks, ids, strict=True):
                with Image.open(ObjectPng.path(self.folder, obj_id, frame_idx)) as image:
                    mask[:] = np.asarray(image)
        return FrameMasks(frame_idx, ids, masks)


def read_masks(folder: str | os.PathLike[str], format: str | None = None) -> Iterator[FrameMasks]:
    """Iterate over what a `MaskWriter` has written, by frame index.

    Args:
        folder: The writer's folder.
        format: As in `MaskFolder`.

    Yields:
        (frame_idx, obj_ids, masks), the masks bool, num_objects x height x width.
    """
    return iter(MaskFolder(folder, format))
