"""The number format that a model computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = ("float32", "bfloat16", "float16")


def dtype_on(dtype: str | None, device: torch.device) -> str:
    """A number format; None is bfloat16 on a GPU that has it, else float32."""
    if dtype is not None:
        return dtype
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_it else "float32"


def computing_in(dtype: str, device: torch.device) -> AbstractContextManager[object]:
    """Run the model in this format, as upstream's examples do: torch's autocast."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))
