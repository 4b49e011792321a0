"""Network streams, which reconnect when they are lost."""

import errno
import re
import threading
import time
from collections.abc import Iterator

import av

from longsam.frames.base import Frame
from longsam.frames.ffmpeg import Scaler, displayed_size, open_container, open_url, reason
from longsam.frames.live_sources import RawFrame

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_REAL_TIME_URL = re.compile(r"(rtsps?|rtmps?|rtp|srt|udp)://", re.IGNORECASE)
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.25, 8.0  # between attempts to connect


def is_url(text: str) -> bool:
    """Whether it is the URL of a stream, not the path of a file."""
    return _URL.match(text) is not None and not text.lower().startswith("file://")


def is_real_time(url: str) -> bool:
    """Whether the sender does not wait for a slow reader."""
    return _REAL_TIME_URL.match(url) is not None


class _DecodedFrame:
    """A frame of a stream, with the scalers that all its frames share."""

    def __init__(self, frame: av.VideoFrame, scalers: dict[int | None, Scaler]):
        self._frame = frame
        self._scalers = scalers
        self.size = displayed_size(frame)

    def rgb(self) -> Frame:
        return self._run(None)

    def scaled(self, image_size: int) -> Frame:
        return self._run(image_size)

    def _run(self, image_size: int | None) -> Frame:
        if image_size not in self._scalers:
            self._scalers[image_size] = Scaler(image_size)
        return self._scalers[image_size].run(self._frame)


class NetworkStream:
    """Frames of a URL; reconnects with exponential backoff when it is lost.

    Args:
        url: The URL. A local path is opened as a file.
        reconnect_seconds: For how long to try to reconnect; 0 never tries.
        timeout_seconds: How long the stream may stay silent; 0 is no limit.
        options: FFmpeg's options.
        stop: An event, set from outside to end it.

    Attributes:
        num_reconnects: How often the stream was lost and came back.
    """

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

    def frames(self) -> Iterator[RawFrame]:
        """Frames as they arrive.

        Raises:
            RuntimeError: The stream cannot be opened, sends no video, or is lost for good.
        """
        num_frames, lost_at, attempts = 0, 0.0, 0
        while True:
            why, hint = "it ended", ""
            try:
                with self._open() as container:
                    scalers: dict[int | None, Scaler] = {}
                    for frame in self._decoded(container):
                        if attempts:
                            self.num_reconnects += 1
                        num_frames, attempts = num_frames + 1, 0
                        yield _DecodedFrame(frame, scalers)
                        if self._stop.is_set():
                            return
                    if container.duration:
                        return  # a file on a server, read to its end
            except (av.FFmpegError, OSError) as error:
                why, hint = reason(error), self._hint(error)
            if num_frames == 0:
                raise RuntimeError(
                    f"{self._url} cannot be opened, or sends no video ({why}). Check the address, "
                    f"the password and that it plays elsewhere: `ffplay URL`.{hint}"
                )
            if self._reconnect_seconds == 0:
                return
            if attempts == 0:
                lost_at = time.monotonic()
            attempts += 1
            self._wait(attempts, lost_at, num_frames, why)
            if self._stop.is_set():
                return

    def _hint(self, error: Exception) -> str:
        """What may hinder a file on a web server."""
        is_on_web = self._url.lower().startswith(("http://", "https://"))
        if not is_on_web or getattr(error, "errno", None) != errno.EIO:
            return ""
        return (
            " An MP4 or MOV file with its index at the end can be read only from a server that "
            "answers range requests: download it, or rewrite it with `ffmpeg -i IN.mp4 -c copy "
            "-movflags +faststart OUT.mp4`."
        )

    def _open(self) -> av.container.InputContainer:
        if is_url(self._url):
            return open_url(self._url, self._options, self._timeout)
        return open_container(self._url)

    def _decoded(self, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise RuntimeError(f"{self._url} has no video stream.")
        stream.thread_type = "SLICE"  # frame threading would delay frames
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                continue  # joined between two keyframes, or damaged in transit

    def _wait(self, attempts: int, lost_at: float, num_frames: int, why: str) -> None:
        """Pause before the next attempt, or give up."""
        delay = min(_FIRST_DELAY_SECONDS * 2 ** (attempts - 1), _LONGEST_DELAY_SECONDS)
        left = self._reconnect_seconds - (time.monotonic() - lost_at)
        if left <= 0:
            raise RuntimeError(
                f"{self._url} was lost after {num_frames} frames ({why}) and did not come back "
                f"within {self._reconnect_seconds:g} s ({attempts - 1} attempts). What was tracked "
                "is good. To wait longer, set LiveVideo(reconnect_seconds=...)."
            )
        self._stop.wait(min(delay, left))
