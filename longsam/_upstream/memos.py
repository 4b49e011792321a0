"""A policy's memos of an object, each kept with the output that it followed."""

from typing import Any

import torch

from longsam._upstream.outputs import RECORDS
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
    """A hypothesis whose output of this frame is the one that will hold the record."""
    return {"memo": memo, "held": held, "output": None}


def put_records(output: Output, records: list[Record]) -> None:
    """Attach records to an output."""
    output[RECORDS] = records


def records_of(output: Output | None) -> list[Record] | None:
    """The records of an output, if it has any."""
    return None if output is None else output.get(RECORDS)


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


def checked_records(output: Output) -> list[Record]:
    """The records of an output read from a file, which is not trusted; none if it has none.

    Raises:
        TypeError: They are not as they were saved.
        LookupError: Something is missing.
    """
    records = output.get(RECORDS, [])
    if not isinstance(records, list) or (RECORDS in output and not records):
        raise TypeError("a policy's records are not a list")
    for record in records:
        if not isinstance(record["memo"], dict) or not isinstance(record["held"], dict):
            raise TypeError("a policy's record is not a record")
        own = [] if record["output"] is None else [record["output"]]
        if not all(isinstance(frame_idx, int) for frame_idx in record["held"]):
            raise TypeError("a policy holds something that is not a frame")
        for held_output in (*record["held"].values(), *own):
            if held_output["obj_ptr"].shape != output["obj_ptr"].shape or RECORDS in held_output:
                raise TypeError("a policy holds something that is not an output")
    return records


def mask_of(output: Output) -> torch.Tensor | None:
    """An output's mask logits, 1 x height x width, float32; None where they are not kept."""
    masks = output["pred_masks"]
    return None if masks is None else masks[0].float()
