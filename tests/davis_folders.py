"""Folders laid out as DAVIS's and SA-V's, of generated videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from longsam.testing import SyntheticVideo

PALETTE = [0, 0, 0, 200, 30, 30, 30, 200, 30, 30, 30, 200, *[128] * 756]
"""Of 256 colours: with fewer, Pillow writes greater numbers as others."""


def write_davis(
    root: Path,
    name: str,
    video: SyntheticVideo,
    *,
    annotated: Sequence[int] | None = None,
    late: dict[int, int] | None = None,
    void_rows: int = 0,
    resolution: str = "",
) -> None:
    """`JPEGImages/NAME` and `Annotations/NAME`; object i is number i + 1.

    Args:
        root: The folder.
        name: The video's.
        video: The video.
        annotated: The frames with masks; None is all.
        late: Objects that no mask shows before a frame.
        void_rows: So many rows at the top are void.
        resolution: A folder in between.
    """
    frames_at = write_frames(root / "JPEGImages" / resolution / name, video)
    assert frames_at.is_dir()
    folder = root / "Annotations" / resolution / name
    folder.mkdir(parents=True)
    for i in range(len(video)) if annotated is None else annotated:
        labels = np.zeros(video.frame_size, np.uint8)
        for obj, mask in enumerate(video.masks(i)):
            if i >= (late or {}).get(obj, 0):
                labels[mask] = obj + 1
        labels[:void_rows] = 255
        image = Image.fromarray(labels)
        image.putpalette(PALETTE)
        image.save(folder / f"{i:05d}.png")


def write_sav(root: Path, name: str, video: SyntheticVideo, every: int = 4) -> None:
    """As SA-V: frames, and at a lower rate a folder of masks for each object."""
    write_frames(root / "JPEGImages_24fps" / name, video)
    for obj in range(video.num_objects):
        folder = root / "Annotations_6fps" / name / f"{obj:03d}"
        folder.mkdir(parents=True)
        for i in range(0, len(video), every):
            Image.fromarray(video.masks(i)[obj]).save(folder / f"{i:05d}.png")


def write_frames(folder: Path, video: SyntheticVideo) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{i:05d}.jpg", quality=95)
    return folder
