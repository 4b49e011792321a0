"""Checks of policies' options."""

import math
from numbers import Integral, Real
from typing import Any


def check_number(policy: Any, name: str, least: float = -math.inf, most: float = math.inf) -> None:
    """Refuse all but finite numbers in a range, and convert the value to Python's float.

    Raises:
        ValueError: It is something else.
    """
    value = getattr(policy, name)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        allowed = "a number" if math.isinf(least) else f"a number from {least:g} on"
        if not math.isinf(most):
            allowed = f"a number from {least:g} to {most:g}"
        raise ValueError(f"{type(policy).__name__}({name}) is {value!r}; it must be {allowed}.")
    object.__setattr__(policy, name, float(value))


def check_fraction(policy: Any, name: str) -> None:
    """Refuse all but numbers from 0 to 1.

    Raises:
        ValueError: It is something else.
    """
    check_number(policy, name, 0.0, 1.0)


def check_whole(policy: Any, name: str, least: int, most: int | None = None) -> None:
    """Refuse all but whole numbers in a range.

    Raises:
        ValueError: It is something else.
    """
    value = getattr(policy, name)
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(
            f"{type(policy).__name__}({name}) is {value!r}; it must be a whole number, {allowed}."
        )
    object.__setattr__(policy, name, int(value))
