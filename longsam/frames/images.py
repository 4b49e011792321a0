"""Single images: read and resized exactly as upstream reads its JPEG folders."""

from os import PathLike, fspath

import numpy as np
from PIL import Image, UnidentifiedImageError

from longsam.frames.base import Frame


def open_image(path: str | PathLike[str]) -> Image.Image:
    """Open an image file of 8 bits a channel (or fewer).

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is no image, is damaged, or has more than 8 bits a channel.
    """
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise RuntimeError(
            f"{fspath(path)} cannot be read as an image ({error}). Replace or remove the file."
        ) from error
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        raise RuntimeError(
            f"{fspath(path)} has more than 8 bits a channel (PIL mode {image.mode!r}). "
            "Convert the images to 8-bit RGB or grey first."
        )
    return image


def resize(image: Image.Image, image_size: int) -> Frame:
    """Turn an image into a frame of the model's size with upstream's own resampling.

    Upstream's `_load_img_as_tensor` calls `convert("RGB").resize((S, S))`; so does this, hence
    the same pixels.
    """
    return np.array(image.convert("RGB").resize((image_size, image_size)))
