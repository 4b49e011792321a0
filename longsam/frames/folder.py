"""Folders of images."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longsam._warn import warn
from longsam.frames import fingerprints
from longsam.frames.base import Frame, FrameSource
from longsam.frames.images import open_image, resize

JPEG_SUFFIXES = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".webp", ".bmp", ".tif", ".tiff")


class ImageFiles(FrameSource):
    """Image files, one per frame, in the order given.

    Args:
        paths: The files. All must have the size of the first.
        image_size: Side of the model's square input, in pixels; None keeps the frames' size.
        name: What error messages call this video.

    Raises:
        ValueError: `paths` is empty.
        FileNotFoundError: The first file does not exist.
        RuntimeError: The first file cannot be read.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], image_size: int | None, name: str):
        if not paths:
            raise ValueError(f"{name} holds no frames; give at least one image.")
        self.name = name
        self.num_frames = len(paths)
        self._paths = paths
        self._image_size = image_size
        with open_image(paths[0]) as image:
            self.frame_size = (image.height, image.width)

    @property
    def names(self) -> list[str]:
        """The file name of each frame's image."""
        return [os.path.basename(os.fspath(path)) for path in self._paths]

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        for frame_idx in range(start, stop):
            with open_image(self._paths[frame_idx]) as image:
                size = (image.height, image.width)
                if size != self.frame_size:
                    raise RuntimeError(
                        f"{os.fspath(self._paths[frame_idx])} (frame {frame_idx}) is "
                        f"{size[1]}x{size[0]} pixels, but frame 0 is "
                        f"{self.frame_size[1]}x{self.frame_size[0]}. All frames of a video must "
                        "have one size: resize or remove the image."
                    )
                yield resize(image, self._image_size)

    def fingerprint(self) -> str:
        return fingerprints.of_images(self._paths)


def image_folder(path: Path, image_size: int | None) -> ImageFiles:
    """The images of a folder as a video.

    Names that are all integers ("0.jpg", "00001.jpg") sort by number, as upstream sorts them;
    other names sort in natural order ("shot2_frame10" after "shot2_frame9"). If there are JPEGs,
    only these are frames, as in upstream, so PNG masks stored beside them do no harm. Hidden files
    and other kinds of files are skipped.

    Raises:
        ValueError: The folder holds no images.
    """
    names = [
        name
        for name in os.listdir(path)
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    ]
    if not names:
        raise ValueError(
            f"{path} holds no images. Looked for files ending in {', '.join(IMAGE_SUFFIXES)}. "
            "For a video file, give the path of the file itself."
        )
    jpegs = [name for name in names if name.lower().endswith(JPEG_SUFFIXES)]
    if jpegs and len(jpegs) < len(names):
        warn(
            f"{path} holds {len(jpegs)} JPEGs and {len(names) - len(jpegs)} other images; only the "
            "JPEGs are frames, as in upstream. For others, give a list of paths."
        )
    names = jpegs or names
    stems = {name: os.path.splitext(name)[0] for name in names}
    if all(stem.isdecimal() for stem in stems.values()):
        names.sort(key=lambda name: (int(stems[name]), name))
    else:
        names.sort(key=_natural_order)
    images = ImageFiles([path / name for name in names], image_size, str(path))
    images.path = path
    return images


def _natural_order(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), part) if part.isdecimal() else (-1, part.lower())
        for part in re.split(r"(\d+)", name)
    ]
