"""Unmodified SAM 2 on video of any length, at constant memory."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longsam.build import build_long_video_predictor
    from longsam.frames import LiveVideo
    from longsam.options import Autosave, Snapshots
    from longsam.predictor import LongVideoPredictor, LongVideoPredictorVOS
    from longsam.session import State
else:
    # Loaded when asked for, so that `longsam.masks` works without any SAM 2. Hidden from type
    # checkers, which would take every name for a public one.
    _MODULES = {
        "Autosave": "longsam.options",
        "LiveVideo": "longsam.frames",
        "LongVideoPredictor": "longsam.predictor",
        "LongVideoPredictorVOS": "longsam.predictor",
        "Snapshots": "longsam.options",
        "State": "longsam.session",
        "build_long_video_predictor": "longsam.build",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(_MODULES[name]), name)
        return value


__all__ = [
    "Autosave",
    "LiveVideo",
    "LongVideoPredictor",
    "LongVideoPredictorVOS",
    "Snapshots",
    "State",
    "build_long_video_predictor",
]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
