"""Warnings that point at the caller's own line, whichever way our code was reached."""

import sys
import warnings

_PASSED_OVER = ("longsam", "sam2", "torch", "contextlib", "concurrent")


def warn(message: str) -> None:
    """Issue a UserWarning at the first caller outside this library, sam2 and torch."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _PASSED_OVER:
            break
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
