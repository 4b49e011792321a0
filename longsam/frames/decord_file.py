"""Video files through decord, upstream's own reader, in chunks."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longsam.frames import fingerprints
from longsam.frames.base import Frame, FrameSource
from longsam.frames.ffmpeg import is_playlist, open_video
from longsam.frames.video_file import VideoFile


class DecordFile(FrameSource):
    """A video file read by decord in chunks, its queues emptied after each chunk.

    decord decodes ahead without limit, until the whole video is in memory, however slowly it is
    read; only a seek stops it. So each chunk is fetched with `get_batch`, and a seek follows at
    once. After a seek decord silently gives wrong frames in some files (open GOPs, edit lists,
    MPEG-TS, B-frames in AVI). Therefore all frames of a chunk that does not start at frame 0 are
    compared with those of `VideoFile`, which decodes them a second time. An overlap with the
    previous chunk is not enough: where nothing moves, frames are equal.

    decord's FFmpeg cannot be told which formats to open, so playlists are detected with PyAV's
    FFmpeg and refused. For files that you do not trust, use the reader "av".

    Args:
        path: The file.
        image_size: Side of the model's square input, in pixels.
        frames_per_chunk: How many frames one `get_batch` decodes.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: decord is not installed.
        ValueError: decord cannot open the file, or it is a playlist.
    """

    path: Path

    def __init__(self, path: Path, image_size: int, frames_per_chunk: int):
        try:
            import decord
        except ImportError as error:
            raise ImportError(
                'reader="decord" needs the package decord, which is not installed. Install it with '
                '`pip install "longsam[decord]"`, or use the default reader="av".'
            ) from error
        if not path.exists():
            raise FileNotFoundError(f"There is no video file or image folder at {path}.")
        self.name = str(path)
        self.path = path
        self._image_size = image_size
        self._frames_per_chunk = frames_per_chunk
        self._exact: VideoFile | None = None  # opened when first needed
        self._check_is_no_playlist()
        try:
            # Upstream takes the size from a frame too: the header's ignores rotation.
            first = decord.VideoReader(self.name, num_threads=1).next()
            self._reader: Any = decord.VideoReader(self.name, width=image_size, height=image_size)
        except (decord.DECORDError, RuntimeError, StopIteration) as error:
            raise ValueError(
                f"{path} cannot be opened by decord ({_first_line(error)}). Check that it "
                'is a video that plays, or try the default reader="av".'
            ) from error
        self.num_frames = len(self._reader)
        height, width, _ = first.shape
        self.frame_size = (height, width)

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        for chunk_start in range(start, stop, self._frames_per_chunk):
            chunk_stop = min(chunk_start + self._frames_per_chunk, stop)
            frames = self._get_batch(chunk_start, chunk_stop)
            yield from self._checked(frames, chunk_start) if chunk_start > 0 else frames

    def fingerprint(self) -> str:
        return fingerprints.of_file(self.path)

    def close(self) -> None:
        self._reader = None
        if self._exact is not None:
            self._exact.close()

    def _check_is_no_playlist(self) -> None:
        try:
            container, _ = open_video(self.path)
        except ValueError as error:
            why = str(error).removeprefix(f"{self.path} ")
            raise ValueError(
                f'{self.path} cannot be opened by decord or by reader="av": it {why}'
            ) from error
        container.close()
        if is_playlist(self.path):
            raise ValueError(
                f"{self.path} cannot be opened by decord: it starts like a playlist, and decord "
                'would follow it. Use the default reader="av".'
            )

    def _checked(self, frames: Frame, start: int) -> Iterator[Frame]:
        """Frames that decord gave after a seek, each yielded once it is known to be right."""
        exact = self._exact_frames(start, start + len(frames))
        for frame_idx, frame in enumerate(frames, start):
            if not np.array_equal(frame, next(exact)):
                raise RuntimeError(
                    f"{self.name}: decord gives a different frame {frame_idx} after a seek than "
                    "without, so its frames cannot be trusted in this file (open GOPs, edit lists "
                    'and MPEG-TS do this). Use the default reader="av".'
                )
            yield frame

    def _exact_frames(self, start: int, stop: int) -> Iterator[Frame]:
        try:
            if self._exact is None:
                self._exact = VideoFile(self.path, self._image_size)
            yield from self._exact.read(start, stop)
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"{self.name}: decord gave frames {start} to {stop - 1}, which cannot be checked "
                f"({_first_line(error)})"
            ) from error

    def _get_batch(self, start: int, stop: int) -> Frame:
        """Frames start .. stop - 1, in one array."""
        try:
            return _as_numpy(self._reader.get_batch(range(start, stop)))
        except Exception as error:  # decord raises its own error and several of Python's
            raise RuntimeError(
                f"{self.name}: decord cannot read frames {start} to {stop - 1} of "
                f"{self.num_frames} ({_first_line(error)}); the file is damaged or cut off "
                'there. Frames before are good. The default reader="av" reads up to the damage.'
            ) from error
        finally:
            self._stop_decoding()

    def _stop_decoding(self) -> None:
        """Empty decord's queues: `seek` clears them and its decoder stops."""
        self._reader.seek(0)
        if sys.platform == "linux":
            # The queues were many small blocks, which glibc keeps unless told to release them.
            ctypes.CDLL(None).malloc_trim(0)


def _first_line(error: Exception) -> str:
    """The message of a decord error, without its stack trace."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _as_numpy(batch: Any) -> Frame:
    """What decord returned as an array, for any bridge (numpy, torch, ...) set in this thread."""
    array: Frame = batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    return array
