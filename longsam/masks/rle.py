"""Masks from COCO's run lengths, which need not be trusted.

`pycocotools.mask.decode` trusts them: runs that end too early leave other memory in the mask, and a
size beyond 32 bits crashes the process. The format is simple enough to read here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from longsam.masks.record import MaskArray


def decode(segmentation: Any, size: tuple[int, int]) -> MaskArray:
    """The mask of a segmentation, {"size": [height, width], "counts": "..."}.

    Args:
        segmentation: As in `masks.jsonl`.
        size: The size that it must have.

    Returns:
        bool, height x width.

    Raises:
        ValueError: It has another size, or its runs do not cover the mask.
    """
    if not isinstance(segmentation, dict):
        raise ValueError('"segmentation" must be an object')
    if segmentation.get("size") != list(size):
        raise ValueError(f'"size" is {segmentation.get("size")!r}, but masks are {list(size)}')
    counts = segmentation.get("counts")
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError('"counts" must be COCO\'s compressed run lengths, as text')
    lengths = runs(counts.encode())
    num_pixels = size[0] * size[1]
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > num_pixels:
        raise ValueError('"counts" has a run that is longer than the mask, or negative')
    if lengths.sum() != num_pixels:
        raise ValueError(f'"counts" covers {lengths.sum()} pixels, but the mask has {num_pixels}')
    values = np.zeros(len(lengths), bool)
    values[1::2] = True
    columns: MaskArray = np.repeat(values, lengths).reshape(size[1], size[0])
    return columns.T


def runs(counts: bytes) -> npt.NDArray[np.int64]:
    """The lengths of the runs, background and object alternately.

    A number is written in digits of 5 bits, lowest first, each as a character counted from "0"; 32
    is added to all but the last digit, and bit 16 of the last is the sign. From the fourth on, a
    number is the difference from the run two before.

    Raises:
        ValueError: It is not a list of numbers.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int32) - ord("0")
    if not len(codes):
        return codes.astype(np.int64)
    is_last = codes < 32
    if codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        raise ValueError('"counts" is damaged')
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    num_digits = np.diff(np.append(starts, len(codes)))
    if num_digits.max() > 7:
        raise ValueError('"counts" has a number of more than 35 bits')
    place = np.arange(len(codes), dtype=np.int32) - np.repeat(starts, num_digits).astype(np.int32)
    numbers = np.add.reduceat((codes & 31).astype(np.int64) << 5 * place, starts)
    is_negative = codes[is_last] & 16 != 0
    numbers[is_negative] -= 1 << (5 * num_digits[is_negative])
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
