"""Warnings that point at the user's own line, however deep in the library they are raised."""

import sys
import warnings

_PASSED_THROUGH = frozenset({"longsam", "sam2", "torch", "contextlib", "concurrent", "threading"})
"""Packages whose calls lie between the user's line and the warning."""


def warn(message: str) -> None:
    """Issue a UserWarning that points at the first caller outside the library.

    One of the library's own threads has no such caller; the warning then points at "sys:1".

    Args:
        message: What is wrong, and what to do.
    """
    level, frame = 1, sys._getframe(0)
    while frame is not None and _package(frame.f_globals.get("__name__")) in _PASSED_THROUGH:
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=level)


def _package(module: object) -> str:
    return str(module).partition(".")[0]
