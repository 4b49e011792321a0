"""Video files through decord, upstream's own reader, in chunks."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longsam.frames.base import Frame, FrameSource


class DecordFile(FrameSource):
    """A video file read by decord in chunks, its queues emptied after each chunk.

    decord decodes as far ahead as it can, whoever reads, until the whole video lies in memory; only
    a seek stops it. So each chunk is fetched with `get_batch` and a seek follows at once. After a
    seek decord gives wrong frames in some files (open GOPs, edit lists, MPEG-TS, B-frames in AVI),
    without saying so; therefore each chunk starts with the last frame of the one before, and the
    two must be equal.

    Args:
        path: The file.
        image_size: Side of the model's square input, in pixels.
        frames_per_chunk: How many frames one `get_batch` decodes.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: decord is not installed.
        ValueError: decord cannot open the file.
    """

    def __init__(self, path: Path, image_size: int, frames_per_chunk: int):
        try:
            import decord
        except ImportError as error:
            raise ImportError(
                'reader="decord" needs the package decord, which is not installed. Install it with '
                "`pip install decord` (it has wheels for x86-64 only), or use the default "
                'reader="av".'
            ) from error
        if not path.exists():
            raise FileNotFoundError(f"There is no video file or image folder at {path}.")
        self.name = str(path)
        self.path = path
        self._frames_per_chunk = frames_per_chunk
        self._last: tuple[int, Frame] | None = None
        try:
            # Upstream takes the size from a frame too: the header does not know of rotation.
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
            yield from self._chunk(chunk_start, chunk_stop)

    def _chunk(self, start: int, stop: int) -> list[Frame]:
        overlap = self._last is not None and self._last[0] == start - 1
        first = start - 1 if overlap else start
        frames = list(_as_numpy(self._get_batch(first, stop)))
        if overlap:
            assert self._last is not None
            if not np.array_equal(frames.pop(0), self._last[1]):
                raise RuntimeError(
                    f"{self.name}: decord gives another frame {start - 1} after a seek than before "
                    "it, so its frames cannot be trusted in this file (open GOPs, edit lists and "
                    f"MPEG-TS do this). Use the default "
                    'reader="av".'
                )
        self._last = (stop - 1, frames[-1].copy())
        return frames

    def _get_batch(self, start: int, stop: int) -> Any:
        try:
            return self._reader.get_batch(range(start, stop))
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
            # The queues were many small blocks, which glibc keeps unless told.
            ctypes.CDLL(None).malloc_trim(0)

    def close(self) -> None:
        self._reader = None


def _first_line(error: Exception) -> str:
    """What decord says, without its stack trace."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _as_numpy(batch: Any) -> Frame:
    """What decord gave, whichever bridge (numpy, torch, ...) this thread has set."""
    array: Frame = batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    return array
