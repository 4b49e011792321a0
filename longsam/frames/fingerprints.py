"""What tells one video from another without decoding it: a hash of samples spread over it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from longsam.frames.base import Frame

NUM_SAMPLES = 16
BLOCK_BYTES = 64 * 1024


def of_file(path: str | os.PathLike[str]) -> str:
    """For one file: its size, and 16 blocks of 64 KiB from its start to its end.

    Returns:
        32 hex digits.
    """
    size = os.path.getsize(path)
    samples = hashlib.sha256(f"file {size} ".encode())
    with open(path, "rb") as file:
        for start in _spread(max(1, size - BLOCK_BYTES + 1)):
            file.seek(start)
            samples.update(file.read(BLOCK_BYTES))
    return samples.hexdigest()[:32]


def of_images(paths: Sequence[str | os.PathLike[str]]) -> str:
    """For image files: their number, and name, size and first 64 KiB of 16 of them.

    Returns:
        32 hex digits.
    """
    samples = hashlib.sha256(f"images {len(paths)} ".encode())
    for at in _spread(len(paths)):
        path = Path(paths[at])
        samples.update(os.fsencode(path.name) + f" {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            samples.update(file.read(BLOCK_BYTES))
    return samples.hexdigest()[:32]


def of_frames(num_frames: int, frame: Callable[[int], Frame]) -> str:
    """For frames by index: their number, and shape and pixels of 16 of them.

    Returns:
        32 hex digits.
    """
    samples = hashlib.sha256(f"frames {num_frames} ".encode())
    for frame_idx in _spread(num_frames):
        pixels = np.ascontiguousarray(frame(frame_idx))
        samples.update(f"{pixels.shape} ".encode())
        samples.update(pixels.data.cast("B"))
    return samples.hexdigest()[:32]


def _spread(count: int) -> list[int]:
    """16 indices from the first to the last, or all if there are fewer."""
    return sorted({at * (count - 1) // (NUM_SAMPLES - 1) for at in range(NUM_SAMPLES)})
