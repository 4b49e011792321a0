"""Frames given by their number, or by their time in the video."""

import argparse
import re
from dataclasses import dataclass

import av

from longsam.frames import FrameSource, VideoFile


@dataclass(frozen=True)
class Moment:
    """A frame of a video, given one way or the other.

    Args:
        frame_idx: The frame, from 0.
        seconds: Seconds from the first frame.
    """

    frame_idx: int | None = None
    seconds: float | None = None


def moment(text: str) -> Moment:
    """Parse a frame's number, or a time: `1:02:03.5`, `00:40`, `40.5s`."""
    if re.fullmatch(r"\d+", text):
        return Moment(frame_idx=int(text))
    seconds = _seconds(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a frame's number (1200) or a time (00:40.5, 1:02:03, 40.5s)"
        )
    return Moment(seconds=seconds)


def _seconds(text: str) -> float | None:
    if match := re.fullmatch(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text):
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text):
        return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]
    return None


def frame_at(source: FrameSource, at: Moment, flag: str) -> int:
    """The index of a frame; for a time, of the frame shown then.

    Raises:
        ValueError: The video has no such frame, or its frames have no time.
    """
    frame_idx = at.frame_idx
    if at.seconds is not None:
        if not isinstance(source, VideoFile):
            raise ValueError(f"{flag}: the frames of {source.name} have no time; give a number.")
        frame_idx = _shown_at(source, at.seconds)
        given = f"{at.seconds:g} s"
    else:
        given = f"{frame_idx}"
    if frame_idx is None or frame_idx >= source.num_frames:
        rate = source.frame_rate
        length = f" ({float(source.num_frames / rate):.1f} s)" if rate else ""
        raise ValueError(
            f"{flag} is {given}, but {source.name} has {source.num_frames} frames{length}: 0 to "
            f"{source.num_frames - 1}."
        )
    return frame_idx


def _shown_at(source: VideoFile, seconds: float) -> int | None:
    """The frame shown at a time, by time stamps, since rates vary; None past the end."""
    at = 0
    with av.open(f"file:{source.path}") as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.time_base is None:
            return None
        first: int | None = None
        for packet in container.demux(stream):
            if packet.pts is None or packet.size == 0 or packet.is_discard:
                continue
            first = packet.pts if first is None else first
            target = first + seconds / stream.time_base
            if packet.dts is not None and packet.dts > target:
                return max(at - 1, 0)
            at += packet.pts <= target
    rate = source.frame_rate
    ends = float(source.num_frames / rate) if rate else float("inf")
    return None if seconds > ends else max(at - 1, 0)


def clock(seconds: float) -> str:
    """A time in the form that `moment` reads: 1:02:03.5."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest / 10:04.1f}"
