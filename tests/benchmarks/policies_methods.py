"""The memory policies that policies.py compares, and the code of each.

`Spaced` is that of docs/policies.md.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longsam.policies import History, Memo, Recall, TrackedFrame, Upstream, named


class LowPresence(Upstream):
    """Upstream's rule with SAMURAI's threshold of presence."""

    name = "low_presence"
    presence = -1.0


@dataclass(frozen=True)
class Spaced(Upstream):
    """Memories some frames apart, of frames that show the object."""

    name = "spaced"
    stride: int = 2  # how many frames memories are apart
    memory_iou: float = 0.5  # the predicted IoU that a memory must exceed; the last one need not
    presence: float = 0.5  # the object score above which the object counts as present

    def start(self) -> Memo:
        return {"spaced": [], "shown": []}

    def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
        now = frame.frame_idx
        spaced, shown = frame.earlier(memo["spaced"]), frame.earlier(memo["shown"])
        if not frame.is_prompt and frame.object_score > self.presence:
            shown = [*shown, now][-15:]
            is_apart = not spaced or abs(now - spaced[-1]) >= self.stride
            if is_apart and frame.predicted_iou > self.memory_iou:
                spaced = [*spaced, now][-7:]
        return {"spaced": spaced, "shown": shown}

    def recall(self, memo: Memo, history: History) -> Recall:
        last = memo["shown"][-1:]
        frames = [f for f in memo["spaced"] if f not in last] + last
        read = [f for f in frames if f not in history.conditioning][-history.num_memories :]
        recent = [history.back(distance) for distance in range(1, history.num_pointers + 1)]
        pointers = [history.get(f) if f in memo["shown"] else None for f in recent]
        return Recall(dict(history.conditioning), [history.get(f) for f in read], pointers)

    def holds(self, memo: Memo) -> set[int]:
        return {*memo["spaced"], *memo["shown"][-1:]}


METHODS: dict[str, Any] = {
    "none": None,
    "low_presence": LowPresence(),
    "samurai": "samurai",
    "dam4sam": "dam4sam",
    "sam2long": "sam2long",
    "spaced": Spaced(),
}


def code_of(method: str) -> str:
    """A hash of the modules that a policy is made of, those it imports among them."""
    policy = named(METHODS[method])
    waiting = [] if policy is None else [cls.__module__ for cls in type(policy).__mro__]
    modules: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name.startswith("longsam.policies.") and name not in modules:
            modules.add(name)
            waiting += [
                getattr(value, "__module__", None) or ""
                for value in vars(sys.modules[name]).values()
            ]
    found = hashlib.sha256()
    for name in sorted(modules):
        found.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return found.hexdigest()[:16]
