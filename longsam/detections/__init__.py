"""Prompts from a detector: objects are found, followed, corrected and retired without a click.

    for frame_idx, obj_ids, mask_logits, labels in track_detections(predictor, video, detector):
        ...

Needs scipy, the extra `detections`.
"""

from longsam.detections.detections import Detections, as_detections
from longsam.detections.run import resume_detections, track_detections

__all__ = ["Detections", "as_detections", "resume_detections", "track_detections"]
