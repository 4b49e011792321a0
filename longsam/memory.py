"""What a session remembers of the frames it has tracked, and what it forgets."""

from collections.abc import Iterable
from typing import Any

from longsam import _upstream
from longsam._upstream import InferenceState
from longsam.frame_map import FrameMap

MAX_REWOUND = 3
"""The neighbouring frames of this many recent rewinds are kept."""


class Memory:
    """Which frames are kept, and which have been tracked.

    For each object it keeps the most recently tracked frames, the neighbours of a few frames where
    a pass may start, what open passes read next, and the frames with prompts.

    Args:
        window: How many of the most recently tracked frames are kept.
        reach: How many frames back tracking reads.
        max_prompt_frames: How many frames with prompts are kept for each object; None is all.

    Attributes:
        starts: Where passes are likely to start again: the first frame of the last pass, and the
            first conditioning frame, which is upstream's default.
        rewound: The frames rewound to since the last pass began, at most `MAX_REWOUND`.
        recent: The most recently tracked frames, oldest first (a dict for its order).
        segment_of: For each object id all the frames that passes have tracked, forgotten or not,
            with the number of the segment that tracked them last (`snapshots.History`). 0 is none:
            there are no snapshots, or a frame only counts as tracked.
        cleared: (object id, frame) where a prompt was removed but its output stayed. No pass can
            recompute it, so it is kept until one tracks the frame.
        corrections: (object id, frame) of corrections that are not conditioning frames, so that a
            pass over them replaces them, and whether the user has been told so.
        told: (object id, frame) of prompts on forgotten frames that the user has been told about.
    """

    def __init__(self, window: int, reach: int, max_prompt_frames: int | None = None):
        self.window = window
        self.reach = reach
        self.max_prompt_frames = max_prompt_frames
        self.starts: frozenset[int] = frozenset()
        self.rewound: list[int] = []
        self.recent: dict[int, None] = {}
        self.segment_of: dict[Any, FrameMap] = {}
        self.cleared: set[tuple[Any, int]] = set()
        self.corrections: dict[tuple[Any, int], bool] = {}
        self.told: set[tuple[Any, int]] = set()

    def begin_pass(self, start: int, default_start: int) -> None:
        """A new pass begins, not a resumed one."""
        self.starts = frozenset({start, default_start})
        self.rewound = []

    def note_tracked(self, obj_ids: Iterable[Any], frame_idx: int, segment: int) -> None:
        """A pass has tracked these objects on a frame."""
        self.recent.pop(frame_idx, None)
        self.recent[frame_idx] = None
        while len(self.recent) > self.window:
            del self.recent[next(iter(self.recent))]
        for obj_id in obj_ids:
            self.segment_of.setdefault(obj_id, FrameMap())[frame_idx] = segment
            self.cleared.discard((obj_id, frame_idx))
            self.corrections.pop((obj_id, frame_idx), None)

    def note_rewound(self, frame_idx: int) -> None:
        """What was forgotten around a frame has been recomputed."""
        others = [known for known in self.rewound if known != frame_idx]
        self.rewound = [*others, frame_idx][-MAX_REWOUND:]

    def note_cleared(self, obj_id: Any, frame_idx: int) -> None:
        """A prompt was removed; the model's output for it is left."""
        self.cleared.add((obj_id, frame_idx))
        self.corrections.pop((obj_id, frame_idx), None)

    def note_erased(self, obj_id: Any, frames: Iterable[int]) -> None:
        """Upstream itself has removed outputs of an object: rewinding cannot restore them."""
        writers = self.segment_of.get(obj_id)
        for frame_idx in frames:
            if writers is not None:
                writers.discard(frame_idx)

    def forget_prompts(self, state: InferenceState, frame_idx: int, *, reverse: bool) -> None:
        """Of the prompts that a pass has reached, keep the first conditioning frame and the latest.

        What is forgotten counts as tracked from then on. Prompts that still lie ahead stay.
        """
        if self.max_prompt_frames is None:
            return
        for obj_idx, obj_id in _upstream.objects(state):
            frames = _upstream.prompt_frames(state, obj_idx)
            frames -= _upstream.waiting_prompt_frames(state, obj_idx)  # no pass has taken them up
            passed = [f for f in frames if (f >= frame_idx if reverse else f <= frame_idx)]
            if len(passed) <= self.max_prompt_frames:
                continue
            first = next(
                (f for f in _upstream.conditioning_outputs(state, obj_idx) if f >= 0), None
            )
            latest = sorted(
                (f for f in passed if f != first), key=lambda known: abs(frame_idx - known)
            )
            for forgotten in latest[self.max_prompt_frames - (first in passed) :]:
                _upstream.forget_prompt(state, obj_idx, forgotten)
                known = self.segment_of.setdefault(obj_id, FrameMap())
                if forgotten not in known:
                    known[forgotten] = 0

    def forget(self, state: InferenceState, to_be_read: Iterable[range]) -> None:
        """Forget everything that is no longer kept.

        Args:
            state: The session.
            to_be_read: For each open pass the frames that its next frame reads.
        """
        pinned = {frame_idx for frames in to_be_read for frame_idx in frames}
        for obj_idx, obj_id in _upstream.objects(state):
            writers = self.segment_of.get(obj_id, FrameMap())
            for by_frame in (
                _upstream.tracked_outputs(state, obj_idx),
                _upstream.frames_tracked(state, obj_idx),
            ):
                for held in list(by_frame):
                    if not (
                        held in pinned
                        or self._keeps(held)
                        or (obj_id, held) in self.cleared
                        # What no pass has tracked cannot be recomputed.
                        or held not in writers
                        or _upstream.has_prompt(state, obj_idx, held)
                    ):
                        del by_frame[held]

    def _keeps(self, frame_idx: int) -> bool:
        """Whether a frame without prompts is kept, apart from what open passes read."""
        return (
            frame_idx in self.recent
            or any(
                # A reverse pass from frame 0 has no frames, so nobody will read those after it.
                -self.reach <= frame_idx - start <= (self.reach if start > 0 else 0)
                for start in self.starts
            )
            or any(abs(frame_idx - there) <= self.reach + 1 for there in self.rewound)
        )

    def is_forgotten(self, state: InferenceState, obj_id: Any, frame_idx: int) -> bool:
        """Whether an object was tracked on a frame and its output there has been forgotten."""
        obj_idx = _upstream.object_idx(state, obj_id)
        writers = self.segment_of.get(obj_id)
        return (
            obj_idx is not None
            and writers is not None
            and frame_idx in writers
            and frame_idx not in _upstream.frames_tracked(state, obj_idx)
            and frame_idx not in _upstream.tracked_outputs(state, obj_idx)
            and frame_idx not in _upstream.conditioning_outputs(state, obj_idx)
            and not _upstream.has_prompt(state, obj_idx, frame_idx)
        )

    def forgotten_past(
        self, state: InferenceState, obj_id: Any, frame_idx: int, *, reverse: bool
    ) -> list[int]:
        """Which of the frames read to track this one are forgotten."""
        if self.window < self.reach:
            return []  # init_state has warned that masks differ
        obj_idx = _upstream.object_idx(state, obj_id)
        assert obj_idx is not None
        # A conditioning frame is not tracked itself; the frame after it reads one fewer of these.
        is_cond = frame_idx in _upstream.conditioning_outputs(state, obj_idx)
        step = 1 if reverse else -1
        read = range(frame_idx + step, frame_idx + step * (self.reach + 1 - is_cond), step)
        return [read_idx for read_idx in read if self.is_forgotten(state, obj_id, read_idx)]

    def missing_around(
        self, state: InferenceState, frame_idx: int
    ) -> dict[int, set[tuple[Any, int]]]:
        """Forgotten outputs that a correction on a frame, and passes next to it, may read.

        Returns:
            By the number of the segment that tracked it last: (object id, frame).
        """
        missing: dict[int, set[tuple[Any, int]]] = {}
        margin = self.reach + 1
        for _, obj_id in _upstream.objects(state):
            for near in range(max(frame_idx - margin, 0), frame_idx + margin + 1):
                if self.is_forgotten(state, obj_id, near):
                    segment = self.segment_of[obj_id].get(near)
                    if segment:
                        missing.setdefault(segment, set()).add((obj_id, near))
        return missing

    def forget_objects(self, remaining: Iterable[Any]) -> None:
        """Drop the notes on objects that no longer exist."""
        remain = set(remaining)
        self.segment_of = {i: frames for i, frames in self.segment_of.items() if i in remain}
        self.cleared = {known for known in self.cleared if known[0] in remain}
        self.corrections = {i: told for i, told in self.corrections.items() if i[0] in remain}
        self.told = {known for known in self.told if known[0] in remain}
        if not self.segment_of:
            self.recent.clear()
            self.rewound = []
            self.starts = frozenset()

    def to_plain(self) -> dict[str, Any]:
        """The notes, in types that can be saved."""
        return {
            "starts": sorted(self.starts),
            "rewound": self.rewound,
            "recent": list(self.recent),
            "segment_of": {
                obj_id: list(frames.runs()) for obj_id, frames in self.segment_of.items()
            },
            "cleared": list(self.cleared),
            "corrections": [(*known, told) for known, told in self.corrections.items()],
            "told": list(self.told),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the notes that were saved."""
        self.starts = frozenset(saved["starts"])
        self.rewound = list(saved["rewound"])
        self.recent = dict.fromkeys(saved["recent"])
        self.segment_of = {
            obj_id: FrameMap(iter(runs)) for obj_id, runs in saved["segment_of"].items()
        }
        self.cleared = {(obj_id, frame_idx) for obj_id, frame_idx in saved["cleared"]}
        self.corrections = {
            (obj_id, int(frame_idx)): bool(told) for obj_id, frame_idx, told in saved["corrections"]
        }
        self.told = {(obj_id, frame_idx) for obj_id, frame_idx in saved["told"]}
