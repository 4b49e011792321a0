"""Some of a video's frames: a range, or every k-th."""

import hashlib
from collections.abc import Iterator

from longsam.frames.base import Frame, FrameSource


class SlicedSource(FrameSource):
    """Some frames of another source, counted from 0. The others are decoded if necessary, but
    neither converted nor tracked.

    Args:
        source: All frames; closed with this one.
        which: Which of them. Bounds past the end are clipped, as in Python.

    Raises:
        ValueError: It selects no frame of the video.
    """

    def __init__(self, source: FrameSource, which: slice):
        frames = source.frames[which]
        if not frames:
            raise ValueError(
                f"frames is {which}, which selects no frame of {source.name}: it has "
                f"{source.num_frames} frames, 0 to {source.num_frames - 1}."
            )
        self._source = source
        self._frames = frames
        self.name = f"{source.name}[{frames.start}:{frames.stop}:{frames.step}]"
        self.num_frames = len(frames)
        self.frame_size = source.frame_size
        self.frame_rate = None if source.frame_rate is None else source.frame_rate / frames.step
        self.path = source.path

    @property
    def frames(self) -> range:
        return self._frames

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        frames = self._frames[start:stop]
        if frames.step == 1:
            yield from self._source.read(frames.start, frames.stop)
            return
        for frame_idx in frames:
            yield from self._source.read(frame_idx, frame_idx + 1)

    def time(self, frame_idx: int) -> float | None:
        return self._source.time(self._frames[frame_idx])

    def fingerprint(self) -> str:
        frames = self._frames
        text = f"{self._source.fingerprint()} {frames.start} {len(frames)} {frames.step}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def close(self) -> None:
        self._source.close()


def sliced_as(source: FrameSource, other: FrameSource) -> FrameSource:
    """The same selection of a video that is opened again."""
    if not isinstance(other, SlicedSource):
        return source
    frames = other.frames
    return SlicedSource(source, slice(frames.start, frames.stop, frames.step))
