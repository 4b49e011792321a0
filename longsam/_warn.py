"""Warnings that point at the user's own line, however deep inside the library they come from."""

import sys
import warnings

_PASSED_THROUGH = frozenset({"longsam", "sam2", "torch", "contextlib", "concurrent", "threading"})
"""Packages whose calls lie between the user's line and the warning."""


def warn(message: str) -> None:
    """Issue a UserWarning whose place is the first caller outside the library.

    A thread of the library's own has no such caller; the place is then Python's "sys:1".

    Args:
        message: What is the matter, and what to do.
    """
    level, frame = 1, sys._getframe(0)
    while frame is not None and _package(frame.f_globals.get("__name__")) in _PASSED_THROUGH:
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=level)


def _package(module: object) -> str:
    return str(module).partition(".")[0]
