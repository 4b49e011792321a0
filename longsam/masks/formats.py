"""The formats of masks on disk: one class for each.

Each writes one record for each frame, in the order given. So the n-th records of all formats belong
to the same frame, and each format can be cut back to its first n records.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from longsam.masks.files import AppendFile, own_folder, save_png, sync
from longsam.masks.ids import ObjectId, folder_name
from longsam.masks.lines import MAX_RLE_BYTES
from longsam.masks.record import Record

METADATA_KEY = "longsam"
"""PNGs carry a text chunk of this name: JSON with the object ids."""

_MOST_UNSYNCED = 1000


class MaskFormat(ABC):
    """Masks in one format, written by one thread."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write a record; once this returns it is complete, even if the process is killed."""

    @abstractmethod
    def sync(self) -> None:
        """Wait until everything is on the disk itself."""

    def close(self, *, complete: bool) -> None:  # noqa: B027 (files written at once need none)
        """Close the files.

        Args:
            complete: Everything is written, so finish the files; False leaves them as a kill would.
        """


class Rle(MaskFormat):
    """COCO's run-length encoding as JSON lines: `masks.jsonl`, one line per frame.

    {"frame": 0, "objects": [{"id": 1, "area": 1234, "segmentation": {"size": [480, 640],
    "counts": "..."}}]}, where `pycocotools.mask.decode` reads a segmentation.

    Args:
        folder: Where the file goes.
        size: How many of its bytes are kept.

    Attributes:
        written: First byte and length of the last line written.
    """

    FILE = "masks.jsonl"

    def __init__(self, folder: Path, size: int):
        self._file = AppendFile(folder / self.FILE, size)
        self.written = (0, 0)

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
        content = {"frame": record.frame_idx, "objects": objects}
        line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_RLE_BYTES:
            raise ValueError(
                f"The run lengths of frame {record.frame_idx} take {len(line)} bytes; at most "
                f'{MAX_RLE_BYTES} are written. Such masks are noise; if they must be kept, "png" '
                'and "object_png" hold them.'
            )
        start = self._file.size
        self._file.write(line)
        self.written = start, len(line)

    def sync(self) -> None:
        self._file.sync()

    def close(self, *, complete: bool) -> None:
        self._file.close()


class _PngFiles(MaskFormat):
    """A folder of PNGs."""

    FOLDER: str

    def __init__(self, folder: Path):
        self._folder = own_folder(folder / self.FOLDER)
        self._partial = self._folder / "png.partial"
        self._partial.unlink(missing_ok=True)  # left by a writer that was killed
        self._unsynced: list[Path] = []

    def _save(
        self, image: Image.Image, path: Path, objects: Iterable[tuple[int, ObjectId]]
    ) -> None:
        text = METADATA_KEY, json.dumps({"objects": list(objects)})
        save_png(image, path, self._partial, text)
        self._unsynced.append(path)
        if len(self._unsynced) >= _MOST_UNSYNCED:
            self.sync()

    def sync(self) -> None:
        for path in self._unsynced:
            sync(path)
        for folder in {path.parent for path in self._unsynced}:
            sync(folder)
        sync(self._folder)
        self._unsynced.clear()


class Png(_PngFiles):
    """One indexed PNG per frame with the palette of DAVIS: `png/000012.png`.

    Pixels hold the object's number, 0 is background; where masks overlap the higher logit wins.

    Args:
        folder: Where the folder of the images goes.
        numbers: The number of each object; grows while frames are written.
    """

    FOLDER = "png"

    def __init__(self, folder: Path, numbers: dict[ObjectId, int | None]):
        super().__init__(folder)
        self._numbers = numbers

    def write(self, record: Record) -> None:
        numbers = [self._numbers[obj_id] or 0 for obj_id in record.obj_ids]
        labels = np.array([*numbers, 0], np.uint8)[record.winners]
        image = Image.fromarray(labels)
        image.putpalette(davis_palette().tobytes())
        path = self.path(self._folder.parent, record.frame_idx)
        self._save(image, path, zip(numbers, record.obj_ids, strict=True))

    @classmethod
    def path(cls, folder: Path, frame_idx: int) -> Path:
        """The file of one frame."""
        return folder / cls.FOLDER / f"{frame_idx:06d}.png"


class ObjectPng(_PngFiles):
    """One black and white PNG for each object and frame: `object_png/ID/000012.png`."""

    FOLDER = "object_png"

    def write(self, record: Record) -> None:
        for obj_id, mask in zip(record.obj_ids, record.masks, strict=True):
            path = self.path(self._folder.parent, obj_id, record.frame_idx)
            own_folder(path.parent)
            self._save(Image.fromarray(mask), path, [(1, obj_id)])

    @classmethod
    def path(cls, folder: Path, obj_id: ObjectId, frame_idx: int) -> Path:
        """The file of one mask."""
        return folder / cls.FOLDER / folder_name(obj_id) / f"{frame_idx:06d}.png"


def free_number(obj_id: ObjectId, taken: Iterable[int | None]) -> int:
    """A new object's pixel value in indexed PNGs.

    Args:
        obj_id: An integer from 1 to 255 is its own number if free; others get the lowest free one.
        taken: The numbers of earlier objects.

    Raises:
        ValueError: No number is free.
    """
    used = set(taken)
    if isinstance(obj_id, int) and 1 <= obj_id <= 255 and obj_id not in used:
        return obj_id
    for number in range(1, 256):
        if number not in used:
            return number
    raise ValueError(
        "An indexed PNG holds at most 255 objects, and there are more. Use the formats "
        '"rle" or "object_png".'
    )


@cache
def davis_palette() -> npt.NDArray[np.uint8]:
    """256 RGB colours, as DAVIS and PASCAL VOC have them: bits of the number spread over RGB."""
    numbers = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((numbers >> channel & 1) << (7 - bit)).astype(np.uint8)
        numbers >>= 3
    palette.flags.writeable = False  # computed once
    return palette
