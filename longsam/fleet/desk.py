"""The desk of one video: assigns frames to encoders, and knows where their features are."""

import asyncio
from typing import Any


class Desk:
    """Assigns frames in turn, and keeps references to features until all trackers have used them.

    A separate actor. Each frame is assigned once, at most `num_ahead` after the first that a
    tracker still needs, so that no more features than that are held. Calls wait here, without a
    thread.

    Args:
        num_trackers: The number of trackers.
        num_ahead: How many frames may be encoded ahead.
    """

    def __init__(self, num_trackers: int, num_ahead: int):
        self._num_trackers, self._num_ahead = num_trackers, num_ahead
        self._needed: dict[int, int] = {}  # the next frame of each tracker
        self._unclaimed = 0
        self._stop = 0
        self._features: dict[int, Any] = {}
        self._changed = asyncio.Condition()

    async def join(self, tracker: int, frame_idx: int, stop: int) -> None:
        """A tracker has opened the video and needs features from this frame on.

        Args:
            tracker: Its number.
            frame_idx: The first frame it needs.
            stop: How many frames the video has.
        """
        async with self._changed:
            self._needed[tracker] = frame_idx
            self._unclaimed, self._stop = min(self._needed.values()), stop
            self._changed.notify_all()

    async def work(self) -> int | None:
        """A frame for an encoder; None when none is left."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_open() and (self._free() or self._over()))
            return self._claim() if self._free() else None

    async def features_or_work(self, tracker: int, frame_idx: int) -> tuple[Any | None, int | None]:
        """What a tracker needs next, or a frame that it can encode meanwhile.

        Returns:
            (features, None), or (None, a frame to encode); (None, None) if the video has ended.
        """
        async with self._changed:
            if self._needed[tracker] != frame_idx:
                self._needed[tracker] = frame_idx
                first = min(self._needed.values())
                for old in [known for known in self._features if known < first]:
                    del self._features[old]
                self._changed.notify_all()
            await self._changed.wait_for(
                lambda: (
                    self._is_open()
                    and (frame_idx in self._features or frame_idx >= self._stop or self._free())
                )
            )
            if frame_idx in self._features:
                return self._features[frame_idx], None
            return None, None if frame_idx >= self._stop else self._claim()

    async def put(self, frame_idx: int, features: Any) -> None:
        """A frame is encoded.

        Args:
            frame_idx: The frame.
            features: A list, so that the references in it stay references.
        """
        async with self._changed:
            self._features[frame_idx] = features
            self._changed.notify_all()

    async def ended(self, frame_idx: int) -> None:
        """The video has no frame with this index, whatever its header says."""
        async with self._changed:
            self._stop = min(self._stop, frame_idx)
            self._changed.notify_all()

    def _is_open(self) -> bool:
        return len(self._needed) == self._num_trackers

    def _over(self) -> bool:
        return self._unclaimed >= self._stop

    def _free(self) -> bool:
        ahead = min(self._needed.values()) + self._num_ahead
        return self._unclaimed < min(ahead, self._stop)

    def _claim(self) -> int:
        self._unclaimed += 1
        return self._unclaimed - 1
