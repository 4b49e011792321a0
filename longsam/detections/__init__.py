"""Prompts from a detector: objects are found, tracked, corrected and retired without a click.

    for frame_idx, obj_ids, mask_logits, labels in track_detections(predictor, video, detector):
        ...

A detector returns boxes or masks; `everything(predictor)` is one that needs no other model. Needs
scipy, the extra `detections`.
"""

from longsam.detections.detections import Detections, as_detections
from longsam.detections.everything import everything
from longsam.detections.run import resume_detections, track_detections

__all__ = [
    "Detections",
    "as_detections",
    "everything",
    "resume_detections",
    "track_detections",
]
