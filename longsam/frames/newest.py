"""The newest frame of a source that does not wait for its reader."""

import threading
from collections.abc import Iterator

from longsam.frames.live_sources import RawFrame


class NewestFrame(threading.Thread):
    """Reads a source continuously and delivers only the newest frame.

    Args:
        frames: The source.
        stop: Set from outside to end the thread; it ends with the next frame that arrives.

    Attributes:
        num_dropped: How many frames were not delivered.
    """

    def __init__(self, frames: Iterator[RawFrame], stop: threading.Event):
        super().__init__(name="longsam-newest-frame", daemon=True)  # a camera may block forever
        self.num_dropped = 0
        self._frames = frames
        self._stop_reading = stop
        self._condition = threading.Condition()
        self._newest: RawFrame | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self.start()

    def __iter__(self) -> Iterator[RawFrame]:
        return self

    def __next__(self) -> RawFrame:
        with self._condition:
            while self._newest is None and not self._is_over:
                self._condition.wait()
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            error, self._error = self._error, None
        raise error or StopIteration

    def end(self) -> None:
        """Wake a reader that waits for a frame in another thread."""
        with self._condition:
            self._is_over = True
            self._condition.notify_all()

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
        except BaseException as raised:  # raised in the caller
            error = raised
        finally:
            with self._condition:
                self._error, self._is_over = error, True
                self._condition.notify()
