"""For tests and evaluations: a SAM 2 small enough to ship, videos with known masks, J and F."""

from longsam.testing.davis import DavisVideo, davis_videos
from longsam.testing.evaluation import evaluate, score_masks
from longsam.testing.model import CHECKPOINT, CONFIG, OVERRIDES, load_predictor
from longsam.testing.results import ObjectScore
from longsam.testing.scores import boundary_f, iou
from longsam.testing.synthetic_video import SyntheticVideo

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "OVERRIDES",
    "DavisVideo",
    "ObjectScore",
    "SyntheticVideo",
    "boundary_f",
    "davis_videos",
    "evaluate",
    "iou",
    "load_predictor",
    "score_masks",
]
