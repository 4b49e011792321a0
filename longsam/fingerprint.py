"""What tells one model from another."""

import hashlib
from typing import Any

import torch

_CACHE = "_longsam_fingerprint"


def fingerprint(model: torch.nn.Module) -> dict[str, str]:
    """Hashes of a model's config and of its weights, each 16 hex digits, and its name.

    Hashing takes about a second for each GB of weights, so it is repeated only when a tensor was
    replaced or changed in place. A change through `tensor.data`, or to a tensor made in inference
    mode, is not noticed.
    """
    tensors = sorted(model.state_dict(keep_vars=True).items())
    key = tuple((name, tensor.data_ptr(), _version(tensor)) for name, tensor in tensors)
    known: tuple[Any, str] | None = getattr(model, _CACHE, None)
    if known is None or known[0] != key:
        known = key, _hash_of(tensors)
        setattr(model, _CACHE, known)
    return {
        "name": str(getattr(model, "name", "")),
        "config": _config_of(model),
        "weights": known[1],
    }


def _hash_of(tensors: list[tuple[str, torch.Tensor]]) -> str:
    weights = hashlib.sha256()
    for name, tensor in tensors:
        weights.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        weights.update(flat.numpy().data)
    return weights.hexdigest()[:16]


def _config_of(model: torch.nn.Module) -> str:
    config = hashlib.sha256(repr(model).encode())
    for name, value in sorted(vars(model).items()):
        is_setting = name != "name" and not name.startswith("_")
        if is_setting and isinstance(value, (bool, int, float, str, type(None))):
            config.update(f"{name}={value!r};".encode())
    return config.hexdigest()[:16]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
