"""Stands in for upstream's tensor of all frames: a few frames, decoded ahead."""

import hashlib
import operator
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from longsam.frames.base import Frame, FrameSource

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Upstream's defaults in `load_video_frames` (ImageNet, RGB)."""

MAX_DIGESTS = 32
"""At most this many frames have a digest, besides frame 0."""


class FrameBuffer:
    """Serves upstream as `inference_state["images"]` at constant memory.

    Upstream reads one frame at a time, `images[frame_idx]`, and expects float32, 3 x S x S,
    normalized. The buffer holds the frame in use and up to `frames_per_chunk` frames after it (or
    before it, in reverse) as uint8, and normalizes a frame when it is read.

    Inside `reading_ahead`, frames are read ahead: a thread decodes the next chunk and ends. A chunk
    is half of `frames_per_chunk`, and chunk k is frames k*n .. k*n + n-1. A frame read outside of
    it is decoded on the spot, and what was read ahead stays. No thread runs after `pause` or
    `close`. Several passes or threads may read one buffer: frames are right, only slower.

    Attributes:
        source: Where frames come from.
        digests: Frame index to the first 16 hex digits of the SHA-256 of the uint8 frame: for frame
            0 and at most 32 others, spread over those that were read.

    Args:
        source: Where frames come from. The buffer owns it.
        image_size: Side S of the model's square input, in pixels.
        frames_per_chunk: At most this many frames are decoded ahead.
        device: Where frames are normalized and returned.
        dtype: The dtype that frames are normalized and returned in.
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
        self.digests: dict[int, str] = {}
        self._digest_every = 1
        self._num_ahead = min(frames_per_chunk, source.num_frames)
        self._chunk_size = (self._num_ahead + 1) // 2
        shape = (self._num_ahead + 1, image_size, image_size, 3)
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Frames are copied while the model computes: from pinned memory, on a separate stream.
            self._slots = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        else:
            self._slots = np.empty(shape, dtype=np.uint8)
        self._frames: dict[int, Future[None]] = {}  # done when the frame is in its slot
        self._reader: ThreadPoolExecutor | None = None  # of one chunk
        self._lock = threading.RLock()  # one reader at a time; its thread needs no lock
        self._pass = threading.local()
        self._is_closed = False
        self._mean = torch.tensor(IMAGE_MEAN, dtype=torch.float32, device=device)[:, None, None]
        self._std = torch.tensor(IMAGE_STD, dtype=torch.float32, device=device)[:, None, None]
        # On a GPU, dividing by a Python number multiplies by its reciprocal, which rounds
        # differently from upstream's division on the CPU; dividing by a tensor divides.
        self._max_value = torch.tensor(255.0, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return self.source.num_frames

    @property
    def direction(self) -> int:
        """1 while a forward pass of this thread computes a frame, -1 in reverse, else 0."""
        direction: int = getattr(self._pass, "direction", 0)
        return direction

    @property
    def num_bytes(self) -> int:
        """Memory of the buffered frames in bytes; it stays constant."""
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
        """One frame, 3 x S x S, normalized, equal to upstream's.

        Raises:
            IndexError: There is no such frame.
            RuntimeError: The frame cannot be read, or the buffer is closed.
        """
        frame_idx = operator.index(frame_idx)  # of any type of whole number
        if not 0 <= frame_idx < len(self):
            raise IndexError(f"frame {frame_idx} is outside the {len(self)} frames of the video")
        with self._lock:
            self._check_is_open()
            if self.direction:
                frame = self._next_of_pass(frame_idx, self.direction)
            else:
                frame = self._on_the_spot(frame_idx)
            self._note_digest(frame_idx, frame)
            return self._normalize(frame)

    def digest(self, frame_idx: int) -> str:
        """The digest of one frame, which is read for it; compare with `digests`.

        Raises:
            RuntimeError: The frame cannot be read, or the buffer is closed.
        """
        with self._lock:
            self._check_is_open()
            return _digest(self._on_the_spot(frame_idx))

    @contextmanager
    def reading_ahead(self, direction: int) -> Iterator[None]:
        """Within this context, frames that this thread reads are read ahead.

        Enter it for each step of a pass, `with images.reading_ahead(1): step = next(steps)`, so
        that what the caller reads between two steps does not count. Call `pause` after the last
        step.

        Args:
            direction: 1 for a forward pass, -1 in reverse.
        """
        before, self._pass.direction = self.direction, direction
        try:
            yield
        finally:
            self._pass.direction = before

    def pause(self) -> None:
        """Stop reading ahead, and wait for the thread to end; decoded frames stay."""
        with self._lock:
            self._stop_reading()

    def close(self) -> None:
        """Stop reading and release the source; reading a frame later raises RuntimeError."""
        with self._lock:
            self._is_closed = True
            self._stop_reading()
            self.source.close()

    def _check_is_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(
                f"{self.source.name} is closed, so its frames cannot be read. Open it again with "
                "init_state."
            )

    # Reading --------------------------------------------------------------------------------

    def _on_the_spot(self, frame_idx: int) -> Frame:
        if not self._is_held(frame_idx):
            self._stop_reading()
        if self._is_held(frame_idx):  # the thread may have read it just before it ended
            return self._slot(frame_idx)
        (frame,) = self.source.read(frame_idx, frame_idx + 1)
        return frame

    def _next_of_pass(self, frame_idx: int, step: int) -> Frame:
        """A frame that a pass reads, once decoded; the frames after it are read ahead."""
        self._keep_only(frame_idx, step)
        if frame_idx not in self._frames:
            self._read_chunk(frame_idx, step)
        try:
            self._frames[frame_idx].result()
            frame = self._slot(frame_idx)
        except CancelledError:  # an earlier frame of its chunk could not be read
            del self._frames[frame_idx]
            self._stop_reading()
            (frame,) = self.source.read(frame_idx, frame_idx + 1)
            return frame
        except Exception:
            del self._frames[frame_idx]  # the next attempt reads it again
            raise
        self._read_ahead(frame_idx, step)
        return frame

    def _keep_only(self, frame_idx: int, step: int) -> None:
        """Free the slots of all frames except those ahead of a pass."""
        ahead = range(frame_idx, frame_idx + step * (self._num_ahead + 1), step)
        others = [held for held in self._frames if held not in ahead]
        if not all(self._frames[held].done() for held in others):
            self._stop_reading()
        for held in others:
            self._frames.pop(held, None)

    def _read_ahead(self, frame_idx: int, step: int) -> None:
        """Start reading the next chunk, if there is room and none is being read."""
        ahead = frame_idx + step
        while (future := self._frames.get(ahead)) is not None:
            if not future.done() or future.exception() is not None:
                return  # being read, or not readable: the pass reads it itself
            ahead += step
        chunk = self._rest_of_chunk(ahead, step)
        if chunk and max(abs(chunk[0] - frame_idx), abs(chunk[-1] - frame_idx)) <= self._num_ahead:
            self._read_chunk(ahead, step)

    def _rest_of_chunk(self, frame_idx: int, step: int) -> range:
        """A frame and the rest of its chunk in the pass's direction, up to a frame that is held."""
        start = frame_idx // self._chunk_size * self._chunk_size
        stop = min(start + self._chunk_size, len(self))
        if not start <= frame_idx < stop or frame_idx < 0:
            return range(0)
        last = frame_idx
        while start <= last + step < stop and last + step not in self._frames:
            last += step
        return range(min(frame_idx, last), max(frame_idx, last) + 1)

    def _read_chunk(self, frame_idx: int, step: int) -> None:
        """Start reading the rest of a frame's chunk, in a thread that ends with it."""
        self._stop_reading()
        frames = self._rest_of_chunk(frame_idx, step)
        arrays = zip(frames, self.source.read(frames.start, frames.stop), strict=False)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="longsam-read-ahead")
        for ahead in frames:
            self._frames[ahead] = self._reader.submit(self._fill_slot, ahead, arrays)
        self._reader.shutdown(wait=False)

    def _fill_slot(self, frame_idx: int, arrays: Iterator[tuple[int, Frame]]) -> None:
        read = next(arrays, None)
        if read is None:
            raise CancelledError  # an earlier frame failed, which ended the iterator
        assert read[0] == frame_idx
        self._slot(frame_idx)[:] = read[1]

    def _stop_reading(self) -> None:
        """End the thread, if one runs; the frames it decoded stay."""
        if self._reader is None:
            return
        # Last first: otherwise the thread could start one after a cancelled frame.
        for held, future in reversed(list(self._frames.items())):
            if future.cancel():
                del self._frames[held]
        self._reader.shutdown(wait=True)
        self._reader = None

    def _is_held(self, frame_idx: int) -> bool:
        future = self._frames.get(frame_idx)
        return future is not None and future.done() and future.exception() is None

    def _slot(self, frame_idx: int) -> Frame:
        """A frame's slot: a pass has no more frames ahead than there are slots, so none collide."""
        slot: Frame = self._slots[frame_idx % len(self._slots)]
        return slot

    # What becomes of a frame ----------------------------------------------------------------

    def _note_digest(self, frame_idx: int, frame: Frame) -> None:
        if frame_idx in self.digests or frame_idx % self._digest_every:
            return
        self.digests[frame_idx] = _digest(frame)
        while len(self.digests) - (0 in self.digests) > MAX_DIGESTS:
            self._digest_every *= 2
            self.digests = {i: d for i, d in self.digests.items() if i % self._digest_every == 0}

    def _normalize(self, frame: Frame) -> torch.Tensor:
        image = self._copied_to_device(frame).permute(2, 0, 1).contiguous()
        return image.to(self.dtype).div_(self._max_value).sub_(self._mean).div_(self._std)

    def _copied_to_device(self, frame: Frame) -> torch.Tensor:
        if self._copies is None:
            return torch.from_numpy(frame).to(self.device)
        with torch.cuda.stream(self._copies):
            image = torch.from_numpy(frame).to(self.device, non_blocking=True)
        image.record_stream(torch.cuda.current_stream(self.device))
        self._copies.synchronize()  # waits for this copy only: its slot may now be overwritten
        return image


def _digest(frame: Frame) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame).data.cast("B")).hexdigest()[:16]
