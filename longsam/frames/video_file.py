"""Video files, decoded by FFmpeg through PyAV, frame by frame."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import av

from longsam._warn import warn
from longsam.frames import fingerprints
from longsam.frames.base import EndOfVideoError, Frame, FrameSource
from longsam.frames.ffmpeg import (
    Scaler,
    decoded_from_the_first,
    displayed_size,
    open_video,
    reason,
    rotation_of,
)
from longsam.frames.seek_index import HeaderKeyframes, Keyframe, PacketScan, SeekIndex

CODECS_THAT_PACK_FRAMES = ("mpeg4", "msmpeg4v3", "msmpeg4v2")
"""Xvid and DivX put two frames into one packet, so what follows a keyframe depends on whether
decoding has started there. Jumps in such files decode from the start."""

MAX_TIMES = 4096
"""The time stamps of this many most recently decoded frames are remembered: 0.5 MB."""

FORWARD_WITHOUT_SEEKING = 256
"""A jump of at most this many frames ahead, with no known keyframe between, decodes them all."""

QUICK_FRAMES = 8
"""This many frames are decoded faster than a viewer notices."""


class VideoFile(FrameSource):
    """A file of any format FFmpeg reads, decoded in one sequential pass.

    The frames are those that `decord.VideoReader(path, width=S, height=S)` gives when iterated, bit
    for bit where decord reads the file correctly: FFmpeg's bilinear scaling to RGB, after rotation.
    Jumps and reverse reading seek to a keyframe by its time stamp and decode from there.

    Attributes:
        rotation: By how much frames are rotated for display, in degrees counterclockwise.
        codec: FFmpeg's names of the codec and of the format of its pixels, "h264, yuv420p".

    Args:
        path: The file.
        image_size: Side of the model's square input, in pixels; None keeps the frames' size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, is not video, is a playlist, or has no video stream.
        RuntimeError: The first frame cannot be decoded.
    """

    path: Path

    def __init__(self, path: Path, image_size: int | None):
        if not path.exists():
            raise FileNotFoundError(f"There is no video file or image folder at {path}.")
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty (0 bytes); copy or record it again.")
        self.name = str(path)
        self.path = path
        self._index = SeekIndex()
        self._scan: PacketScan | None = None
        self._scaler = Scaler(image_size)
        self._decoded_until = 0
        self._pts: dict[int, int] = {}  # by frame index, of the most recently decoded frames
        self._has_jumped = False
        self._warned_of_damage = False

        self._open()
        first = self._decode()
        self._pending: av.VideoFrame | None = first  # decoded, and not yet read
        self._first_pts = self._last_pts = first.pts
        codec = self._stream.codec_context.name
        self.codec = f"{codec}, {self._stream.codec_context.pix_fmt}"
        self._can_seek = first.pts is not None and codec not in CODECS_THAT_PACK_FRAMES
        self._coded_size = (first.height, first.width)
        self.frame_size = displayed_size(first)
        self.frame_rate = self._stream.average_rate
        self._time_base = self._stream.time_base or Fraction(0)
        self.rotation = rotation_of(first)
        stated = self._stated_num_frames()
        self._header: HeaderKeyframes | None = None  # opened when first needed
        self._is_listed = bool(stated)
        self.num_frames = stated or self._counted_num_frames()

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        self._go_to(start)
        for _ in range(start, stop):
            yield self._scaler.run(self._next())

    def time(self, frame_idx: int) -> float | None:
        if self._first_pts is None:  # such as streams without a container, which only have a rate
            return None if self.frame_rate is None else float(frame_idx / self.frame_rate)
        pts = self._pts.get(frame_idx)
        return None if pts is None else float((pts - self._first_pts) * self._time_base)

    def fingerprint(self) -> str:
        return fingerprints.of_file(self.path)

    def quick_frame(self, frame_idx: int) -> int:
        if 0 <= frame_idx - self._next_idx <= QUICK_FRAMES or not self._can_seek:
            return frame_idx
        known = self._index.before(frame_idx)
        listed = None
        if self._index.known_until < frame_idx:
            listed = self._listed_before(frame_idx)
        return known.frame_idx if listed is None else max(known.frame_idx, listed.frame_idx)

    def learn(self, other: FrameSource) -> None:
        if isinstance(other, VideoFile) and other.path == self.path:
            self._index = deepcopy(other._index)
            self._can_seek, self._is_listed = other._can_seek, other._is_listed
            self._decoded_until = max(self._decoded_until, other._decoded_until)
            self._scan = None  # it fills in the index that it was made with

    def close(self) -> None:
        for opened in (self._container, self._scan, self._header):
            if opened is not None:
                opened.close()

    # Counting -------------------------------------------------------------------------------

    def _stated_num_frames(self) -> int:
        """The count in the header; 0 if there is none, or if an edit list cuts frames off."""
        stated = self._stream.frames
        if "mp4" not in self._container.format.name.split(",") or not stated:
            return 0
        entries = self._stream.index_entries
        if len(entries) != stated or entries[0].is_discard or entries[stated - 1].is_discard:
            return 0
        return stated

    def _lacks_packets(self) -> bool:
        """Whether the header lists packets past the end of the file."""
        entries = self._stream.index_entries
        last = entries[len(entries) - 1] if len(entries) else None
        return last is not None and last.pos + last.size > self._container.size

    def _counted_num_frames(self) -> int:
        scan = self._open_scan()
        scan.run(progress=f"counting the frames of {self.path.name}")
        self._can_seek &= scan.agrees
        stated = (self._container.duration or 0) / av.time_base
        if scan.agrees and self._stream.time_base and stated - 1 > 1.1 * scan.seconds:
            warn(
                f"{self.path} states a length of {stated:.1f} s, but its video ends after "
                f"{scan.seconds:.1f} s ({scan.num_frames} frames); it seems to be cut off.",
            )
        return scan.num_frames

    def _open_scan(self) -> PacketScan:
        if self._scan is None:
            container, stream = open_video(self.path)
            self._scan = PacketScan(container, stream, self._first_pts, self._index)
        return self._scan

    # Decoding in order ----------------------------------------------------------------------

    def _rewind(self) -> None:
        """Open the file again, at its start."""
        before = self._container
        self._open()
        before.close()  # PyAV's containers are part of a cycle: as garbage they keep their frames

    def _open(self) -> None:
        self._container, self._stream = open_video(self.path)
        self._frames = decoded_from_the_first(self._container, self._stream)
        self._next_idx = 0
        self._pending = self._last_pts = None

    def _decode(self) -> av.VideoFrame:
        """The decoder's next frame, whichever it is."""
        frame_idx = self._next_idx
        try:
            return next(self._frames)
        except StopIteration:
            why = "the file ends"
            if frame_idx > 0 and not self._lacks_packets():
                self._next_idx = -1
                raise EndOfVideoError(
                    f"{self.path} ends after {frame_idx} frames; it has {self.num_frames} packets "
                    "of video, but not all of them hold a frame that can be shown."
                ) from None
        except (av.FFmpegError, OSError) as error:
            why = reason(error)
        self._next_idx = -1  # the decoder is no longer usable: the next read seeks
        if frame_idx == 0:
            raise RuntimeError(f"{self.path}: not one frame can be decoded ({why}).")
        raise RuntimeError(
            f"{self.path}: frame {frame_idx} of {self.num_frames} cannot be decoded ({why}); "
            f"the file is cut off or damaged there. Frames 0 to {frame_idx - 1} are good, and so "
            "are their masks. To continue past the damage, prompt a frame after the next keyframe "
            "and start there, or repair the file with "
            "`ffmpeg -err_detect ignore_err -i INPUT -c:v libx264 OUTPUT.mp4`."
        )

    def _next(self) -> av.VideoFrame:
        """The frame at `_next_idx`, which then advances by one."""
        frame, self._pending = self._pending or self._decode(), None
        frame_idx = self._next_idx
        self._next_idx += 1
        if self._can_seek and frame_idx > 0:
            self._check_time_stamp(frame, frame_idx)
        self._last_pts = frame.pts
        self._note_time(frame_idx, frame.pts)
        if frame_idx == self._index.known_until + 1:  # a jump leaves unknown keyframes in between
            self._index.known_until = frame_idx
        self._decoded_until = max(self._decoded_until, frame_idx)
        if (frame.height, frame.width) != self._coded_size:
            raise RuntimeError(
                f"{self.path}: the frame size changes from {self._coded_size[1]}x"
                f"{self._coded_size[0]} to {frame.width}x{frame.height} pixels at frame "
                f"{frame_idx}. Convert the file to one size first: "
                "`ffmpeg -i INPUT -vf scale=W:H -c:v libx264 OUTPUT.mp4`."
            )
        if frame.is_corrupt and not self._warned_of_damage:
            self._warned_of_damage = True
            warn(
                f"{self.path}: frame {frame_idx} is damaged; the decoder filled in what is "
                "missing. Masks from here on may suffer. Later damage is not reported.",
            )
        if self._next_idx == self.num_frames:
            self._check_end()
        return frame

    def _check_end(self) -> None:
        """Warn if the file continues after the last frame stated or counted."""
        try:
            self._pending = next(self._frames, None)
        except (av.FFmpegError, OSError):
            return
        if self._pending is not None:
            warn(
                f"{self.path} should hold {self.num_frames} frames but holds more; those after "
                f"frame {self.num_frames - 1} are not read. `ffmpeg -i INPUT -c copy OUTPUT.mp4` "
                "writes the file again, with the right count.",
            )

    def _note_time(self, frame_idx: int, pts: int | None) -> None:
        self._pts.pop(frame_idx, None)
        if pts is not None:
            self._pts[frame_idx] = pts
            if len(self._pts) > MAX_TIMES:
                del self._pts[next(iter(self._pts))]

    # Jumps ----------------------------------------------------------------------------------

    def _check_time_stamp(self, frame: av.VideoFrame, frame_idx: int) -> None:
        """Note a keyframe reached in order; find out whether time stamps identify frames."""
        if frame.pts is None or (self._last_pts is not None and frame.pts <= self._last_pts):
            self._can_seek = False  # joined recordings: the same time comes twice
        elif frame.key_frame:
            keyframe = Keyframe(frame_idx, frame.pts)
            self._can_seek = not self._index.contradicts(keyframe)
            self._index.add(keyframe)
        if not self._can_seek and self._has_jumped:
            warn(
                f"{self.path}: time stamps do not identify frames from frame {frame_idx} on, so "
                "later frames reached by an earlier jump (prompts ahead of tracking, "
                "reverse) may have been wrong. From now on jumps decode all frames between.",
            )

    def _go_to(self, target: int) -> None:
        """Make `target` the next frame to be read."""
        if self._next_idx >= 0 and 0 <= target - self._next_idx <= FORWARD_WITHOUT_SEEKING:
            with suppress(RuntimeError):  # damage in between: try a keyframe after it
                self._skip_to_frame(target)
                return
        listed = None
        if self._can_seek and self._index.known_until < target:
            listed = self._listed_before(target)
            if listed is None:
                scan = self._open_scan()
                scan.run(until=target, progress=f"indexing {self.path.name}")
                self._can_seek = scan.agrees
        if self._can_seek and not self._has_jumped:
            self._try_first_keyframe()
        start = self._index.before(target if self._can_seek else 0)
        if self._can_seek and listed is not None and listed.frame_idx > start.frame_idx:
            start = listed
        if not start.frame_idx <= self._next_idx <= target:
            self._seek(start)
        self._skip_to_frame(target)

    def _listed_before(self, target: int) -> Keyframe | None:
        """The keyframe before a frame, from the header; None if the header cannot be trusted."""
        if not self._is_listed:
            return None
        if self._header is None:
            self._header = HeaderKeyframes(*open_video(self.path))
            first = self._header.first() if self._header.agrees else None
            if first is not None:
                # The packets themselves must agree, up to the first keyframe.
                scan = self._open_scan()
                scan.run(until=first.frame_idx, progress=f"indexing {self.path.name}")
            if first is None or not scan.agrees or self._index.first() != first:
                self._is_listed = False
                return None
        found = self._header.before(target)
        self._is_listed = found is not None
        return found

    def _try_first_keyframe(self) -> None:
        """Before the first seek: compare the packet scan with what decoding gives at the start.

        A recording that was cut between keyframes starts with packets that hold no frame.
        """
        first = self._index.first()
        if first is None or self._decoded_until >= first.frame_idx:
            return
        self._rewind()
        with suppress(RuntimeError):  # damaged file: the index is not at fault
            self._skip_to_frame(first.frame_idx + 1)

    def _skip_to_frame(self, target: int) -> None:
        while self._next_idx < target:
            self._next()

    def _seek(self, keyframe: Keyframe) -> None:
        """Make a keyframe the next frame, or an earlier frame if the file cannot seek there."""
        while keyframe.pts is not None:
            if self._lands_on(keyframe.pts):
                self._next_idx = keyframe.frame_idx
                return
            keyframe = self._index.before(keyframe.frame_idx - 1)
        self._rewind()

    def _lands_on(self, pts: int) -> bool:
        """Seek to a time stamp and decode up to its frame; False if the seek landed after it."""
        self._pending = None
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                if frame.pts is None or frame.pts > pts:
                    return False
                if frame.pts == pts:
                    self._has_jumped = True
                    self._pending, self._last_pts = frame, None
                    return True
        except (av.FFmpegError, OSError):
            pass  # damaged, or the format cannot seek
        return False
