"""The interface of a source of frames: a count, a size, and ranges of frames in order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
"""One frame, uint8 RGB, height x width x 3."""


class EndOfVideoError(RuntimeError):
    """The video ends before the number of frames counted for it."""


class FrameSource(ABC):
    """Frames of one video, resized to the model's square input, or in their own size.

    A source is used by one thread at a time and keeps no frame that it has yielded.

    Attributes:
        name: What error messages call it: the path, or the kind of array.
        num_frames: How many frames the video has.
        frame_size: (height, width) of the original frames in pixels, as displayed.
        frame_rate: Frames per second; None where frames have no time.
        path: The file or folder; None where there is no single path.
    """

    name: str
    num_frames: int
    frame_size: tuple[int, int]
    frame_rate: Fraction | None = None
    path: Path | None = None

    @property
    def frames(self) -> range:
        """Each frame's index in the whole video: 0 .. num_frames - 1, unless
        `init_state(frames=...)` chose some.
        """
        return range(self.num_frames)

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[Frame]:
        """Yield frames `start` .. `stop - 1`, each uint8 RGB image_size x image_size x 3.

        Opened with image_size None, a source gives frames in their own size.

        Raises:
            RuntimeError: A frame cannot be read. The frames yielded before it are valid.
            EndOfVideoError: There is no such frame: `num_frames` was too high.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """What tells this video from others, without decoding all of it; computed at each call.

        Returns:
            32 hex digits: the hash of samples spread over the file, the files or the frames. It
            does not cover what is between the samples.

        Raises:
            ValueError: The source is live: its frames are not known yet.
            OSError: A file cannot be read.
        """

    def time(self, frame_idx: int) -> float | None:
        """The time stamp of a frame in seconds, counted from the whole video's first frame.

        For video files it is known for the 4096 most recently decoded frames; asking does not
        disturb reading. None where it is unknown: for older frames, with `reader="decord"`, for
        live sources, and where frames have no time.
        """
        return None

    def quick_frame(self, frame_idx: int) -> int:
        """The nearest frame at or before one that `read` gives at once; in files, a keyframe."""
        return frame_idx

    def learn(self, other: "FrameSource") -> None:  # noqa: B027
        """Take over what another source of the same video has found out: of files, keyframes.

        Neither may be reading meanwhile.
        """

    def close(self) -> None:  # noqa: B027 (most sources hold nothing open)
        """Release files and decoders. A closed source cannot be read."""
