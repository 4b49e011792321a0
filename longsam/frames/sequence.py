"""Arrays, and anything else with a length and frames by index."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from longsam.frames import fingerprints
from longsam.frames.base import Frame, FrameSource
from longsam.frames.folder import ImageFiles
from longsam.frames.images import resize


class FrameSequence(FrameSource):
    """Frames of a numpy array, memory map, torch tensor, list, or any indexable.

    Args:
        frames: `frames[i]` is frame i, uint8 RGB, height x width x 3; `len(frames)` is their
            number. One frame is read at a time, so a memory map stays on disk.
        image_size: Side of the model's square input, in pixels; None keeps the frames' size.

    Raises:
        ValueError: There are no frames, or the first one has another shape or dtype.
    """

    def __init__(self, frames: Any, image_size: int | None):
        self.name = f"the {type(frames).__name__} of frames"
        self.num_frames = len(frames)
        self._frames = frames
        self._image_size = image_size
        if self.num_frames == 0:
            raise ValueError(f"{self.name} is empty; give at least one frame.")
        height, width, _ = self._frame(0).shape
        self.frame_size = (height, width)

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        for frame_idx in range(start, stop):
            frame = self._frame(frame_idx)
            if frame.shape[:2] != self.frame_size:
                raise RuntimeError(
                    f"Frame {frame_idx} of {self.name} is {frame.shape[1]}x{frame.shape[0]} "
                    f"pixels, but frame 0 is {self.frame_size[1]}x{self.frame_size[0]}. All "
                    "frames of a video must have one size."
                )
            yield resize(Image.fromarray(frame), self._image_size)

    def fingerprint(self) -> str:
        return fingerprints.of_frames(self.num_frames, self._frame)

    def _frame(self, frame_idx: int) -> Frame:
        return as_frame(self._frames[frame_idx], frame_idx, self.name)


def as_frame(frame: Any, frame_idx: int, name: str) -> Frame:
    """A frame as an array.

    Raises:
        ValueError: It is not uint8 RGB, height x width x 3.
    """
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu().numpy()
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(
            f"Frame {frame_idx} of {name} has dtype {frame.dtype} and shape "
            f"{tuple(frame.shape)}; frames must be uint8 RGB of shape (height, width, 3). "
            f"{_advice(frame)}"
        )
    return np.ascontiguousarray(frame)


def _advice(frame: npt.NDArray[Any]) -> str:
    """Advice on making a frame of it."""
    if frame.ndim == 2:
        return "For grey use np.repeat(frames[..., None], 3, axis=-1), and uint8."
    if frame.ndim == 3 and frame.shape[0] == 3 != frame.shape[2]:
        return "For channels first use frames.transpose(0, 2, 3, 1), and uint8."
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "To drop the alpha channel use frames[..., :3]."
    if np.issubdtype(frame.dtype, np.floating):
        return "For floats in 0..1 use (frames * 255).astype('uint8')."
    if frame.dtype != np.uint8:
        return "Use (frames / frames.max() * 255).astype('uint8')."
    return "The first axis of an array counts the frames."


def frame_sequence(frames: Any, image_size: int | None) -> FrameSource:
    """Frames from an indexable: a list of image paths, or anything that gives arrays."""
    if isinstance(frames, Sequence) and frames and isinstance(frames[0], (str, os.PathLike)):
        return ImageFiles(frames, image_size, "the list of image files")
    return FrameSequence(frames, image_size)
