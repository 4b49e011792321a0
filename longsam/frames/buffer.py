"""The stand-in for upstream's tensor of all frames: a few frames, decoded ahead of their use."""

import hashlib
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

from longsam.frames.base import Frame, FrameSource

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Upstream's defaults in `load_video_frames` (ImageNet, RGB)."""

Step = TypeVar("Step")


class FrameBuffer:
    """Serves upstream as `inference_state["images"]` at constant memory.

    Upstream reads one frame at a time, `images[frame_idx]`, and expects float32, 3 x S x S,
    normalized. The buffer holds the frame in use and up to `frames_per_chunk` frames after it (or
    before it, in reverse) as uint8, and normalizes a frame when it is read.

    While a pass runs (`serve`), one thread at a time decodes half a chunk ahead and ends; nothing
    runs between chunks or after the pass. Frames read outside a pass are decoded on the spot.

    Args:
        source: Where frames come from. The buffer owns it.
        image_size: Side S of the model's square input, in pixels.
        frames_per_chunk: How many frames are decoded ahead at most.
        device: Where frames are normalized and returned.
        dtype: What they are normalized in, and returned as.
    """

    def __init__(
        self,
        source: FrameSource,
        image_size: int,
        frames_per_chunk: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ):
        self.source = source
        self.device = device
        self.dtype = dtype
        num_ahead = min(frames_per_chunk, source.num_frames)
        shape = (num_ahead + 1, image_size, image_size, 3)
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Frames cross while the model computes: from pinned memory, on a stream of their own.
            self._slots = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        else:
            self._slots = np.empty(shape, dtype=np.uint8)
        self._num_per_read = (num_ahead + 1) // 2
        self.first_frame_digest: str | None = None  # of frame 0, once it is read
        self._slot_of: dict[int, int] = {}
        self._condition = threading.Condition()  # guards _slot_of and the reader's outcome
        self._reader: _ReadAhead | None = None
        self._step = 0  # `direction`
        self._mean = torch.tensor(IMAGE_MEAN, dtype=torch.float32, device=device)[:, None, None]
        self._std = torch.tensor(IMAGE_STD, dtype=torch.float32, device=device)[:, None, None]
        # On a GPU, dividing by a Python number multiplies by its reciprocal, which rounds
        # differently from upstream's division on the CPU; dividing by a tensor divides.
        self._max_value = torch.tensor(255.0, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return self.source.num_frames

    @property
    def direction(self) -> int:
        """1 while a forward pass computes a frame, -1 in reverse, else 0."""
        return self._step

    @property
    def num_bytes(self) -> int:
        """Memory of the buffered frames in bytes; it does not change."""
        return self._slots.nbytes

    def check(self, frame_idx: int, name: str) -> None:
        """Refuse the index of a frame that cannot be prompted.

        Raises:
            ValueError: The frame is outside the video.
        """
        if not 0 <= frame_idx < len(self):
            raise ValueError(
                f"{name} is {frame_idx}, which is outside {self.source.name}: it has "
                f"{len(self)} frames, 0 to {len(self) - 1}."
            )

    def check_start(self, frame_idx: int) -> None:
        """Refuse the index of a frame where no pass can start.

        Raises:
            ValueError: The frame is outside the video.
        """
        self.check(frame_idx, "start_frame_idx")

    def __getitem__(self, frame_idx: int) -> torch.Tensor:
        """One frame, 3 x S x S, normalized, equal to upstream's."""
        if not 0 <= frame_idx < len(self):
            raise IndexError(f"frame {frame_idx} is outside the {len(self)} frames of the video")
        if self._step:
            frame = self._slots[self._wait_for(frame_idx)]
        elif frame_idx in self._slot_of:
            frame = self._slots[self._slot_of[frame_idx]]
        else:
            self._stop_reader()
            (frame,) = self.source.read(frame_idx, frame_idx + 1)
        if frame_idx == 0 and self.first_frame_digest is None:
            self.first_frame_digest = hashlib.sha256(frame.tobytes()).hexdigest()[:16]
        return self._normalize(frame)

    def serve(
        self, steps: Generator[Step, None, None], *, reverse: bool
    ) -> Generator[Step, None, None]:
        """Yield from the steps of a pass, decoding ahead of the frames that they read.

        Only what the steps themselves read counts: between two steps the caller may read any frame
        without disturbing what was decoded ahead. When the pass ends, is closed or fails, no thread
        is left.
        """
        try:
            while True:
                with self._computing(-1 if reverse else 1):
                    try:
                        step = next(steps)
                    except StopIteration:
                        return
                yield step
        finally:
            steps.close()
            self._stop_reader()

    def close(self) -> None:
        """Stop decoding and release the source."""
        self._stop_reader()
        self.source.close()

    def _normalize(self, frame: Frame) -> torch.Tensor:
        image = self._copied_to_device(frame).permute(2, 0, 1).contiguous()
        return image.to(self.dtype).div_(self._max_value).sub_(self._mean).div_(self._std)

    def _copied_to_device(self, frame: Frame) -> torch.Tensor:
        if self._copies is None:
            return torch.from_numpy(frame).to(self.device)
        with torch.cuda.stream(self._copies):
            image = torch.from_numpy(frame).to(self.device, non_blocking=True)
        image.record_stream(torch.cuda.current_stream(self.device))
        self._copies.synchronize()  # with this copy alone: its slot may now be written again
        return image

    @contextmanager
    def _computing(self, step: int) -> Iterator[None]:
        self._step = step
        try:
            yield
        finally:
            self._step = 0

    def _wait_for(self, frame_idx: int) -> int:
        """The slot of a frame of the pass, once it is decoded; what the pass has left is freed."""
        with self._condition:
            for held in list(self._slot_of):
                if (held - frame_idx) * self._step < 0:
                    del self._slot_of[held]
            while frame_idx not in self._slot_of:
                reader = self._reader
                if reader is not None and reader.is_reading:
                    reader.is_cancelled |= frame_idx not in reader.frames
                    self._condition.wait()
                elif reader is not None and reader.error and frame_idx in reader.frames:
                    self._reader = None
                    raise reader.error
                else:
                    self._slot_of.clear()
                    self._start_reader(frame_idx)
            self._read_on(frame_idx)
            return self._slot_of[frame_idx]

    def _read_on(self, frame_idx: int) -> None:
        """Start decoding the next half chunk, if there is room for it and none is on its way."""
        if self._reader is not None and (self._reader.is_reading or self._reader.error):
            return
        while frame_idx in self._slot_of:
            frame_idx += self._step
        self._start_reader(frame_idx)

    def _start_reader(self, frame_idx: int) -> None:
        """Start decoding half a chunk from a frame on, in the direction of the pass."""
        if self._step > 0:
            frames = range(frame_idx, min(frame_idx + self._num_per_read, len(self)))
        else:
            frames = range(max(frame_idx - self._num_per_read + 1, 0), frame_idx + 1)
        used = set(self._slot_of.values())
        free = [slot for slot in range(len(self._slots)) if slot not in used]
        if 0 < len(frames) <= len(free):
            if self._reader is not None:
                self._reader.join()  # it has read all and needs no lock to end: two never overlap
            self._reader = _ReadAhead(self, frames, free[: len(frames)])
            self._reader.start()

    def _stop_reader(self) -> None:
        """End the reading thread, if one runs; what it has decoded stays."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.is_cancelled = True
            reader.join()


class _ReadAhead(threading.Thread):
    """Decodes one range of frames into free slots of the buffer, and ends."""

    def __init__(self, buffer: FrameBuffer, frames: range, slots: list[int]):
        super().__init__(name="longsam-read-ahead")
        self.frames = frames
        self.is_reading = True
        self.is_cancelled = False
        self.error: Exception | None = None
        self._buffer = buffer
        self._slots = slots

    def run(self) -> None:
        buffer = self._buffer
        try:
            arrays = buffer.source.read(self.frames.start, self.frames.stop)
            for frame_idx, slot, array in zip(self.frames, self._slots, arrays, strict=True):
                buffer._slots[slot] = array
                with buffer._condition:
                    buffer._slot_of[frame_idx] = slot
                    buffer._condition.notify()
                if self.is_cancelled:
                    return
        except Exception as error:  # whatever it is, the pass raises it when it gets there
            self.error = error
        finally:
            with buffer._condition:
                self.is_reading = False
                buffer._condition.notify()
