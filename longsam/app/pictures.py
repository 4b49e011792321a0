"""Frames of a video as JPEG or PNG, any of them within a blink.

Two threads read the video, each with its own source. One gives the exact frames, and reads ahead
in the direction of travel while no request waits. The other gives key frames, which decode at
once, until the exact frame of a jump is decoded.
"""

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from longsam.frames import Frame, open_source

WIDTHS = (640, 960, 1280, 1920, 2560)

CACHE_BYTES = 64 << 20

AHEAD = 24
"""Frames that are made ready in forward travel: a second of most videos."""

BLOCK = 48
"""Frames that are made ready at once in reverse, where each block decodes from a key frame. Up to
twice as many lie ahead, so that the next block is there in time."""

FAR = 1000
"""A key frame that is farther from a frame than this is not shown in its place."""

NEAR = 64
"""A frame at most so far back is a step backwards, not a jump."""

AT_ONCE = 16
"""Frames decoded between two checks for a newer request."""

JPEG_QUALITY = 87


class StaleError(RuntimeError):
    """A newer frame was asked for before this one was begun."""


class Key(NamedTuple):
    """What a picture is cached by; a width of None is a PNG in the video's own size."""

    frame_idx: int
    width: int | None


class _Cache:
    """The pictures made last, up to a number of bytes."""

    def __init__(self, max_bytes: int):
        self._pictures: OrderedDict[Key, bytes] = OrderedDict()
        self._max_bytes, self._bytes = max_bytes, 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        with self._lock:
            picture = self._pictures.get(key)
            if picture is not None:
                self._pictures.move_to_end(key)
            return picture

    def put(self, key: Key, picture: bytes) -> None:
        with self._lock:
            if key in self._pictures:
                return
            self._pictures[key] = picture
            self._bytes += len(picture)
            while self._bytes > self._max_bytes and len(self._pictures) > 1:
                _, oldest = self._pictures.popitem(last=False)
                self._bytes -= len(oldest)

    def __contains__(self, key: Key) -> bool:
        return key in self._pictures


class Pictures:
    """The frames of one video.

    Args:
        video: A file, or a folder of images.
    """

    def __init__(self, video: Path):
        self._source = open_source(str(video), None)
        self._scout = open_source(str(video), None)
        self._scout_lock = threading.Lock()
        self.num_frames = self._source.num_frames
        self._cache = _Cache(CACHE_BYTES)
        self._wanted: OrderedDict[Key, Future[bytes]] = OrderedDict()
        self._condition = threading.Condition()
        self._last = -1  # the frame that was asked for last
        self._direction = 1
        self._decoded = 0  # the frame that decodes next without a seek
        self._urgent: Key | None = None  # the frame that a user waits for
        self._width: int | None = 1280
        self._ahead: list[int] = []
        self._is_closed = False
        self._warm = threading.Event()  # keyframes are known
        self._thread = threading.Thread(target=self._work, name="longsam-frames", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and close the video."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._thread.join()
        self._warm.set()
        self._source.close()
        with self._scout_lock:
            self._scout.close()

    def get(self, frame_idx: int, width: int | None, *, is_shown: bool) -> "Future[bytes]":
        """A frame as a picture.

        Args:
            frame_idx: The frame.
            width: The greatest width in pixels, of `WIDTHS`, as JPEG; None is a PNG in full size.
            is_shown: Whether a user waits for it: then those that were asked for before, and are
                not begun, are given up.

        Returns:
            The picture; or `StaleError`, or what reading raised.
        """
        key, future = Key(frame_idx, width), Future[bytes]()
        self._travel(frame_idx, width)  # pages ask ahead in the direction of travel
        picture = self._cache.get(key)
        if picture is not None:
            future.set_result(picture)
            return future
        with self._condition:
            if is_shown:
                self._urgent = key
                while self._wanted:
                    _, stale = self._wanted.popitem()
                    stale.set_exception(StaleError("a newer frame was asked for"))
            elif key in self._wanted:
                return self._wanted[key]
            self._wanted[key] = future
            self._condition.notify()
        return future

    def keyframe(self, frame_idx: int, width: int) -> tuple[int, bytes | None]:
        """The nearest frame at or before one that can be shown at once, as JPEG.

        Returns:
            Its index and the picture; where none is near, the frame itself and None.
        """
        for one in (width, self._width):
            picture = None if one is None else self._cache.get(Key(frame_idx, one))
            if picture is not None:
                return frame_idx, picture
        self._warm.wait()
        with self._scout_lock:
            quick = self._scout.quick_frame(frame_idx)
            if frame_idx - quick > FAR:
                return frame_idx, None
            picture = self._cache.get(Key(quick, width))
            if picture is None:
                (frame,) = self._scout.read(quick, quick + 1)
                picture = encoded(frame, width)
                self._cache.put(Key(quick, width), picture)
        return quick, picture

    def _warm_up(self) -> None:
        """Jump once: the first jump of a source looks at the file's beginning, which is slow."""
        with contextlib.suppress(RuntimeError, OSError):
            last = self._source.quick_frame(self.num_frames - 1)
            for _ in self._source.read(last, last + 1):
                pass
        with self._scout_lock, contextlib.suppress(RuntimeError, OSError):
            self._scout.learn(self._source)
            self._scout.quick_frame(self.num_frames - 1)
        self._warm.set()

    def _travel(self, frame_idx: int, width: int | None) -> None:
        """Note where the user goes, and what will be wanted next."""
        with self._condition:
            if frame_idx != self._last:
                self._direction = 1 if frame_idx > self._last else -1
            is_jump = abs(frame_idx - self._last) > NEAR
            self._last = frame_idx
            if width is not None:
                self._width = width
            count = 4 if is_jump else AHEAD if self._direction > 0 else 2 * BLOCK
            ahead = range(
                frame_idx + self._direction,
                frame_idx + self._direction * (count + 1),
                self._direction,
            )
            self._ahead = [i for i in ahead if 0 <= i < self.num_frames]
            self._condition.notify()

    def _next_ahead(self) -> tuple[int, int] | None:
        """The frames that are to be made ready: in reverse all at once, since decoding is not."""
        missing = [i for i in self._ahead if Key(i, self._width) not in self._cache]
        if not missing:
            return None
        if self._direction > 0:
            return missing[0], missing[0] + 1
        if len(missing) <= BLOCK and missing[-1] > 0:
            return None  # enough for now
        return max(missing[-1], missing[0] - BLOCK + 1), missing[0] + 1

    def _work(self) -> None:
        self._answer(Key(0, WIDTHS[0]), Future())  # what a page shows first
        while True:
            with self._condition:
                block = None
                while not self._is_closed and not self._wanted:
                    block = self._next_ahead()
                    if block is not None or not self._warm.is_set():
                        break
                    self._condition.wait()
                if self._is_closed:
                    for future in self._wanted.values():
                        future.cancel()
                    return
                wanted = self._wanted.popitem() if self._wanted else None
            if wanted is not None:
                self._answer(*wanted)
                with self._condition:
                    if self._urgent == wanted[0]:
                        self._urgent = None
            elif block is not None:
                self._read_ahead(*block)
            else:
                self._warm_up()

    def _answer(self, key: Key, future: "Future[bytes]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            picture = self._cache.get(key)
            if picture is None:
                behind = self._decoded - key.frame_idx
                start = max(0, key.frame_idx - BLOCK + 1) if 0 < behind <= NEAR else key.frame_idx
                if abs(behind) > NEAR:
                    with self._scout_lock:  # the key frame first: it is seen before
                        pass
                for number, frame in self._read(start, key.frame_idx + 1, key):
                    picture = encoded(frame, key.width)
                    self._cache.put(Key(number, key.width), picture)
                assert picture is not None
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(picture)

    def _read(self, start: int, stop: int, key: Key | None) -> Iterator[tuple[int, Frame]]:
        """Frames and their indices.

        Raises:
            StaleError: Somebody waits for another picture than this one.
        """
        for first in range(self._source.quick_frame(start), start, AT_ONCE):
            self._check_not_stale(key)
            for _ in self._source.read(first, first + 1):
                self._decoded = first + 1
        for frame_idx, frame in enumerate(self._source.read(start, stop), start):
            self._decoded = frame_idx + 1
            yield frame_idx, frame
            self._check_not_stale(key)

    def _check_not_stale(self, key: Key | None) -> None:
        if self._is_closed or self._urgent not in (None, key):
            raise StaleError("a newer frame was asked for")

    def _read_ahead(self, start: int, stop: int) -> None:
        width = self._width
        try:
            for frame_idx, frame in self._read(start, stop, None):
                self._cache.put(Key(frame_idx, width), encoded(frame, width))
        except StaleError:
            pass
        except (RuntimeError, OSError):  # damaged: said when it is shown
            self._ahead = []


def encoded(frame: Frame, width: int | None) -> bytes:
    """A frame as JPEG of at most this width, or as PNG in its own size."""
    image, file = Image.fromarray(frame), io.BytesIO()
    if width is None:
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
