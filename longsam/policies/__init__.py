"""Memory policies: which memories a frame reads, and which candidate mask is taken.

`init_state(..., memory_policy="samurai")`, or `memory_policy=Samurai(motion_weight=0.2)`.
"""

from longsam.policies.dam4sam import Dam4Sam
from longsam.policies.follower import Follower
from longsam.policies.named import POLICIES, named, saved_with
from longsam.policies.protocol import (
    Candidates,
    History,
    Memo,
    MemoryPolicy,
    Recall,
    TrackedFrame,
)
from longsam.policies.sam2long import Sam2Long
from longsam.policies.samurai import Samurai
from longsam.policies.upstream import Upstream

__all__ = [
    "POLICIES",
    "Candidates",
    "Dam4Sam",
    "Follower",
    "History",
    "Memo",
    "MemoryPolicy",
    "Recall",
    "Sam2Long",
    "Samurai",
    "TrackedFrame",
    "Upstream",
    "named",
    "saved_with",
]
