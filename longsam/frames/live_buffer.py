"""The latest frames of a live source, which upstream reads as its tensor of all frames."""

import torch

from longsam.frames.base import EndOfVideoError
from longsam.frames.buffer import FrameBuffer
from longsam.frames.live import LiveVideo


class LiveBuffer(FrameBuffer):
    """Holds the latest frames; reading the one after them waits for it to arrive.

    Args:
        source: Where frames come from.
        image_size: Side S of the model's square input, in pixels.
        frames_per_chunk: At most one more than this many frames are held.
        device: Where frames are normalized and returned.
    """

    source: LiveVideo

    def __init__(
        self, source: LiveVideo, image_size: int, frames_per_chunk: int, device: torch.device
    ):
        super().__init__(source, image_size, frames_per_chunk, device)
        source.attach(image_size)

    @property
    def held(self) -> range:
        """The frames that can be read now."""
        num_arrived = self.source.num_arrived
        return range(max(0, num_arrived - len(self._slots)), num_arrived)

    def check(self, frame_idx: int, name: str) -> None:
        held = self.held
        if frame_idx in held:
            return
        which = (
            f"{name} is {frame_idx}, but {self.source.name} holds only the frames {held.start} to "
        )
        which += f"{held.stop - 1}"
        if frame_idx < held.start:
            raise ValueError(
                f"{which}; older ones are gone. Use one of these, or give init_state a larger "
                f"frames_per_chunk (it holds one more than that, now {len(self._slots)})."
            )
        raise ValueError(f"{which}; later ones have not arrived. Use one of these.")

    def check_start(self, frame_idx: int) -> None:
        if frame_idx != self.held.stop:  # the next frame to arrive
            self.check(frame_idx, "start_frame_idx")

    def __getitem__(self, frame_idx: int) -> torch.Tensor:
        self._check_is_open()
        held = self.held
        if frame_idx == held.stop:
            self.advance()
        elif frame_idx not in held:
            raise EndOfVideoError(
                f"Frame {frame_idx} of {self.source.name} is not held; {held.start} to "
                f"{held.stop - 1} are."
            )
        return self._normalize(self._slots[frame_idx % len(self._slots)])

    def advance(self) -> int:
        """Wait for the next frame and hold it; returns its index.

        Raises:
            EndOfStreamError: The source has ended.
        """
        frame_idx = self.held.stop
        self._slots[frame_idx % len(self._slots)] = self.source.next_frame()
        return frame_idx
