"""How masks look on disk: one class for each format.

Each writes one record a frame, in the order given, so that the n-th record of every format is about
the same frame, and each can be cut back to its first n records.
"""

import json
import os
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pycocotools import mask as coco

from longsam.masks.record import Record
from longsam.object_ids import ObjectId

METADATA_KEY = "longsam"
"""PNGs carry a text chunk of this name: JSON with the object ids."""


class MaskFormat(ABC):
    """Masks in one format.

    Args:
        folder: Where the format's files go.
        num_records: How many records are there already and stay.
    """

    @abstractmethod
    def __init__(self, folder: Path, num_records: int): ...

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write a record so that it is whole, once this returns, even if the process is killed."""

    def close(self) -> None:  # noqa: B027 (files written at once need none)
        """Finish the files."""


class LineFile:
    """A file of JSON lines that only ever grows by whole lines."""

    def __init__(self, path: Path, num_lines: int):
        self._file: BinaryIO = open(path, "ab+", buffering=0)  # noqa: SIM115 (closed by close)
        if num_lines == 0:
            if self._file.seek(0, os.SEEK_END):
                self._file.truncate(0)
            return
        self._file.seek(0)
        size = 0
        with open(path, "rb") as lines:
            for _ in range(num_lines):
                line = lines.readline()
                if not line.endswith(b"\n"):
                    raise RuntimeError(f"{path} holds fewer than {num_lines} whole lines.")
                size += len(line)
        self._file.truncate(size)

    def append(self, content: dict[str, Any]) -> None:
        rest = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        while rest:  # a disk that fills up takes a part, and says why it takes no more after that
            rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Rle(MaskFormat):
    """COCO's run-length encoding as JSON lines: `masks.jsonl`, a line a frame.

    {"frame": 0, "objects": [{"id": 1, "area": 1234, "segmentation": {"size": [480, 640],
    "counts": "..."}}]}, where `pycocotools.mask.decode` reads a segmentation.
    """

    FILE = "masks.jsonl"

    def __init__(self, folder: Path, num_records: int):
        self._lines = LineFile(folder / self.FILE, num_records)

    def write(self, record: Record) -> None:
        columns = np.asfortranarray(record.masks.transpose(1, 2, 0), dtype=np.uint8)
        codes = coco.encode(columns) if record.obj_ids else []
        objects = [
            {
                "id": obj_id,
                "area": area,
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
            }
            for obj_id, area, code in zip(record.obj_ids, record.areas, codes, strict=True)
        ]
        self._lines.append({"frame": record.frame_idx, "objects": objects})

    def close(self) -> None:
        self._lines.close()


class Png(MaskFormat):
    """One indexed PNG a frame with the palette of DAVIS: `png/000012.png`.

    Pixels hold the object's number, 0 is background; where masks overlap the higher logit wins. An
    integer id from 1 to 255 is its own number, others get the lowest that is free.
    """

    FOLDER = "png"

    def __init__(self, folder: Path, num_records: int):
        self._folder = folder / self.FOLDER
        self._folder.mkdir(exist_ok=True)
        self._numbers: dict[ObjectId, int] = {}
        if num_records:
            for path in sorted(self._folder.glob("*.png")):
                self._numbers.update({obj_id: n for n, obj_id in png_ids(path)})

    def write(self, record: Record) -> None:
        numbers = [self._number(obj_id) for obj_id in record.obj_ids]
        labels = np.array([*numbers, 0], np.uint8)[record.winners]
        image = Image.fromarray(labels)
        image.putpalette(davis_palette().tobytes())
        _save(
            image,
            self._folder / name(record.frame_idx),
            list(zip(numbers, record.obj_ids, strict=True)),
        )

    def _number(self, obj_id: ObjectId) -> int:
        if obj_id not in self._numbers:
            taken = set(self._numbers.values())
            if isinstance(obj_id, int) and 1 <= obj_id <= 255 and obj_id not in taken:
                self._numbers[obj_id] = obj_id
            else:
                free = (number for number in range(1, 256) if number not in taken)
                number = next(free, None)
                if number is None:
                    raise ValueError(
                        "An indexed PNG holds at most 255 objects, and there are more. Use the "
                        'formats "rle" or "object_png".'
                    )
                self._numbers[obj_id] = number
        return self._numbers[obj_id]


class ObjectPng(MaskFormat):
    """One black and white PNG for each object and frame: `object_png/ID/000012.png`."""

    FOLDER = "object_png"

    def __init__(self, folder: Path, num_records: int):
        self._folder = folder / self.FOLDER
        self._folder.mkdir(exist_ok=True)

    def write(self, record: Record) -> None:
        for obj_id, mask in zip(record.obj_ids, record.masks, strict=True):
            path = self.path(self._folder.parent, obj_id, record.frame_idx)
            path.parent.mkdir(exist_ok=True)
            _save(Image.fromarray(mask), path, [(1, obj_id)])

    @classmethod
    def path(cls, folder: Path, obj_id: ObjectId, frame_idx: int) -> Path:
        """The file of one mask; what no file name may hold is written as in a URL."""
        return folder / cls.FOLDER / quote(str(obj_id), safe=" ") / name(frame_idx)


def name(frame_idx: int) -> str:
    return f"{frame_idx:06d}.png"


def png_ids(path: Path) -> list[tuple[int, ObjectId]]:
    """The (pixel value, object id) pairs that a PNG of ours carries."""
    with Image.open(path) as image:
        image.load()
        text = image.info.get(METADATA_KEY)
    if text is None:
        raise ValueError(f"{path} was not written by longsam: it names no objects.")
    return [(number, obj_id) for number, obj_id in json.loads(text)["objects"]]


def _save(image: Image.Image, path: Path, objects: list[tuple[int, ObjectId]]) -> None:
    """Write a PNG under another name first, so that a file of this name is always whole."""
    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps({"objects": objects}))
    partial = path.with_suffix(".partial")
    image.save(partial, "PNG", pnginfo=info, compress_level=3)
    os.replace(partial, path)


@cache
def davis_palette() -> npt.NDArray[np.uint8]:
    """256 RGB colours, as DAVIS and PASCAL VOC have them: bits of the number spread over RGB."""
    numbers = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((numbers >> channel & 1) << (7 - bit)).astype(np.uint8)
        numbers >>= 3
    palette.flags.writeable = False  # one for all who ask
    return palette
