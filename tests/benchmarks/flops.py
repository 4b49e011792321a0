"""Operations of a call, with the CPU's attention kernel counted too, by part of the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def gflop_by_part(model: torch.nn.Module, call: Callable[[], object]) -> dict[str, float]:
    """The operations of one call.

    torch counts nothing for the CPU's attention kernel, which does most of a tracked frame.

    Args:
        model: Whose submodules are the parts.
        call: What runs it.

    Returns:
        GFLOP (a multiplication and an addition are two) by name of the submodule, and of all as
        "total".
    """
    formulas = {} if _CPU_ATTENTION in flop_registry else {_CPU_ATTENTION: _attention}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        call()
    by_module = {name: sum(ops.values()) / 1e9 for name, ops in counter.get_flop_counts().items()}
    parts = {name: by_module.get(type(part).__name__, 0) for name, part in model.named_children()}
    return {
        **{name: gflop for name, gflop in parts.items() if gflop},
        "total": by_module.get("Global", 0),
    }
