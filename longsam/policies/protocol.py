"""The interface of a memory policy, and what it is given.

A policy decides, for one object at a time, which candidate mask is taken, which memories the next
frame reads, and what is worth keeping of each frame. One policy serves all objects of a session and
keeps no state itself: what it knows of an object is its memo, a dict of plain values, which is
attached to the model's output of a frame and saved with it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn import functional

from longsam import _upstream
from longsam._upstream import Output

Memo = dict[str, Any]
"""What a policy knows of an object after a frame: plain values, tensors, and outputs of
`TrackedFrame.as_prompt`, under strings. Return a new one instead of changing it."""


@dataclass(frozen=True)
class Candidates:
    """The masks that the mask decoder offers for one object on one frame.

    Args:
        masks: float32 logits at the decoder's resolution, n x height x width (256 x 256 with the
            released models); above 0 is the object. If the object does not count as present, all
            are far below 0. n is 3 while tracking and for one click, else 1.
        predicted_ious: For each, the model's estimate of its IoU with the truth, about 0 to 1.
        object_score: A logit, one for all: above 0 the model sees the object.
        image_size: Height and width of the model's input.
        frame_idx: The frame.
        reverse: Whether the pass runs towards frame 0.
    """

    masks: torch.Tensor
    predicted_ious: Sequence[float]
    object_score: float
    image_size: int
    frame_idx: int
    reverse: bool

    def __len__(self) -> int:
        return len(self.predicted_ious)

    @cached_property
    def full_masks(self) -> torch.Tensor:
        """The logits at the model's resolution, n x image_size x image_size, as upstream's."""
        return functional.interpolate(
            self.masks[None],
            size=(self.image_size, self.image_size),
            mode="bilinear",
            align_corners=False,
        )[0]

    @property
    def best(self) -> int:
        """The one with the highest predicted IoU, which upstream takes."""
        return max(range(len(self)), key=self.predicted_ious.__getitem__)


@dataclass(frozen=True)
class TrackedFrame:
    """One object on a frame that was just tracked, or on a prompt that a pass has reached.

    Args:
        frame_idx: The frame.
        reverse: Whether the pass runs towards frame 0.
        is_prompt: Whether the user has prompted the object on it.
        first_prompt: The object's first conditioning frame.
        candidates: What there was to choose from; on a prompt that a pass has reached, one mask.
        chosen: Which one was taken.
    """

    frame_idx: int
    reverse: bool
    is_prompt: bool
    first_prompt: int
    candidates: Candidates
    chosen: int
    _output: Output = field(repr=False)
    _encode: Any = field(repr=False, default=None)

    @property
    def predicted_iou(self) -> float:
        """The predicted IoU of the mask that was taken."""
        return self.candidates.predicted_ious[self.chosen]

    @property
    def object_score(self) -> float:
        """A logit: above 0 the model sees the object."""
        return self.candidates.object_score

    @property
    def mask(self) -> torch.Tensor:
        """float32 logits at the decoder's resolution, height x width."""
        return self.candidates.masks[self.chosen]

    def earlier(self, frames: Iterable[int]) -> list[int]:
        """Those of the given frames that are before this one, in the direction of the pass."""
        step = -1 if self.reverse else 1
        return [known for known in frames if (self.frame_idx - known) * step > 0]

    def as_prompt(self) -> Output:
        """The frame's memory, encoded like that of a prompt, for `Recall.conditioning`.

        It costs one run of the memory encoder and can be put into a memo as it is.

        Raises:
            RuntimeError: The frame is a prompt, which is encoded like this anyway.
        """
        if self.is_prompt:
            raise RuntimeError(f"Frame {self.frame_idx} is a prompt: it is encoded as one anyway.")
        output: Output = self._encode(self._output, self.candidates, self.chosen)
        return output


class History:
    """What is remembered of one object when a frame is tracked.

    `frame_idx in history` and `history[frame_idx]` look up tracked frames: those up to
    `num_pointers` frames back, and further back those that the policy holds (`holds`). An output is
    opaque: pass it on in `Recall`.

    Attributes:
        frame_idx: The frame that is tracked.
        reverse: Whether the pass runs towards frame 0.
        conditioning: The outputs of conditioning frames (prompts) by frame index, in the order in
            which they were given. Memories from a bank have negative indices.
        num_memories: How many memories upstream reads besides these; 6 with the released models.
        num_pointers: How many frames back it reads object pointers; 15.
        stride: Upstream's `memory_temporal_stride_for_eval`; 1.
    """

    def __init__(
        self,
        frame_idx: int,
        *,
        reverse: bool,
        conditioning: Mapping[int, Output],
        tracked: Mapping[int, Output],
        num_memories: int,
        num_pointers: int,
        stride: int,
    ):
        self.frame_idx = frame_idx
        self.reverse = reverse
        self.conditioning = conditioning
        self.num_memories = num_memories
        self.num_pointers = num_pointers
        self.stride = stride
        self._tracked = tracked

    def __contains__(self, frame_idx: int) -> bool:
        return frame_idx in self._tracked

    def __getitem__(self, frame_idx: int) -> Output:
        return self._tracked[frame_idx]

    def __iter__(self) -> Iterator[int]:
        return iter(self._tracked)

    def get(self, frame_idx: int) -> Output | None:
        """The output of a tracked frame; None where nothing is remembered of it."""
        return self._tracked.get(frame_idx)

    def back(self, distance: int) -> int:
        """The frame this many frames before this one, in the direction of the pass."""
        return self.frame_idx + (distance if self.reverse else -distance)

    @property
    def pointers(self) -> list[Output | None]:
        """The recent frames that upstream reads pointers of, nearest first."""
        return [self.get(self.back(distance)) for distance in range(1, self.num_pointers + 1)]

    def predicted_iou(self, frame_idx: int) -> float:
        """The predicted IoU of a tracked frame's mask. Waits for the GPU."""
        return _upstream.predicted_iou(self._tracked[frame_idx])

    def object_score(self, frame_idx: int) -> float:
        """The object score of a tracked frame. Waits for the GPU."""
        return _upstream.object_score(self._tracked[frame_idx])


@dataclass(frozen=True)
class Recall:
    """What a frame reads.

    Args:
        conditioning: Outputs by frame index, in the order in which they are read; at least one.
        memories: Oldest first, at most `History.num_memories`; the last is read as the previous
            frame, the one before it as two frames back, and so on. None leaves a place empty.
        pointers: Outputs whose object pointers are read, as if 1, 2, ... frames back; at most
            `History.num_pointers`. None leaves a place empty.
        num_frames: The length of the video used to place pointers in time; None is its real length.
            Upstream reads fewer pointers in videos of fewer than 16 frames.
        memory_weights: For each memory read, conditioning ones first, a factor for its keys in
            cross-attention. None is 1 for all.
        pointer_weights: The same for pointers, those of conditioning frames first.
    """

    conditioning: Mapping[int, Output]
    memories: Sequence[Output | None]
    pointers: Sequence[Output | None]
    num_frames: int | None = None
    memory_weights: Sequence[float] | None = None
    pointer_weights: Sequence[float] | None = None


@runtime_checkable
class MemoryPolicy(Protocol):
    """Which mask is taken and which memories are read; see docs/policies.md.

    Subclass `Upstream`, which is SAM 2's own rule, and change what differs.
    """

    @property
    def name(self) -> str:
        """Its name in saves."""
        ...

    @property
    def presence(self) -> float:
        """The object score above which the object counts as present; upstream's is 0."""
        ...

    @property
    def num_paths(self) -> int:
        """How many hypotheses are followed at once; more than 1 needs `branch`."""
        ...

    def options(self) -> Mapping[str, bool | int | float | str | None]:
        """The arguments that make an equal policy; saves hold them."""
        ...

    def start(self) -> Memo:
        """What is known of an object before its first frame."""
        ...

    def choose(self, memo: Memo, candidates: Candidates) -> int:
        """Which of several candidates is taken."""
        ...

    def recall(self, memo: Memo, history: History) -> Recall:
        """What the frame `history.frame_idx` reads."""
        ...

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        """What is known after a frame; a new memo."""
        ...

    def holds(self, memo: Memo) -> Collection[int]:
        """The tracked frames more than `History.num_pointers` back that `recall` may ask for; each
        takes as much memory as a frame of the memory window.
        """
        ...

    def anchors(self, memo: Memo) -> Mapping[int, Output]:
        """Outputs of `TrackedFrame.as_prompt` in the memo, by frame index, for memory banks."""
        ...

    def branch(
        self, memos: Sequence[Memo], offers: Sequence[Candidates]
    ) -> Sequence[tuple[int, int]]:
        """Which hypotheses are followed from here, best first.

        Args:
            memos: The memos of the hypotheses so far.
            offers: For each, what the mask decoder offers for it.

        Returns:
            (which hypothesis, which of its candidates), at least one, at most `num_paths`.
        """
        ...
