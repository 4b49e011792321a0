"""The memory policies that policies.py compares, and the code of each."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from longsam.policies import Upstream, named


class LowPresence(Upstream):
    """Upstream's rule with SAMURAI's threshold of presence."""

    name = "low_presence"
    presence = -1.0


METHODS: dict[str, Any] = {
    "none": None,
    "low_presence": LowPresence(),
    "samurai": "samurai",
    "dam4sam": "dam4sam",
    "sam2long": "sam2long",
    "spaced": "spaced",
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
