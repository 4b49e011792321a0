"""Sources of unknown length: generators, cameras, network streams."""

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from longsam._warn import warn
from longsam.frames import live_sources, network
from longsam.frames.base import EndOfVideoError, Frame, FrameSource
from longsam.frames.live_sources import RawFrame
from longsam.frames.newest import NewestFrame

Mode = Literal["every", "newest"]

UNKNOWN_NUM_FRAMES = 2**31 - 1
"""The length that upstream is given. It must stay the same while tracking; any from 16 on will
do."""

LONGEST_WAIT_SECONDS = 5.0
"""How long `close` waits for a source that is itself waiting for a frame."""


class EndOfStreamError(EndOfVideoError):
    """A live source has ended normally."""


class LiveVideo(FrameSource):
    """A video that arrives while it is tracked: give it to `init_state`.

    `init_state` wraps a plain source in one; make it yourself to set options or to watch what
    arrives. Frame indices count the frames passed to the model; dropped frames have no index.

    Args:
        source: An iterator or generator of frames (uint8 RGB, height x width x 3), an opened
            `cv2.VideoCapture`, the index of a camera, or a URL that FFmpeg reads (rtsp://, http://,
            udp://, tcp://, ...). A stream cannot make FFmpeg read files of this machine.
        mode: "every" delivers every frame: the source waits while the model works. "newest" keeps
            reading and delivers the newest frame, so that masks are never late; the others are
            dropped and counted. None is "newest" for cameras and for rtsp, rtmp, rtp, srt and udp,
            else "every".
        reconnect_seconds: For how long to try to reconnect to a lost network stream, with
            exponential backoff. With 0 a stream that breaks off has ended: many cameras end in no
            other way.
        timeout_seconds: How long a network stream may stay silent before it counts as lost.
        options: FFmpeg's options for a URL. For rtsp the default is {"rtsp_transport": "tcp"}.

    Attributes:
        frame_size: (height, width) in pixels, as displayed.
        num_arrived: How many frames were passed to the model.
        num_dropped: How many were not, because newer ones had arrived.
        num_reconnects: How often a network stream was lost and came back.
        has_ended: Whether the source has ended.

    Raises:
        ValueError: The source is none of these, or an option has a wrong value.
        RuntimeError: The camera or stream cannot be opened, or gives no frame.
        ImportError: A camera index without opencv-python.
    """

    def __init__(
        self,
        source: Any,
        *,
        mode: Mode | None = None,
        reconnect_seconds: float = 30.0,
        timeout_seconds: float = 10.0,
        options: dict[str, str] | None = None,
    ):
        if mode is not None and mode not in get_args(Mode):
            raise ValueError(f'mode is {mode!r}; it must be "every", "newest" or None.')
        for name, seconds in (("reconnect", reconnect_seconds), ("timeout", timeout_seconds)):
            if not seconds >= 0:
                raise ValueError(f"{name}_seconds is {seconds!r}; it must be 0 or more.")
        self.num_frames = UNKNOWN_NUM_FRAMES
        self.num_arrived = 0
        self.has_ended = False
        self._image_size: int | None = None
        self._last: RawFrame | None = None
        self._stop = threading.Event()
        self._network: network.NetworkStream | None = None
        self._reading = threading.RLock()  # held while the source is asked for a frame
        self._frames: Iterator[RawFrame]
        self.name, self._frames, default_mode = self._open(
            source, reconnect_seconds, timeout_seconds, options
        )
        if (mode or default_mode) == "newest":
            self._frames = NewestFrame(self._frames, self._stop)
        weakref.finalize(self, self._stop.set)
        try:
            self._first: RawFrame | None = next(self._frames)
        except StopIteration:
            raise RuntimeError(f"{self.name} gives no frame.") from None
        self.frame_size = self._first.size

    @property
    def num_dropped(self) -> int:
        return self._frames.num_dropped if isinstance(self._frames, NewestFrame) else 0

    @property
    def num_reconnects(self) -> int:
        return self._network.num_reconnects if self._network else 0

    @property
    def frame(self) -> Frame:
        """The latest frame, in its own size: uint8 RGB, height x width x 3."""
        last = self._last or self._first
        assert last is not None
        return last.rgb()

    def attach(self, image_size: int) -> None:
        """Set the side of the model's input; called by `init_state`."""
        if self._image_size is not None:
            raise ValueError(f"{self.name} is tracked by another state; a source serves one only.")
        self._image_size = image_size

    def release(self) -> None:
        """Let another state track it, if no frame has been delivered yet."""
        if self.num_arrived == 0:
            self._image_size = None

    def next_frame(self) -> Frame:
        """Wait for the next frame: uint8 RGB, image_size x image_size x 3.

        Raises:
            EndOfStreamError: The source has ended, or was closed.
            RuntimeError: The stream was lost, or the frame has another size than the first.
        """
        assert self._image_size is not None
        raw = self._first or self._wait_for_next()
        if self._stop.is_set():
            self._close_frames()
            raise EndOfStreamError(f"{self.name} is closed.")
        if raw.size != self.frame_size:
            raise RuntimeError(
                f"Frame {self.num_arrived} of {self.name} is {raw.size[1]}x{raw.size[0]} pixels, "
                f"but frame 0 is {self.frame_size[1]}x{self.frame_size[0]}. All frames of a video "
                "must have one size; start a new state for the new size."
            )
        self._first, self._last = None, raw
        self.num_arrived += 1
        return raw.scaled(self._image_size)

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        for frame_idx in range(start, stop):
            if frame_idx != self.num_arrived:
                raise RuntimeError(f"{self.name} gives frame {self.num_arrived} next.")
            yield self.next_frame()

    def fingerprint(self) -> str:
        raise ValueError(f"{self.name} is live: its frames are not known yet.")

    def close(self) -> None:
        """Stop reading; asking for a frame later raises EndOfStreamError.

        A camera that was opened by its index is released. If the source is waiting for a frame in
        another thread, this waits for up to 5 s. After that it warns that the source ends only with
        the next frame, and returns.
        """
        self._stop.set()
        self.has_ended = True
        if isinstance(self._frames, NewestFrame):
            self._frames.end()
            self._frames.join(LONGEST_WAIT_SECONDS)
            is_closed = not self._frames.is_alive()
        else:
            is_closed = self._close_frames()
        if not is_closed:
            warn(
                f"{self.name} still waits for a frame after {LONGEST_WAIT_SECONDS:g} s and cannot "
                "be stopped. It ends with the next frame, its time-out, or the process; a camera "
                "stays in use until then."
            )

    def _wait_for_next(self) -> RawFrame:
        with self._reading:
            try:
                return next(self._frames)
            except StopIteration:
                self.has_ended = True
                raise EndOfStreamError(f"{self.name} has ended.") from None

    def _close_frames(self) -> bool:
        """Close the iterator of frames; False if another thread is still in it."""
        if isinstance(self._frames, NewestFrame) or not hasattr(self._frames, "close"):
            return True
        if not self._reading.acquire(timeout=LONGEST_WAIT_SECONDS):
            return False
        try:
            self._frames.close()
        except ValueError:  # called from inside the source, which is running
            return False
        finally:
            self._reading.release()
        return True

    def __enter__(self) -> "LiveVideo":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(
        self,
        source: Any,
        reconnect_seconds: float,
        timeout_seconds: float,
        options: dict[str, str] | None,
    ) -> tuple[str, Iterator[RawFrame], Mode]:
        """The name, the frames and the default mode of a source."""
        if isinstance(source, (str, os.PathLike)):
            url = os.fspath(source)
            self._network = network.NetworkStream(
                url, reconnect_seconds, timeout_seconds, options, self._stop
            )
            return url, self._network.frames(), "newest" if network.is_real_time(url) else "every"
        if isinstance(source, int):
            return f"camera {source}", live_sources.camera(source), "newest"
        if live_sources.is_capture(source):
            name = "the cv2.VideoCapture"
            mode: Mode = "every" if live_sources.has_length(source) else "newest"
            return name, live_sources.captured(source, name), mode
        if isinstance(source, Iterable):
            name = f"the {type(source).__name__} of frames"
            return name, live_sources.arrays(source, name), "every"
        raise ValueError(
            f"A live source of type {type(source).__name__} cannot be read. Give an iterator of "
            "frames, an opened cv2.VideoCapture, the index of a camera, or a URL."
        )


def is_live(video: Any) -> bool:
    """Whether `init_state` wraps it in a `LiveVideo`, as it has no length."""
    if isinstance(video, str):
        return network.is_url(video)
    if isinstance(video, int):
        return not isinstance(video, bool)
    if isinstance(video, LiveVideo) or live_sources.is_capture(video):
        return True
    return isinstance(video, Iterable) and not hasattr(video, "__getitem__")
