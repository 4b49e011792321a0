"""Single images: read and resized exactly as upstream reads its JPEG folders."""

import struct
from os import PathLike, fspath
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from longsam.frames.base import Frame

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Allowed image formats, by content, not by name. Pillow reads more, but runs a program for EPS."""


def open_image(path: str | PathLike[str]) -> Image.Image:
    """Read an image file with at most 8 bits a channel.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is not an image in one of these formats, is damaged, or has too many
            pixels, several pages or more than 8 bits a channel.
    """
    try:
        with open(path, "rb") as file:
            image = _identified(file)
            _check_is_one_frame(image, path)
            image.load()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image at {fspath(path)}.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise RuntimeError(
            f"{fspath(path)} cannot be read as an image ({error}). Replace or remove the file."
        ) from error
    return image


def _identified(file: IO[bytes]) -> Image.Image:
    """Read an image's header, not its pixels.

    `PIL.Image.open` with these formats, without its size check: that only warns, and a warning
    cannot be turned into an error in one thread alone.
    """
    Image.preinit()
    if not Image.OPEN.keys() >= set(FORMATS):
        Image.init()
    start = file.read(16)
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(start) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # only its first bytes match this format
    raise UnidentifiedImageError(f"it is none of {', '.join(FORMATS)}")


def _check_is_one_frame(image: Image.Image, path: str | PathLike[str]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise RuntimeError(
            f"{fspath(path)} is {image.width}x{image.height} pixels, more than the limit of "
            f"{limit:,} pixels that protects against small files that unpack to gigabytes. Scale "
            "it down, or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
        )
    num_pages = getattr(image, "n_frames", 1)
    if num_pages > 1:
        raise RuntimeError(
            f"{fspath(path)} holds {num_pages} images, and would be read as one frame. Save them "
            "as separate files, or give them as an array of shape (frames, height, width, 3), "
            "such as tifffile.imread gives for a stack."
        )
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        raise RuntimeError(
            f"{fspath(path)} has more than 8 bits a channel (PIL mode {image.mode!r}). "
            "Scale it to 8 bits first: (a / a.max() * 255).astype('uint8'), with one maximum for "
            "all frames."
        )


def resize(image: Image.Image, image_size: int | None) -> Frame:
    """Turn an image into a frame of the model's size with upstream's own resampling.

    Upstream's `_load_img_as_tensor` calls `convert("RGB").resize((S, S))`; so does this, so the
    pixels are equal. None keeps the image's own size.
    """
    image = image.convert("RGB")
    return np.array(image if image_size is None else image.resize((image_size, image_size)))
