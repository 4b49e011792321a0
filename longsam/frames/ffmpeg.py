"""Shared by all FFmpeg readers: opening without following playlists, and decord's scaling."""

import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from longsam.frames.base import Frame

MAX_DECODER_THREADS = 4
"""Each decoder thread holds a decoded frame (12 MB at 4K); four outrun every SAM 2 model."""

MAX_UNDECODABLE_PACKETS = 1000
"""A recording cut at any place may start with up to this many packets before a keyframe."""

FORMATS_OF_OTHER_FILES = frozenset(
    (
        *("concat", "dash", "hls", "image2", "imf", "mlv", "vobsub", "webm_dash_manifest"),
        *("rtp", "rtsp", "sap", "sdp"),
        *("avisynth", "lavfi", "svg_pipe", "vapoursynth"),
    )
)
"""FFmpeg's demuxers that open other files, addresses or scripts than the file they are given.
Device demuxers are not listed: FFmpeg never picks them by a file's content."""

NETWORK_PROTOCOLS = (
    "crypto,data,ftp,gopher,gophers,http,httpproxy,https,mmsh,mmst,rist,rtmp,rtmpe,rtmps,rtmpt,"
    "rtmpte,rtmpts,rtp,sctp,srt,srtp,tcp,tls,udp,udplite"
)
"""Protocols a URL may use. So a playlist at a URL cannot name a file of this machine."""

_STARTS_OF_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD")


ANY_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""For `av.open`: titles may be in any encoding. PyAV does this by default from version 19 on."""


@cache
def formats_of_one_file() -> str:
    """FFmpeg's formats that contain their video themselves, as a whitelist for FFmpeg: a,b,c."""
    names = (name for name in av.formats_available)
    return ",".join(
        sorted(name for name in names if FORMATS_OF_OTHER_FILES.isdisjoint(name.split(",")))
    )


def open_container(path: str | os.PathLike[str]) -> av.container.InputContainer:
    """Open a local file for reading, if its format contains the video itself.

    Raises:
        FFmpegError: It cannot be opened, or is a playlist.
    """
    # With the protocol: FFmpeg would take the "12" of a file "12:30.mp4" for one.
    return _open(
        f"file:{os.fspath(path)}",
        {"format_whitelist": formats_of_one_file(), "protocol_whitelist": "file"},
        None,
    )


def open_url(
    url: str, options: dict[str, str], timeout: float | None
) -> av.container.InputContainer:
    """Open a URL for reading; its content cannot make FFmpeg read files of this machine.

    Args:
        url: The URL.
        options: FFmpeg's options.
        timeout: How many seconds it may stay silent; None is no limit.

    Raises:
        FFmpegError: It cannot be opened.
    """
    return _open(url, {"protocol_whitelist": NETWORK_PROTOCOLS, **options}, timeout)


def _open(url: str, options: dict[str, str], timeout: float | None) -> av.container.InputContainer:
    container: av.container.InputContainer = av.open(
        url, "r", options=options, timeout=timeout, **ANY_TITLES
    )
    return container


def open_video(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a local file and its video stream.

    Raises:
        ValueError: It is not video, is a playlist, or has no video stream that can be decoded.
    """
    try:
        container = open_container(path)
    except (av.FFmpegError, OSError) as error:
        if is_playlist(path, error):
            raise ValueError(
                f"{path} cannot be opened as a video: it seems to be a playlist (HLS, DASH, "
                "ffconcat, SDP) or another list of files, and those are not followed. Give the "
                "path of the video itself."
            ) from error
        raise ValueError(
            f"{path} cannot be opened as a video ({reason(error)}). Check that it "
            "plays; a recording that was cut off may need its index repaired, and "
            "`ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4` converts what FFmpeg can read."
        ) from error
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or (
        stream.disposition & av.stream.Disposition.attached_pic
    ):
        container.close()
        raise ValueError(f"{path} has no video stream (only sound or cover art?).")
    if stream.codec_context is None:  # PyAV's stubs do not say that it may be None
        container.close()
        raise ValueError(f"{path} has video of a codec that FFmpeg cannot decode; is it damaged?")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_DECODER_THREADS, os.cpu_count() or 1)
    return container, stream


def is_playlist(path: Path, error: Exception | None = None) -> bool:
    """Whether a file looks like a list of other files, or FFmpeg refused it as one.

    Args:
        path: The file.
        error: What FFmpeg raised; EINVAL means that the format is not on the whitelist.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    return getattr(error, "errno", None) == errno.EINVAL or any(
        mark in start for mark in _STARTS_OF_PLAYLISTS
    )


def reason(error: Exception) -> str:
    """FFmpeg's or the system's text for an error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def decoded_from_the_first(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """All frames. A recording cut at any place starts with packets that cannot be decoded."""
    for _ in range(MAX_UNDECODABLE_PACKETS):
        frames = container.decode(stream)
        try:
            first = next(frames)
        except av.error.InvalidDataError:
            continue  # decode() resumes with the next packet
        except StopIteration:
            return
        yield first
        yield from frames
        return


def rotation_of(frame: av.VideoFrame) -> int:
    """By how much a frame is rotated for display, in degrees counterclockwise: 0 to 359."""
    return frame.rotation % 360


def displayed_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) of a frame in pixels, rotated as displayed."""
    if rotation_of(frame) in {90, 270}:
        return frame.width, frame.height
    return frame.height, frame.width


class Scaler:
    """FFmpeg filters that turn a decoded frame into the model's input, as decord does.

    decord 0.6.0 builds "transpose (for rotation), scale with SWS_BILINEAR, format rgb24" on FFmpeg
    4.1. The same filters of a newer FFmpeg give the same pixels, except where a 4:2:0 frame is
    scaled in width only (1280x1024 at 1024): there FFmpeg up to 5 takes the mean of two rows of
    chroma where the right weights are 1:3, and a single row where they are 3:1; in the last line
    both rows are one too high. That is how the model has always seen such video, so it is
    reproduced here by moving the chroma down by half a row, and by a whole row for the last line.

    Args:
        image_size: Side of the model's square input, in pixels; None keeps the frames' size.
    """

    def __init__(self, image_size: int | None):
        self._image_size = image_size
        self._kind: tuple[str, int, int, int] | None = None
        self._whole: _FilterGraph | None = None
        self._last_line: _FilterGraph | None = None

    def run(self, frame: av.VideoFrame) -> Frame:
        """A frame as the model sees it: uint8 RGB, rotated and scaled."""
        kind = (frame.format.name, rotation_of(frame), frame.height, frame.width)
        if kind != self._kind:
            self._build(frame)
            self._kind = kind
        assert self._whole is not None
        scaled = self._whole.run(frame)
        if self._last_line is not None:
            scaled[-1] = self._last_line.run(frame)[-1]
        return scaled

    def _build(self, frame: av.VideoFrame) -> None:
        image_size = self._image_size
        turns: list[tuple[str, str]] = {
            90: [("transpose", "2")],
            180: [("transpose", "1"), ("transpose", "1")],
            270: [("transpose", "1")],
        }.get(rotation_of(frame), [])
        height, width = displayed_size(frame)
        chroma = frame.format.components[1:2]
        is_420 = bool(chroma) and chroma[0].height < frame.height
        self._last_line = None
        if image_size is None:
            self._whole = _FilterGraph(frame, *turns, ("format", "rgb24"))
            return
        scale = f"{image_size}:{image_size}:flags=bilinear"
        if is_420 and height == image_size != width:
            self._last_line = _FilterGraph(
                frame,
                *turns,
                ("crop", f"iw:16:0:{height - 16}"),
                ("scale", f"{image_size}:16:flags=bilinear:in_v_chr_pos=512"),
                ("format", "rgb24"),
            )
            scale += ":in_v_chr_pos=256"
        self._whole = _FilterGraph(frame, *turns, ("scale", scale), ("format", "rgb24"))


class _FilterGraph:
    """A chain of FFmpeg's filters, each (name, arguments), from decoded frames to RGB arrays."""

    def __init__(self, frame: av.VideoFrame, *filters: tuple[str, str]):
        self._graph = av.filter.Graph()
        self._source = last = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1, 1000),  # scaling does not depend on the time
        )
        for name, arguments in filters:
            node = self._graph.add(name, arguments)
            last.link_to(node)
            last = node
        self._sink = self._graph.add("buffersink")
        last.link_to(self._sink)
        self._graph.configure()

    def run(self, frame: av.VideoFrame) -> Frame:
        self._source.push(frame)
        scaled = self._sink.pull()
        assert isinstance(scaled, av.VideoFrame)
        array = scaled.to_ndarray()
        assert array.dtype == np.uint8
        return array.astype(np.uint8, copy=False)
