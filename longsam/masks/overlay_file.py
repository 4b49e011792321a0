"""H.264 that survives a kill: MPEG-TS while it is written, MP4 once it is complete.

MPEG-TS has no table of contents, so a file cut off anywhere plays up to there, and another encoder
may append to it. A second file holds its length after each frame.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from longsam.masks.files import AppendFile, open_regular
from longsam.masks.frame_times import TICKS, Ticks
from longsam.masks.record import ImageArray

STREAM = "overlay.ts"
ENDS = "overlay.ends"
"""Eight bytes per frame, little-endian: the length of the stream after it, in bytes."""

FINISHED = "overlay.mp4"
_PARTIAL = "overlay.partial"
KEYFRAME_EVERY = 60

_ANY_TITLES: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""As for videos. Importing it from longsam.frames would import torch, 2 s for a reader of masks."""


class OverlayFile:
    """A video that grows frame by frame; frame n is shown at n / rate seconds, or as `finish` says.

    Args:
        folder: Where it goes. While written it is `overlay.ts`; `finish` turns it into
            `overlay.mp4`.
        num_frames: How many frames of the file are kept.
        rate: Frames a second.

    Raises:
        RuntimeError: The file has fewer frames, or is damaged.
    """

    def __init__(self, folder: Path, num_frames: int, rate: Fraction):
        self._folder, self._rate = folder, rate
        self.num_frames = num_frames
        (folder / _PARTIAL).unlink(missing_ok=True)  # of a writer that was killed
        if num_frames and not (folder / STREAM).exists():
            self._restore(num_frames)
        ends = AppendFile(folder / ENDS, 8 * num_frames)
        try:
            self._sink = _Sink(folder / STREAM, _last_end(folder / ENDS, num_frames))
        except BaseException:
            ends.close()
            raise
        self._ends = ends
        (folder / FINISHED).unlink(missing_ok=True)  # from now on the stream counts
        self._output: Any = None
        self._stream: Any = None

    def append(self, image: ImageArray) -> None:
        """Add a frame; it is in the file once this returns.

        Args:
            image: uint8 RGB, height x width x 3, all of one size. H.264 needs even sides: an odd
                side loses its last pixel, or a side of one pixel is doubled.
        """
        image = np.pad(image, [(0, n == 1) for n in image.shape[:2]] + [(0, 0)], "edge")
        if self._output is None:
            self._open(image.shape[0] // 2 * 2, image.shape[1] // 2 * 2)
        cropped = np.ascontiguousarray(image[: self._stream.height, : self._stream.width])
        frame = av.VideoFrame.from_ndarray(cropped, format="rgb24")
        frame.pts, frame.time_base = self.num_frames, 1 / self._rate
        self._output.mux(self._stream.encode(frame))
        self._ends.write(self._sink.size.to_bytes(8, "little"))
        self.num_frames += 1

    def sync(self) -> None:
        self._sink.sync()
        self._ends.sync()

    def close(self) -> None:
        """Close the stream without finishing it."""
        self._sink.is_open = False  # what the muxer still writes is not a frame
        with suppress(av.FFmpegError):
            if self._output is not None:
                self._output.close()
        self._sink.close()
        self._ends.close()

    def finish(self, shown: Ticks | None = None) -> None:
        """Make an MP4 of it.

        Args:
            shown: When each frame is shown; None is at the rate.

        Raises:
            OSError: The disk is full, for instance; the stream is still whole.
        """
        self.close()
        stream = self._folder / STREAM
        if self.num_frames:
            target = self._folder / _PARTIAL
            copy_packets(stream, target, self._rate, 0, self.num_frames, shown=shown)
            os.replace(target, self._folder / FINISHED)
        stream.unlink()
        (self._folder / ENDS).unlink()

    def _open(self, height: int, width: int) -> None:
        options = {"flush_packets": "1", "mpegts_flags": "initial_discontinuity"}
        self._output = av.open(self._sink, "w", format="mpegts", container_options=options)
        # The encoder holds no frame back, so each is in the file once it is written.
        encoder = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "crf": "20",
            "g": str(KEYFRAME_EVERY),
        }
        self._stream = self._output.add_stream("libx264", rate=self._rate, options=encoder)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = 1 / self._rate

    def _restore(self, num_frames: int) -> None:
        """Make a stream of the finished video again."""
        finished = self._folder / FINISHED
        if not finished.exists():
            raise RuntimeError(
                f"{self._folder} holds no {STREAM} and no {FINISHED}, but {num_frames} frames of "
                "an overlay were written. Put it back, or write to another folder."
            )
        target = self._folder / _PARTIAL
        ends = AppendFile(self._folder / ENDS)
        try:
            copy_packets(finished, target, self._rate, 0, num_frames, ends)
            ends.sync()
        finally:
            ends.close()
        os.replace(target, self._folder / STREAM)


def num_frames(folder: Path) -> int:
    """How many frames of an overlay being written are complete."""
    ends = folder / ENDS
    return ends.stat().st_size // 8 if ends.exists() else 0


def copy_packets(
    source: Path,
    target: Path,
    rate: Fraction,
    start: int,
    stop: int,
    ends: Any = None,
    *,
    shown: Ticks | None = None,
) -> None:
    """Copy frames from a stream to an MP4, or back, without encoding them again.

    The source's own time stamps are not read: those of MPEG-TS start again after 26.5 hours.

    Args:
        source: A stream or an MP4 that longsam wrote.
        target: An MP4; a stream if `ends` are asked for.
        rate: Frames a second.
        start: The first frame; the copy begins with the last keyframe up to it.
        stop: The frame after the last.
        ends: A file for the target's length after each frame.
        shown: When each frame is shown; None is at the rate.

    Raises:
        RuntimeError: The source has fewer frames, or is damaged.
    """
    # One fragment per keyframe: a single table of all frames would grow in memory.
    movflags = "frag_keyframe+empty_moov+default_base_moof"
    kind, options = (
        ("mp4", {"movflags": movflags}) if ends is None else ("mpegts", {"flush_packets": "1"})
    )
    sink = _Sink(target, 0)
    try:
        with (
            _packets(source) as (template, packets),
            av.open(sink, "w", format=kind, container_options=options) as output,
        ):
            copy = output.add_stream_from_template(template)
            base = 1 / rate if shown is None else Fraction(1, TICKS)
            copy.time_base = base
            held: list[Any] = []
            number = num_copied = 0
            for packet in packets:
                if number >= stop:
                    break
                held = [packet] if packet.is_keyframe else [*held, packet]
                number += 1
                if number <= start:
                    continue
                for ready in held:
                    ready.stream, ready.time_base = copy, base
                    ready.pts = ready.dts = num_copied
                    ready.duration = 1
                    if shown is not None:
                        ready.pts = ready.dts = int(shown[num_copied])
                        ready.duration = _duration(shown, num_copied)
                    with _naming_invalid_data(source):
                        output.mux(ready)
                    num_copied += 1
                    if ends is not None:
                        ends.write(sink.size.to_bytes(8, "little"))
                held = []
        if number < stop:
            raise RuntimeError(
                f"{source} holds {number} frames, but {stop} were written. Go back to an earlier "
                "frame with drop_after, or write to another folder."
            )
        sink.sync()
    except BaseException:
        sink.close()
        target.unlink(missing_ok=True)
        raise
    sink.close()


def _duration(shown: Ticks, number: int) -> int:
    """For how long a frame is shown; the last one as long as the one before."""
    at = min(number, len(shown) - 2)
    return int(shown[at + 1] - shown[at]) if at >= 0 else 1


@contextmanager
def _packets(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The video stream of a file that longsam wrote, and its packets."""
    kind = "mpegts" if path.name == STREAM else "mp4"
    with open_regular(path) as file:  # not by name, which FFmpeg could take for a URL
        with _naming(path):
            container: Any = av.open(file, "r", format=kind, **_ANY_TITLES)
        with container:
            if not container.streams.video:
                raise RuntimeError(f"{path} is damaged: it holds no video.")
            stream = container.streams.video[0]
            if stream.codec_context is None or stream.codec_context.name != "h264":
                raise RuntimeError(f"{path} was not written by longsam: it is no H.264.")
            yield stream, _demux(container, stream, path)


def _demux(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        with _naming(path):
            packet = next(packets, None)
        if packet is None:
            return
        if packet.size:
            yield packet


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors of FFmpeg, and of the file that it seeks in, name the file."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RuntimeError(f"{path} is damaged: {error}.") from error


@contextmanager
def _naming_invalid_data(path: Path) -> Iterator[None]:
    """As `_naming`, but a full disk stays an OSError, as it concerns the target."""
    try:
        yield
    except av.error.InvalidDataError as error:
        raise RuntimeError(f"{path} is damaged: {error}.") from error


class _Sink(AppendFile):
    """What a muxer writes to."""

    is_open = True

    def write(self, data: bytes) -> int:
        return super().write(data) if self.is_open else len(data)


def _last_end(path: Path, num_frames: int) -> int:
    """How many bytes the stream has after this many frames."""
    if not num_frames:
        return 0
    with open_regular(path) as file:
        file.seek(8 * (num_frames - 1))
        return int.from_bytes(file.read(8), "little")
