"""How sure the model is: scores that upstream computes with each mask, and partly drops."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from longsam._upstream.decoding import Decoding
from longsam._upstream.state import (
    InferenceState,
    Output,
    conditioning_outputs,
    objects,
    tracked_outputs,
)

PREDICTED_IOU = "predicted_iou"
"""What we keep in each output besides upstream's tensors: the predicted IoU of the chosen mask."""

_CAUGHT = "longsam_predicted_iou"


def keeping_predicted_iou(
    infer: Callable[..., tuple[Output, torch.Tensor]],
    output_dict: dict[str, dict[int, Output]],
    batch_size: int,
    how: Decoding | None = None,
) -> tuple[Output, torch.Tensor]:
    """Upstream's `_run_single_frame_inference` (line 737), and the predicted IoU in its output.

    It keeps a compact output of what `track_step` returns and drops the rest. The dict of outputs
    so far is passed all the way down to `_track_step`, so a copy of it carries the IoU back;
    nothing is put on the model, which several states may share.
    """
    caught: list[torch.Tensor] = []
    asking: dict[str, Any] = {**output_dict, _CAUGHT: (caught, how)}
    output, mask_logits = infer(output_dict=asking, batch_size=batch_size)
    (output[PREDICTED_IOU],) = caught
    return output, mask_logits


def catch_predicted_iou(
    output_dict: dict[str, Any], sam_outputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Note the predicted IoU where `_track_step` (sam2_base.py, line 728) has it.

    Of several masks upstream chooses the one with the highest (line 383), unless a policy chose. A
    prompt that is a mask gives 1.

    Returns:
        What upstream is to use: the same, or with the numbers that a policy had hidden put back.
    """
    if _CAUGHT not in output_dict:
        return sam_outputs
    caught, how = output_dict[_CAUGHT]
    if how is None:
        caught.append(sam_outputs[2].max(dim=-1, keepdim=True).values.float())
        return sam_outputs
    restored: tuple[torch.Tensor, ...] = how.restored(sam_outputs)
    caught.append(how.predicted_iou(restored[2]).float())
    return restored


def scores(state: InferenceState, frame_idx: int) -> dict[Any, tuple[float, float]]:
    """(object score, predicted IoU) by object id, of the objects remembered on the frame.

    A prompt's output counts at once, before a pass consolidates it.
    """
    outputs = {
        obj_id: output
        for obj_idx, obj_id in objects(state)
        if (output := next(_newest_first(state, obj_idx, frame_idx), None)) is not None
    }
    if not outputs:
        return {}
    names = ("object_score_logits", PREDICTED_IOU)
    numbers = torch.cat([output[name].float().reshape(1) for output in outputs.values()
                         for name in names]).reshape(-1, 2).tolist()  # fmt: skip
    return {obj_id: (both[0], both[1]) for obj_id, both in zip(outputs, numbers, strict=True)}


def _newest_first(state: InferenceState, obj_idx: int, frame_idx: int) -> Iterator[Output]:
    """What is remembered of a frame for an object."""
    for by_frame in (
        *state["temp_output_dict_per_obj"][obj_idx].values(),
        conditioning_outputs(state, obj_idx),
        tracked_outputs(state, obj_idx),
    ):
        if frame_idx in by_frame:
            yield by_frame[frame_idx]
