"""Where frames come from: one small module for each kind of source."""

import os
from pathlib import Path
from typing import Any, Literal, get_args

from longsam.frames.base import EndOfVideoError, Frame, FrameSource
from longsam.frames.buffer import FrameBuffer
from longsam.frames.decord_file import DecordFile
from longsam.frames.folder import IMAGE_SUFFIXES, ImageFiles, image_folder
from longsam.frames.images import FORMATS as IMAGE_FORMATS
from longsam.frames.live import EndOfStreamError, LiveVideo, is_live
from longsam.frames.live_buffer import LiveBuffer
from longsam.frames.sequence import frame_sequence
from longsam.frames.sliced import SlicedSource, sliced_as
from longsam.frames.video_file import VideoFile

Reader = Literal["av", "decord"]

__all__ = [
    "IMAGE_FORMATS",
    "DecordFile",
    "EndOfStreamError",
    "EndOfVideoError",
    "Frame",
    "FrameBuffer",
    "FrameSource",
    "ImageFiles",
    "LiveBuffer",
    "LiveVideo",
    "Reader",
    "SlicedSource",
    "VideoFile",
    "is_live",
    "open_source",
    "sliced_as",
]


def open_source(
    video: Any, image_size: int | None, *, reader: Reader = "av", frames_per_chunk: int = 1
) -> FrameSource:
    """Open anything that counts as a video.

    Args:
        video: A path to a video file or to a folder of images, an indexable of frames, or a live
            source.
        image_size: Side of the model's square input, in pixels; None keeps the frames' size
            (not with the decord reader).
        reader: What decodes video files.
        frames_per_chunk: How many frames the decord reader fetches at once.

    Raises:
        ValueError: The reader is unknown, or the video cannot be read, such as a playlist, which
            names other files.
        FileNotFoundError: There is no such path.
    """
    if reader not in get_args(Reader):
        raise ValueError(f"reader is {reader!r}; it must be one of {', '.join(get_args(Reader))}.")
    if is_live(video):
        return video if isinstance(video, LiveVideo) else LiveVideo(video)
    if isinstance(video, (str, os.PathLike)):
        path = Path(video)
        if path.is_dir():
            return image_folder(path, image_size)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            raise ValueError(
                f"{path} is a single image. Give the folder that holds the images, a list of their "
                "paths, or, for a stack in one file, the array that tifffile.imread gives."
            )
        if reader == "decord":
            if image_size is None:
                raise ValueError('reader="decord" needs an image_size; reader="av" does not.')
            return DecordFile(path, image_size, frames_per_chunk)
        return VideoFile(path, image_size)
    if (
        hasattr(video, "__getitem__")
        and hasattr(video, "__len__")
        and not isinstance(video, (bytes, dict))
    ):
        return frame_sequence(video, image_size)
    raise ValueError(
        f"A video of type {type(video).__name__} cannot be read. Give the path of a video file or "
        "of a folder of images; frames by index: a numpy array, a torch tensor, or a list; an "
        "iterator of frames; an opened cv2.VideoCapture, the index of a camera, or a URL. A frame "
        "is uint8 RGB of shape (height, width, 3)."
    )
