"""What a policy knows of an object, kept with the output after which it knew it."""

from collections.abc import Iterator
from typing import Any

import torch

from longsam._upstream.outputs import RECORDS, without_mask
from longsam._upstream.state import (
    InferenceState,
    Output,
    conditioning_outputs,
    tracked_outputs,
)

Record = dict[str, Any]
"""One hypothesis: "memo"; "held", outputs of earlier frames by index; "output", its own of this
frame, None where that is the output which the record lies in."""


def new_record(memo: dict[str, Any], held: dict[int, Output]) -> Record:
    """A hypothesis whose output of this frame is the one that the record will lie in."""
    return {"memo": memo, "held": held, "output": None}


def put_records(output: Output, records: list[Record]) -> None:
    """Attach records to an output."""
    output[RECORDS] = records


def records_of(output: Output | None) -> list[Record] | None:
    """The records of an output, if it has any."""
    return None if output is None else output.get(RECORDS)


def held(output: Output) -> Output:
    """An output as a record holds it: without its mask, and without records of its own."""
    return without_mask(output)


def nearest_records(
    state: InferenceState, obj_idx: int, frame_idx: int, *, reverse: bool
) -> tuple[int, list[Record]] | None:
    """The records of the frame before, else those of the nearest conditioning frame.

    Returns:
        The frame and its records; None where there are none.
    """
    before = frame_idx + (1 if reverse else -1)
    conditioning = conditioning_outputs(state, obj_idx)
    others = sorted(conditioning, key=lambda known: abs(known - frame_idx))
    for known in (before, *others):
        output = conditioning.get(known) or tracked_outputs(state, obj_idx).get(known)
        records = records_of(output)
        if records is not None and known != frame_idx:
            return known, records
    return None


def outputs_in(records: Any) -> Iterator[Output]:
    """Every output in records, at any depth."""
    if isinstance(records, dict):
        if "maskmem_features" in records:
            yield records
            return
        for value in records.values():
            yield from outputs_in(value)
    elif isinstance(records, (list, tuple)):
        for value in records:
            yield from outputs_in(value)


def mask_of(output: Output) -> torch.Tensor | None:
    """An output's mask logits, 1 x height x width, float32; None where they are not kept."""
    masks = output["pred_masks"]
    return None if masks is None else masks[0].float()
