"""Policies by name, and as saves describe them."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from longsam.policies.dam4sam import Dam4Sam
from longsam.policies.protocol import MemoryPolicy
from longsam.policies.sam2long import Sam2Long
from longsam.policies.samurai import Samurai
from longsam.policies.upstream import Upstream

POLICIES: Mapping[str, type[Upstream]] = {
    policy.name: policy for policy in (Upstream, Samurai, Dam4Sam, Sam2Long)
}
"""The policies that come with longsam."""


def named(policy: MemoryPolicy | str | None) -> MemoryPolicy | None:
    """The policy that was asked for.

    Raises:
        ValueError: There is no policy of this name, or it is something else.
    """
    if policy is None:
        return None
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(
                f"memory_policy is {policy!r}; there are {', '.join(map(repr, POLICIES))}, None "
                "for upstream's rule, and policies of your own (longsam.policies)."
            )
        return POLICIES[policy]()
    if isinstance(policy, type) or not isinstance(policy, MemoryPolicy):
        raise ValueError(
            f"memory_policy is {policy!r}; it must be a name, None, or an instance of a class with "
            "the members of longsam.policies.MemoryPolicy, such as a subclass of "
            "longsam.policies.Upstream."
        )
    return policy


def saved_with(saved: Any, given: MemoryPolicy | None) -> MemoryPolicy | None:
    """The policy of a saved session; its name and options are not trusted.

    Args:
        saved: The save's description of it; None is upstream's rule.
        given: The policy that the caller gives; None leaves it to the save.

    Raises:
        ValueError: The save was made with a policy other than the one given, or none is given and
            the save's does not come with longsam.
        TypeError: It is not in the form in which policies are saved.
    """
    if saved is None:
        if given is not None:
            raise ValueError(
                f"it was made with memory_policy=None, not with {_described(given)}; load it "
                "without memory_policy"
            )
        return None
    name, options = saved["name"], saved["options"]
    if not isinstance(name, str) or not isinstance(options, dict):
        raise TypeError(f"the policy {saved!r}")
    if given is not None:
        if (given.name, dict(given.options())) != (name, options):
            raise ValueError(
                f"it was made with the policy {name} {options}, not with {_described(given)}"
            )
        return given
    if name not in POLICIES:
        raise ValueError(
            f"it was made with the policy {name}, which does not come with longsam: give it, "
            "load_state(..., memory_policy=...)"
        )
    for option, value in options.items():
        if not isinstance(option, str) or not isinstance(value, (Real, str, type(None))):
            raise TypeError(f"the option {option}={value!r} of the policy {name}")
    return POLICIES[name](**options)


def _described(policy: MemoryPolicy) -> str:
    return f"{policy.name} {dict(policy.options())}"
