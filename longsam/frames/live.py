"""Sources whose length nobody knows: generators, cameras, network streams."""

import os
import re
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol, get_args

import av
import numpy as np
from PIL import Image

from longsam.frames.base import EndOfVideoError, Frame, FrameSource
from longsam.frames.images import resize
from longsam.frames.sequence import as_frame
from longsam.frames.video_file import Scaler, open_container, reason

Mode = Literal["every", "newest"]

UNKNOWN_NUM_FRAMES = 2**31 - 1
"""What upstream is told. It must not change while tracking; from 16 on all are the same to it."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_REAL_TIME_URL = re.compile(r"(rtsps?|rtmps?|rtp|srt|udp)://", re.IGNORECASE)
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.25, 8.0  # between attempts to connect
_LONGEST_WAIT_SECONDS = 10.0  # for a source that is closed while it waits for a frame


class EndOfStreamError(EndOfVideoError):
    """A live source has ended, which is how it should end."""


class LiveVideo(FrameSource):
    """A video that arrives while it is tracked: hand it to `init_state`.

    `init_state` makes one itself of a plain source; make it yourself to give options, or to look at
    what arrives. Frame indices count the frames handed to the model; frames that were dropped have
    no index.

    Args:
        source: An iterator or generator of frames (uint8 RGB, height x width x 3), an opened
            `cv2.VideoCapture`, the index of a camera, or a URL that FFmpeg reads (rtsp://, http://,
            udp://, tcp://, ...).
        mode: "every" hands over every frame: the source waits while the model works. "newest" reads
            on meanwhile and hands over the newest frame, so that masks are never late; the others
            are dropped and counted. None is "newest" for cameras and for rtsp, rtmp, rtp, srt and
            udp, else "every".
        reconnect_seconds: For how long a lost network stream is sought again, with growing pauses.
            With 0 a stream that breaks off is over: many cameras end in no other way.
        timeout_seconds: How long a network stream may stay silent before it counts as lost.
        options: FFmpeg's options for a URL. For rtsp the default is {"rtsp_transport": "tcp"}.

    Attributes:
        frame_size: (height, width) in pixels.
        num_arrived: How many frames were handed to the model.
        num_dropped: How many were not, because newer ones had arrived.
        num_reconnects: How often a network stream was lost and found again.
        has_ended: Whether the source is over.

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
        self._last: _RawFrame | None = None
        self._stop = threading.Event()
        self._network: _NetworkStream | None = None
        self._frames: Iterator[_RawFrame]
        self.name, self._frames, default_mode = self._open(
            source, reconnect_seconds, timeout_seconds, options
        )
        if (mode or default_mode) == "newest":
            self._frames = _Newest(self._frames, self._stop)
        weakref.finalize(self, self._stop.set)
        try:
            self._first: _RawFrame | None = next(self._frames)
        except StopIteration:
            raise RuntimeError(f"{self.name} gives no frame.") from None
        self.frame_size = self._first.size

    @property
    def num_dropped(self) -> int:
        return self._frames.num_dropped if isinstance(self._frames, _Newest) else 0

    @property
    def num_reconnects(self) -> int:
        return self._network.num_reconnects if self._network else 0

    @property
    def frame(self) -> Frame:
        """The frame that arrived last, in its own size: uint8 RGB, height x width x 3."""
        last = self._last or self._first
        assert last is not None
        return last.rgb()

    def attach(self, image_size: int) -> None:
        """Set the side of the model's input; called by `init_state`."""
        if self._image_size is not None:
            raise ValueError(f"{self.name} is tracked by another state; a source serves one only.")
        self._image_size = image_size

    def next_frame(self) -> Frame:
        """Wait for the next frame: uint8 RGB, image_size x image_size x 3.

        Raises:
            EndOfStreamError: The source has ended.
            RuntimeError: The stream was lost, or the frame has another size than the first.
        """
        assert self._image_size is not None
        raw = self._first
        if raw is None:
            try:
                raw = next(self._frames)
            except StopIteration:
                self.has_ended = True
                raise EndOfStreamError(f"{self.name} has ended.") from None
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

    def close(self) -> None:
        """Stop reading. A camera that was opened by its index is free again."""
        self._stop.set()
        if isinstance(self._frames, _Newest):
            self._frames.join(_LONGEST_WAIT_SECONDS)
        elif hasattr(self._frames, "close"):
            self._frames.close()
        self.has_ended = True

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
    ) -> tuple[str, Iterator["_RawFrame"], Mode]:
        """The name, the frames and the default mode of a source."""
        if isinstance(source, (str, os.PathLike)):
            url = os.fspath(source)
            is_real_time = _REAL_TIME_URL.match(url) is not None
            self._network = _NetworkStream(
                url, reconnect_seconds, timeout_seconds, options, self._stop
            )
            return url, self._network.frames(), "newest" if is_real_time else "every"
        if isinstance(source, int):
            return f"camera {source}", _camera(source), "newest"
        if is_capture(source):
            name = "the cv2.VideoCapture"
            has_length = source.get(_CAP_PROP_FRAME_COUNT) > 0  # a file, not a camera
            return name, _capture(source, name), "every" if has_length else "newest"
        if isinstance(source, Iterable):
            name = f"the {type(source).__name__} of frames"
            return name, _arrays(source, name), "every"
        raise ValueError(
            f"A live source of type {type(source).__name__} cannot be read. Give an iterator of "
            "frames, an opened cv2.VideoCapture, the index of a camera, or a URL."
        )


def is_live(video: Any) -> bool:
    """Whether `init_state` makes a `LiveVideo` of it: it has no length."""
    if isinstance(video, str):
        return _URL.match(video) is not None and not video.lower().startswith("file://")
    if isinstance(video, int):
        return not isinstance(video, bool)
    if isinstance(video, LiveVideo) or is_capture(video):
        return True
    return isinstance(video, Iterable) and not hasattr(video, "__getitem__")


def is_capture(source: Any) -> bool:
    """Whether it is a `cv2.VideoCapture`, told without importing cv2."""
    return all(hasattr(source, name) for name in ("isOpened", "read", "grab", "retrieve"))


class _RawFrame(Protocol):
    """A frame as it arrives, converted when somebody asks."""

    @property
    def size(self) -> tuple[int, int]: ...

    def rgb(self) -> Frame: ...

    def scaled(self, image_size: int) -> Frame: ...


class _ArrayFrame:
    def __init__(self, array: Frame):
        self._array = array
        self.size: tuple[int, int] = (array.shape[0], array.shape[1])

    def rgb(self) -> Frame:
        return self._array

    def scaled(self, image_size: int) -> Frame:
        return resize(Image.fromarray(self._array), image_size)


class _DecodedFrame:
    def __init__(self, frame: av.VideoFrame, scalers: dict[int, Scaler]):
        self._frame = frame
        self._scalers = scalers  # made once for all frames of a stream
        self.size = (frame.height, frame.width)

    def rgb(self) -> Frame:
        return self._frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    def scaled(self, image_size: int) -> Frame:
        if image_size not in self._scalers:
            self._scalers[image_size] = Scaler(self._frame, image_size)
        return self._scalers[image_size].run(self._frame)


def _arrays(frames: Iterable[Any], name: str) -> Iterator[_RawFrame]:
    for frame_idx, frame in enumerate(frames):
        # Copied: a generator may fill the same array again while the frame is still in use.
        yield _ArrayFrame(as_frame(frame, frame_idx, name).copy())


_CAP_PROP_FRAME_COUNT = 7  # of OpenCV


def _capture(capture: Any, name: str) -> Iterator[_RawFrame]:
    if not capture.isOpened():
        raise RuntimeError(f"{name} is not open; check its camera, file or URL.")
    while True:
        is_read, image = capture.read()
        if not is_read:
            return
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        yield _ArrayFrame(np.ascontiguousarray(image[..., 2::-1]))  # from BGR


def _camera(index: int) -> Iterator[_RawFrame]:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Cameras are read through OpenCV: `pip install opencv-python`."
        ) from error
    capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise RuntimeError(
                f"Camera {index} cannot be opened. Check that it is connected, that no other "
                "program uses it, and try index 0, 1, ..."
            )
        yield from _capture(capture, f"camera {index}")
    finally:
        capture.release()


class _NetworkStream:
    """Frames of a URL, connected again when it is lost."""

    def __init__(
        self,
        url: str,
        reconnect_seconds: float,
        timeout_seconds: float,
        options: dict[str, str] | None,
        stop: threading.Event,
    ):
        self.num_reconnects = 0
        self._url = url
        self._reconnect_seconds = reconnect_seconds
        self._timeout = timeout_seconds or None
        is_rtsp = url.lower().startswith("rtsp")
        self._options = options or ({"rtsp_transport": "tcp"} if is_rtsp else {})
        self._stop = stop

    def frames(self) -> Iterator[_RawFrame]:
        num_frames, lost_at, attempts = 0, 0.0, 0
        while True:
            why = "it ended"
            try:
                with open_container(
                    self._url, options=self._options, timeout=self._timeout
                ) as container:
                    scalers: dict[int, Scaler] = {}
                    for frame in self._decoded(container):
                        if attempts:
                            self.num_reconnects += 1
                        num_frames, attempts = num_frames + 1, 0
                        yield _DecodedFrame(frame, scalers)
                        if self._stop.is_set():
                            return
                    if container.duration:
                        return  # a file on a server, and read to its end
            except (av.FFmpegError, OSError) as error:
                why = reason(error)
            if num_frames == 0:
                raise RuntimeError(
                    f"{self._url} cannot be opened, or sends no video ({why}). Check the address, "
                    "the password and that it plays elsewhere: `ffplay URL`."
                )
            if self._reconnect_seconds == 0:
                return
            if attempts == 0:
                lost_at = time.monotonic()
            attempts += 1
            self._wait(attempts, lost_at, num_frames, why)
            if self._stop.is_set():
                return

    def _decoded(self, container: Any) -> Iterator[av.VideoFrame]:
        stream = container.streams.best("video")
        if stream is None:
            raise RuntimeError(f"{self._url} has no video stream.")
        stream.thread_type = "SLICE"  # several frames at once would hold frames back
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                continue  # joined between two keyframes, or damaged on the way

    def _wait(self, attempts: int, lost_at: float, num_frames: int, why: str) -> None:
        """Pause before the next attempt, or give up."""
        delay = min(_FIRST_DELAY_SECONDS * 2 ** (attempts - 1), _LONGEST_DELAY_SECONDS)
        left = self._reconnect_seconds - (time.monotonic() - lost_at)
        if left <= 0:
            raise RuntimeError(
                f"{self._url} was lost after {num_frames} frames ({why}) and did not come back "
                f"within {self._reconnect_seconds:g} s ({attempts - 1} attempts). What was tracked "
                "is good. LiveVideo(reconnect_seconds=...) waits longer."
            )
        self._stop.wait(min(delay, left))


class _Newest(threading.Thread):
    """Reads a source without pause and gives out the newest frame only."""

    def __init__(self, frames: Iterator[_RawFrame], stop: threading.Event):
        super().__init__(name="longsam-newest-frame", daemon=True)  # a camera may block for ever
        self._frames = frames
        self._stop_reading = stop
        self.num_dropped = 0
        self._condition = threading.Condition()
        self._newest: _RawFrame | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self.start()

    def __iter__(self) -> Iterator[_RawFrame]:
        return self

    def __next__(self) -> _RawFrame:
        with self._condition:
            while self._newest is None and not self._is_over:
                self._condition.wait()
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            error, self._error = self._error, None
        raise error or StopIteration

    def run(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._frames:
                with self._condition:
                    self.num_dropped += self._newest is not None
                    self._newest = frame
                    self._condition.notify()
                if self._stop_reading.is_set():
                    break
            if hasattr(self._frames, "close"):
                self._frames.close()
        except BaseException as raised:  # whatever it is, the caller gets it
            error = raised
        finally:
            with self._condition:
                self._error, self._is_over = error, True
                self._condition.notify()
