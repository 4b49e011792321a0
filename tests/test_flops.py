"""The operations that tests/benchmarks/speed.py counts, beside a count by hand."""

import sys
from pathlib import Path

import pytest
import torch
from sam2.modeling.sam.transformer import RoPEAttention
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import flops

NUM_QUERIES, NUM_KEYS, DIM, DIM_OF_MEMORY = 64, 128, 256, 64  # 8 x 8 cells, two memories


@pytest.fixture(scope="module")
def attention() -> torch.nn.Module:
    """One cross-attention of memory attention, as in the released models but for the cells."""
    return RoPEAttention(
        embedding_dim=DIM,
        num_heads=1,
        downsample_rate=1,
        dropout=0,
        kv_in_dim=DIM_OF_MEMORY,
        feat_sizes=(8, 8),
        rope_k_repeat=True,
    ).eval()


def test_attention_is_counted(attention: torch.nn.Module) -> None:
    query = torch.randn(1, NUM_QUERIES, DIM)
    memory = torch.randn(1, NUM_KEYS, DIM_OF_MEMORY)
    counted = flops.gflop_by_part(attention, lambda: attention(query, memory, memory))
    of_projections = 2 * (2 * NUM_QUERIES * DIM * DIM + 2 * NUM_KEYS * DIM_OF_MEMORY * DIM)
    of_attention = 2 * (2 * NUM_QUERIES * NUM_KEYS * DIM)  # by keys, then by values
    assert counted["total"] * 1e9 == of_projections + of_attention


def test_the_formula_is_needed(attention: torch.nn.Module) -> None:
    """Once torch counts the CPU's kernel itself, ours can go."""
    query = torch.randn(1, NUM_QUERIES, DIM)
    memory = torch.randn(1, NUM_KEYS, DIM_OF_MEMORY)
    with FlopCounterMode(display=False) as counter:
        attention(query, memory, memory)
    counted = flops.gflop_by_part(attention, lambda: attention(query, memory, memory))
    assert counter.get_total_flops() <= counted["total"] * 1e9
