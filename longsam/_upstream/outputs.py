"""Outputs: what the model keeps of one frame for one object, or for a batch of objects."""

from typing import Any

import torch

from longsam._upstream.scores import PREDICTED_IOU
from longsam._upstream.state import InferenceState, Output

RECORDS = "longsam_policy"
"""Our key in an output: what a policy knew after it, see `_upstream.memos`."""


class Placing:
    """Moves what was saved to the devices where upstream keeps it (line 755).

    Tensors that share storage, such as those of outputs held by policies, still share it
    afterwards.
    """

    def __init__(self, constants: dict[str, Any], device: torch.device, storage: torch.device):
        self._constants = constants
        self._device = device
        self._storage = storage
        # Holds the tensors that were moved too, so that no address is reused meanwhile.
        self._moved: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def output(self, output: Output) -> None:
        """Move an output, and what a policy knew after it."""
        for name in ("obj_ptr", "object_score_logits", PREDICTED_IOU):
            output[name] = self.value(output[name], self._device)
        for name in ("maskmem_features", "pred_masks"):
            output[name] = self.value(output[name], self._storage)
        if output["maskmem_pos_enc"] is not None and output["maskmem_features"] is not None:
            # The same for all frames: one copy, expanded (`_get_maskmem_pos_enc`).
            batch_size = output["maskmem_features"].shape[0]
            output["maskmem_pos_enc"] = [
                encoding.expand(batch_size, -1, -1, -1)
                for encoding in self._constants["maskmem_pos_enc"]
            ]
        if RECORDS in output:
            output[RECORDS] = self._records(output[RECORDS])

    def value(self, value: Any, device: torch.device) -> Any:
        """Tensors, also in dicts and lists, on a device."""
        if isinstance(value, torch.Tensor):
            place = (
                value.untyped_storage().data_ptr(),
                value.storage_offset(),
                tuple(value.shape),
                value.dtype,
                device,
            )
            if place not in self._moved:
                self._moved[place] = value, value.to(device)
            return self._moved[place][1]
        if isinstance(value, dict):
            return {key: self.value(item, device) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, device) for item in value]
        return value

    def _records(self, value: Any) -> Any:
        """Outputs at any depth; other tensors stay with the model."""
        if isinstance(value, dict) and "maskmem_features" in value:
            self.output(value)
            return value
        if isinstance(value, dict):
            return {key: self._records(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._records(item) for item in value]
        return self.value(value, self._device)


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also in dicts and lists, on another device."""
    return Placing({}, device, device).value(value, device)


def without_mask(output: Output) -> Output:
    """The memory alone: the mask and the policy's memo belong to the frame they were made on."""
    return {key: None if key == "pred_masks" else value
            for key, value in output.items() if key != RECORDS}  # fmt: skip


def joined(outputs: list[Output]) -> Output:
    """The memories of several objects on one frame, as one batch.

    The objects' own outputs become views into it.
    """
    batch = dict(outputs[0])
    for name in ("maskmem_features", "obj_ptr"):
        if batch[name] is None:  # a frame of which only pointers are read
            continue
        batch[name] = _stack([output[name] for output in outputs])
        for i, output in enumerate(outputs):
            output[name] = batch[name][i : i + 1]
    if batch["maskmem_pos_enc"] is not None:  # the same for all
        batch["maskmem_pos_enc"] = [
            encoding[:1].expand(len(outputs), -1, -1, -1) for encoding in batch["maskmem_pos_enc"]
        ]
    return batch


def row(output: Output, i: int) -> Output:
    """One object's part of a batch, as views."""
    rows = {name: value[i : i + 1] for name, value in output.items() if _is_tensor(value)}
    if output["maskmem_pos_enc"] is not None:
        rows["maskmem_pos_enc"] = [encoding[i : i + 1] for encoding in output["maskmem_pos_enc"]]
    return {**output, **rows}


def detach(output: Output) -> None:
    """Copy an output's tensors out of its batch, so that the other objects are not kept alive."""
    for name, value in output.items():
        if _is_tensor(value) and value.untyped_storage().nbytes() > value.nbytes:
            _wait_for(value)
            output[name] = value.clone()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _stack(rows: list[torch.Tensor]) -> torch.Tensor:
    """Tensors of one row each as one tensor; a view where they are adjacent in memory."""
    first = rows[0]
    size = first.numel()
    if all(
        row.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and row.storage_offset() == first.storage_offset() + i * size
        and row.stride()[1:] == first.stride()[1:]
        for i, row in enumerate(rows)
    ):
        shape = (len(rows), *first.shape[1:])
        return first.as_strided(shape, (size, *first.stride()[1:]))
    _wait_for(first)
    return torch.cat(rows)


def wait_for_copies(state: InferenceState) -> None:
    """Wait until all that is offloaded has arrived, so that it can be written to a file."""
    if state["device"].type == "cuda":
        torch.cuda.synchronize(state["device"])


def _wait_for(tensor: torch.Tensor) -> None:
    """Upstream offloads with non_blocking=True: a copy to the host may still be under way."""
    if not tensor.is_cuda and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
