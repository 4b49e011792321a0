"""Objects that remember the same frames, tracked as one batch.

Upstream tracks object by object. With `batch_objects`, when it asks for the first object of a
group, the whole group is tracked together, and the others are answered from that result. The
objects' outputs are views into the batch's, so that the next frame finds the batch without copying.
"""

from collections.abc import Callable
from typing import Any

import torch

from longsam import _upstream
from longsam._upstream import InferenceState, Output

Group = tuple[int, ...]
"""Object indices."""

Answer = tuple[Output, torch.Tensor]
"""Upstream's result for one frame: the memory to keep, and mask logits."""


POSITIONS_ON_A_CPU = 2048
"""Positions (a frame has 4096 at 1024 x 1024) times objects in a batch on a CPU, where no limit is
given. With more, what a layer computes no longer fits the caches: the tiny config at 512 (1024
positions), on two cores, takes 0.96 of the loop's time with 2 objects in a batch, 1.08 with 4 and
1.18 with 8."""


def best_batch_size(device: torch.device, num_positions: int) -> int | None:
    """How many objects a batch may have and still gain time; None is no limit.

    Args:
        device: The model's.
        num_positions: Of the features of a frame that memory attention reads.
    """
    return None if device.type != "cpu" else max(1, POSITIONS_ON_A_CPU // num_positions)


class Batches:
    """The batches of one session.

    Args:
        max_batch_size: The most objects in a batch; None is no limit.
    """

    def __init__(self, max_batch_size: int | None):
        self.max_batch_size = max_batch_size
        self._frame_idx: int | None = None
        self._answers: dict[int, Answer] = {}  # of this frame, by object index
        # Frames as batches, each with the objects' outputs it holds: those that the previous frame
        # was made from, and those of this one.
        self._before: dict[tuple[Group, int], tuple[list[Output], Output]] = {}
        self._now: dict[tuple[Group, int], tuple[list[Output], Output]] = {}

    def clear(self) -> None:
        """Forget all batches; they are rebuilt from what objects remember."""
        self._frame_idx = None
        self._before.clear()
        self._now.clear()

    def begin_step(self) -> None:
        """A pass tracks its next frame: drop what was computed for another pass."""
        self._answers.clear()

    def track(
        self,
        state: InferenceState,
        obj_idx: int,
        frame_idx: int,
        reach: int,
        infer: Callable[[dict[str, Any], int], Answer],
        *,
        reverse: bool,
    ) -> Answer:
        """Upstream's result for one object, computed together with the rest of its group.

        Args:
            reach: How many frames back tracking reads.
            infer: Upstream's computation, of the outputs so far and their batch size.
        """
        if frame_idx != self._frame_idx:
            self._frame_idx = frame_idx
            self._answers.clear()
            self._before, self._now = self._now, {}
        if obj_idx not in self._answers:
            past = range(frame_idx - reach, frame_idx)
            if reverse:
                past = range(frame_idx + 1, frame_idx + reach + 1)
            group = self._group(state, obj_idx, frame_idx, past)
            output, mask_logits = infer(self._together(state, group, past), len(group))
            outputs = [_upstream.row(output, i) for i in range(len(group))]
            for i, member in enumerate(group):
                self._answers[member] = outputs[i], mask_logits[i : i + 1]
            self._now[group, frame_idx] = outputs, output
        return self._answers.pop(obj_idx)

    def _group(self, state: InferenceState, obj_idx: int, frame_idx: int, past: range) -> Group:
        """An object and those after it that are tracked on this frame from the same frames."""
        own = _remembered(state, obj_idx, past)
        alike = [
            other
            for other, _ in _upstream.objects(state)
            if other > obj_idx
            and frame_idx not in _upstream.conditioning_outputs(state, other)
            and _remembered(state, other, past) == own
        ]
        return (obj_idx, *alike)[: self.max_batch_size]

    def _together(
        self, state: InferenceState, group: Group, past: range
    ) -> dict[str, dict[int, Output]]:
        """What a group remembers, as upstream's outputs of one object, batched."""
        conditioning, tracked = _remembered(state, group[0], past)
        return _upstream.batch_of_one_output_dict(
            {
                f: self._join(
                    group, f, [_upstream.conditioning_outputs(state, i)[f] for i in group]
                )
                for f in conditioning
            },
            {
                f: self._join(group, f, [_upstream.tracked_outputs(state, i)[f] for i in group])
                for f in tracked
            },
        )

    def _join(self, group: Group, frame_idx: int, outputs: list[Output]) -> Output:
        """The memories of several objects of one frame as one batch."""
        known, batch = self._before.get((group, frame_idx), ([], {}))
        if len(known) != len(outputs) or any(
            a is not b for a, b in zip(known, outputs, strict=True)
        ):
            batch = _upstream.joined(outputs)
        self._now[group, frame_idx] = outputs, batch
        return batch


def _remembered(state: InferenceState, obj_idx: int, past: range) -> tuple[list[int], list[int]]:
    """The frames a mask is made from: conditioning ones, and tracked ones of the past."""
    tracked = _upstream.tracked_outputs(state, obj_idx)
    return sorted(_upstream.conditioning_outputs(state, obj_idx)), [f for f in past if f in tracked]
