"""For tests: a SAM 2 that tracks and is small enough to ship, and videos with known answers."""

from longsam.testing.model import CHECKPOINT, CONFIG, OVERRIDES, load_predictor
from longsam.testing.scores import iou
from longsam.testing.synthetic_video import SyntheticVideo

__all__ = ["CHECKPOINT", "CONFIG", "OVERRIDES", "SyntheticVideo", "iou", "load_predictor"]
