"""Live sources in this process: iterators of arrays, `cv2.VideoCapture`, cameras."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from PIL import Image

from longsam.frames.base import Frame
from longsam.frames.images import resize
from longsam.frames.sequence import as_frame

_CAP_PROP_FRAME_COUNT = 7  # of OpenCV


class RawFrame(Protocol):
    """A frame as it arrives, converted when asked for."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, as displayed."""
        ...

    def rgb(self) -> Frame:
        """The frame in its own size: uint8 RGB, height x width x 3."""
        ...

    def scaled(self, image_size: int) -> Frame:
        """The frame as the model sees it: uint8 RGB, image_size x image_size x 3."""
        ...


class ArrayFrame:
    """A frame that arrives as an array: uint8 RGB, height x width x 3."""

    def __init__(self, array: Frame):
        self._array = array
        self.size: tuple[int, int] = (array.shape[0], array.shape[1])

    def rgb(self) -> Frame:
        return self._array

    def scaled(self, image_size: int) -> Frame:
        return resize(Image.fromarray(self._array), image_size)


def arrays(frames: Iterable[Any], name: str) -> Iterator[RawFrame]:
    """Frames of an iterator of arrays or tensors."""
    for frame_idx, frame in enumerate(frames):
        # Copied: a generator may refill the same array while the frame is still in use.
        yield ArrayFrame(as_frame(frame, frame_idx, name).copy())


def is_capture(source: Any) -> bool:
    """Whether it is a `cv2.VideoCapture`, without importing cv2."""
    return all(hasattr(source, name) for name in ("isOpened", "read", "grab", "retrieve"))


def has_length(capture: Any) -> bool:
    """Whether a `cv2.VideoCapture` reads a file, not a camera."""
    num_frames: float = capture.get(_CAP_PROP_FRAME_COUNT)
    return num_frames > 0


def captured(capture: Any, name: str) -> Iterator[RawFrame]:
    """Frames of an opened `cv2.VideoCapture`, which the caller releases."""
    if not capture.isOpened():
        raise RuntimeError(f"{name} is not open; check its camera, file or URL.")
    while True:
        is_read, image = capture.read()
        if not is_read:
            return
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        yield ArrayFrame(np.ascontiguousarray(image[..., 2::-1]))  # from BGR


def camera(index: int) -> Iterator[RawFrame]:
    """Frames of a camera, which is released when the iterator is closed."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Cameras are read through OpenCV: `pip install opencv-python`."
        ) from error
    capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise RuntimeError(
                f"Camera {index} cannot be opened. Check that it is connected, that no other "
                "program uses it, and try index 0, 1, ..."
            )
        yield from captured(capture, f"camera {index}")
    finally:
        capture.release()
