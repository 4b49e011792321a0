"""Masks from PNGs, which need not be trusted."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from longsam.masks.files import open_regular

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def read(path: Path, size: tuple[int, int], mode: str) -> npt.NDArray[np.uint8 | np.bool_]:
    """The pixels of a PNG; its size is checked before they are decoded.

    Args:
        path: The file.
        size: (height, width) that it must have.
        mode: The Pillow mode that it must have: "1" is black and white, "P" indexed.

    Raises:
        ValueError: It is not such an image; the message names the file.
    """
    with open_regular(path) as file:
        start = file.read(len(_START) + 8)
        if not start.startswith(_START) or len(start) < len(_START) + 8:
            raise ValueError(f"{path} is no PNG.")
        width, height = struct.unpack(">II", start[-8:])
        if (height, width) != size:
            raise ValueError(
                f"{path} has {width}x{height} pixels, but the masks have {size[1]}x{size[0]}."
            )
        file.seek(0)
        try:
            with Image.open(file, formats=["PNG"]) as image:
                if image.mode != mode:
                    raise ValueError(f"its pixels are {image.mode!r}, not {mode!r}")
                return np.asarray(image)
        except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
