"""Unmodified SAM 2 on video of any length, at constant memory."""

from longsam.build import build_long_video_predictor
from longsam.frames import LiveVideo
from longsam.predictor import LongVideoPredictor, LongVideoPredictorVOS

__all__ = [
    "LiveVideo",
    "LongVideoPredictor",
    "LongVideoPredictorVOS",
    "build_long_video_predictor",
]
__version__ = "0.1.0"
