"""The input of every export: frames and masks in order, numbers for ids, names for frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longsam.masks.exports.names import FrameNames
from longsam.masks.ids import ObjectId
from longsam.masks.lines import FrameLine
from longsam.masks.reader import MaskFolder
from longsam.masks.record import MaskArray


@dataclass(frozen=True)
class Masks:
    """The masks of one frame.

    Args:
        position: How many frames come before it.
        line: Its line in the index.
        masks: bool, num_objects x height x width.
    """

    position: int
    line: FrameLine
    masks: MaskArray


@dataclass(frozen=True)
class Source:
    """What is exported.

    Args:
        folder: The masks.
        numbers: An integer for each object, from 1; an integer id is its own number if possible.
        names: Names of the frames.
        category: One category for all objects; None gives each its own.
        progress: Called with how many frames are done.
    """

    folder: MaskFolder
    numbers: dict[ObjectId, int]
    names: FrameNames
    category: str | None
    progress: Callable[[int], None]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.folder.size

    @property
    def num_frames(self) -> int:
        return len(self.folder)

    def __iter__(self) -> Iterator[Masks]:
        """The masks of all frames, in order."""
        for position, line in enumerate(self.folder.lines()):
            yield Masks(position, line, self.folder.read(line.frame_idx).masks)
            self.progress(position + 1)

    def categories(self) -> dict[int, str]:
        """Number and name of each category; objects' own categories have the objects' numbers."""
        if self.category is not None:
            return {1: self.category}
        return self.labels()

    def category_of(self, obj_id: ObjectId) -> int:
        """The number of an object's category."""
        return 1 if self.category is not None else self.numbers[obj_id]

    def labels(self) -> dict[int, str]:
        """By number, each object's id as text that any format can hold; no two are equal."""
        texts = {number: plain_text(obj_id) for obj_id, number in self.numbers.items()}
        seen: set[str] = set()
        for number, text in texts.items():
            while text in seen:
                text = f"{text} ({number})"
            seen.add(text)
            texts[number] = text
        return texts


def numbered(obj_ids: list[ObjectId]) -> dict[ObjectId, int]:
    """A number from 1 for each object, in the order given.

    An id that is an integer from 1 is its own number. The others get the lowest free ones.
    """
    own = {i for i in obj_ids if isinstance(i, int) and 1 <= i < 2**31}
    numbers: dict[ObjectId, int] = {}
    last = 0
    for obj_id in obj_ids:
        if obj_id in own:
            numbers[obj_id] = int(obj_id)
            continue
        last += 1
        while last in own:
            last += 1
        numbers[obj_id] = last
    return numbers


def plain_text(obj_id: ObjectId, most: int = 100) -> str:
    """An id as printable text of one line."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(obj_id)[:most])
    return text.strip() or "?"


def labels_of(
    frame: Masks, numbers: dict[ObjectId, int], kind: type[np.uint8 | np.uint16 | np.uint32]
) -> npt.NDArray[np.uint8 | np.uint16 | np.uint32]:
    """One number per pixel, 0 where there is no object.

    Where masks overlap the smaller one is on top, so that it is not hidden by one around it.

    Args:
        frame: The masks.
        numbers: The objects' numbers.
        kind: The dtype of the result.

    Returns:
        height x width.
    """
    labels: npt.NDArray[np.uint8 | np.uint16 | np.uint32]
    labels = np.zeros(frame.masks.shape[1:], kind)
    areas = frame.line.areas
    for at in sorted(range(len(areas)), key=lambda at: -areas[at]):
        labels[frame.masks[at]] = numbers[frame.line.obj_ids[at]]
    return labels
