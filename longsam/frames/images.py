"""Single images: read and resized exactly as upstream reads its JPEG folders."""

from os import PathLike, fspath

import numpy as np
from PIL import Image, UnidentifiedImageError

from longsam.frames.base import Frame


def open_image(path: str | PathLike[str]) -> Image.Image:
    """Open an image file of 8 bits a channel (or fewer).

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: The file is no image, is damaged, or has several pages or more than 8 bits a
            channel.
    """
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image at {fspath(path)}.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise RuntimeError(
            f"{fspath(path)} cannot be read as an image ({error}). Replace or remove the file."
        ) from error
    try:
        _check_is_one_frame(image, path)
    except RuntimeError:
        image.close()
        raise
    return image


def _check_is_one_frame(image: Image.Image, path: str | PathLike[str]) -> None:
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

    Upstream's `_load_img_as_tensor` calls `convert("RGB").resize((S, S))`; so does this, hence
    the same pixels. None keeps the image's own size.
    """
    image = image.convert("RGB")
    return np.array(image if image_size is None else image.resize((image_size, image_size)))
