"""Unmodified SAM 2 on video of any length, at constant memory."""

from longsam.build import build_long_video_predictor
from longsam.frames import LiveVideo
from longsam.options import Autosave, Snapshots
from longsam.predictor import LongVideoPredictor, LongVideoPredictorVOS
from longsam.session import State

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
