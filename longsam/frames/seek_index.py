"""Where in a video file decoding can start: keyframes by frame index and time stamp."""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import av
from tqdm import tqdm

MAX_KEYFRAMES = 4096
"""At most this many keyframes are remembered. Beyond that every second one is dropped, so the index
of a video of any length stays within about 0.5 MB, and seeks decode a little more."""


class Keyframe(NamedTuple):
    """A frame that decodes without any earlier frame.

    `pts` is its presentation time stamp, in the stream's time base; None is the start of the file.
    """

    frame_idx: int
    pts: int | None


class SeekIndex:
    """Keyframes of one file in order, thinned to a bounded number.

    Attributes:
        known_until: The keyframes at and before this frame index are known.
    """

    def __init__(self) -> None:
        self.known_until = 0
        self._keyframes = [Keyframe(0, None)]
        self._min_gap = 1

    def before(self, frame_idx: int) -> Keyframe:
        """The nearest known keyframe at or before a frame, or else the start of the file."""
        return self._keyframes[self._end(frame_idx) - 1]

    def first(self) -> Keyframe | None:
        """The first known keyframe after the start of the file."""
        return self._keyframes[1] if len(self._keyframes) > 1 else None

    def contradicts(self, keyframe: Keyframe) -> bool:
        """Whether the index has this frame, or this time stamp, but not both together."""
        by_idx = self.before(keyframe.frame_idx)
        at = bisect_left(self._keyframes, keyframe.pts, lo=1, key=lambda known: known.pts)
        by_pts = self._keyframes[at] if at < len(self._keyframes) else None
        if by_pts is not None and by_pts.pts == keyframe.pts:
            return by_pts != keyframe
        return by_idx.pts is not None and by_idx.frame_idx == keyframe.frame_idx

    def _end(self, frame_idx: int) -> int:
        return bisect_right(self._keyframes, frame_idx, key=lambda keyframe: keyframe.frame_idx)

    def add(self, keyframe: Keyframe) -> None:
        """Note a keyframe, unless one is already known close to it."""
        at = self._end(keyframe.frame_idx)
        if keyframe.frame_idx < self._keyframes[at - 1].frame_idx + self._min_gap:
            return
        if at < len(self._keyframes):  # a jump skipped it
            if self._keyframes[at].frame_idx < keyframe.frame_idx + self._min_gap:
                return
            self._keyframes.insert(at, keyframe)
        else:
            self._keyframes.append(keyframe)
        if len(self._keyframes) > MAX_KEYFRAMES:
            del self._keyframes[1::2]
            self._min_gap *= 2


class HeaderKeyframes:
    """The keyframes listed in an MP4's header, so no packet between them is read.

    The list has positions and decoding times. A keyframe's index and time stamp are found on
    demand, by reading it and the leading pictures that follow it.

    Args:
        container: The file, newly opened; kept.
        stream: Its video stream; the header lists all its packets.

    Attributes:
        agrees: False if a packet is not shown, or times jump back; then the list cannot be used.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self._container, self._stream = container, stream
        # Which packet, its place, and the last time of those up to the next keyframe: FFmpeg seeks
        # to a keyframe by its decoding or presentation time, and both come before that.
        self._listed: list[tuple[int, int, int]] = []
        self.agrees = True
        last: int | None = None
        for number, entry in enumerate(stream.index_entries):
            if entry.is_discard or (last is not None and entry.timestamp <= last):
                self.agrees = False
                return
            last = entry.timestamp
            if entry.is_keyframe:
                self._listed.append((number, entry.pos, last))
            elif self._listed:
                self._listed[-1] = (*self._listed[-1][:2], last)
        every = -(-len(self._listed) // MAX_KEYFRAMES)
        self._listed = self._listed[:: max(1, every)]

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def first(self) -> Keyframe | None:
        """The first keyframe after the start; None if there is none, or it is not as listed."""
        return self._read(1) if len(self._listed) > 1 else None

    def before(self, frame_idx: int) -> Keyframe | None:
        """A keyframe at or before a frame; None if the header is wrong about it."""
        at = bisect_right(self._listed, frame_idx, key=lambda listed: listed[0]) - 1
        while at > 0:
            keyframe = self._read(at)
            if keyframe is None or keyframe.frame_idx <= frame_idx:
                return keyframe
            at -= 1
        return Keyframe(0, None)

    def _read(self, at: int) -> Keyframe | None:
        number, place, time = self._listed[at]
        try:
            self._container.seek(time, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            packet = next(packets)
            if packet.pos != place or not packet.is_keyframe or packet.pts is None:
                return None
            pts = packet.pts
            for packet in packets:
                if packet.pts is None or packet.pts >= pts:
                    break
                number += 1
        except (av.FFmpegError, OSError, StopIteration):
            return None
        return Keyframe(number, pts)


class PacketScan:
    """Reads packets without decoding them: counts the frames and notes the keyframes.

    A packet holds one frame unless the container marks it to be discarded. Frames are shown in the
    order of their time stamps, which is not the order of the packets: frames that are stored after
    a keyframe and shown before it (leading pictures, in open GOPs) count towards its index.

    Args:
        container: The file, newly opened; the scan keeps it and resumes where it stopped.
        stream: Its video stream.
        first_pts: Time stamp of frame 0; what comes before it cannot be decoded. None if frames
            have no time stamps; then only the count is valid.
        index: Receives the keyframes.

    Attributes:
        num_frames: The number of frames in the packets read so far.
        seconds: Time from frame 0 to the last one.
        agrees: False once time stamps jump back, or a keyframe is not where decoding found it.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        first_pts: int | None,
        index: SeekIndex,
    ):
        self.num_frames = 0
        self._container = container
        self._size = max(container.size, 0)
        self._packets = container.demux(stream)
        self._position = 0
        self._last_dts: int | None = None
        self._first_pts = first_pts
        self._index = index
        self.agrees = True
        self.seconds = 0.0
        self._time_base = float(stream.time_base or 0)
        self._unsettled: list[Keyframe] = []  # keyframes whose leading pictures may still follow

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def run(self, *, until: int | None = None, progress: str) -> None:
        """Continue to the end, or until the keyframes at or before frame `until` are known.

        Args:
            until: A frame index.
            progress: Text of the progress bar, shown when the scan takes over two seconds.
        """
        with tqdm(
            desc=progress,
            total=self._size,
            initial=self._position,
            unit="B",
            unit_scale=True,
            delay=2,
        ) as bar:
            while until is None or (self._index.known_until < until and self.agrees):
                try:
                    packet = next(self._packets, None)
                except (av.FFmpegError, OSError):
                    packet = None  # damaged: the rest cannot be counted
                if packet is None:
                    for keyframe in self._unsettled:
                        self._settle(keyframe)
                    self._unsettled = []
                    self._index.known_until = max(self._index.known_until, self.num_frames - 1)
                    return
                self._count(packet)
                if packet.pos is not None and packet.pos > self._position:
                    bar.update(packet.pos - self._position)
                    self._position = packet.pos

    def _count(self, packet: "av.Packet[av.VideoStream]") -> None:
        if packet.size == 0 or packet.is_discard:
            return
        pts, dts = packet.pts, packet.dts
        if dts is not None:
            self.agrees &= self._last_dts is None or dts > self._last_dts
            self._last_dts = dts
        if pts is not None and self._first_pts is not None:
            if pts < self._first_pts and self.agrees:
                return
            self.seconds = max(self.seconds, (pts - self._first_pts) * self._time_base)
            still_unsettled = []
            for keyframe in self._unsettled:
                assert keyframe.pts is not None
                if pts < keyframe.pts:
                    still_unsettled.append(Keyframe(keyframe.frame_idx + 1, keyframe.pts))
                else:
                    self._settle(keyframe)
            self._unsettled = still_unsettled
            if packet.is_keyframe:
                self._unsettled.append(Keyframe(self.num_frames, pts))
        self.num_frames += 1

    def _settle(self, keyframe: Keyframe) -> None:
        self.agrees = self.agrees and not self._index.contradicts(keyframe)
        self._index.add(keyframe)
        self._index.known_until = max(self._index.known_until, keyframe.frame_idx)
