"""A detector of everything on a frame, made from the tracking model: no other is needed."""

import inspect
import warnings
from typing import Any

import numpy as np
import torch

from longsam import LongVideoPredictor, LongVideoPredictorVOS
from longsam.detections.detections import Detections, Detector
from longsam.frames import Frame

MOST_SHARED = 0.5
"""If one mask has more than this share of its area on another, one of the two is left out."""


def everything(
    predictor: LongVideoPredictor,
    *,
    min_area: float = 0.001,
    max_area: float = 0.5,
    points_per_side: int | None = 32,
    pred_iou_thresh: float = 0.8,
    stability_score_thresh: float = 0.95,
    **options: Any,
) -> Detector:
    """A detector that finds the things on a frame without knowing what they are.

        detector = everything(predictor)
        for step in track_detections(predictor, video, detector, detect_every=30):
            ...

    It is upstream's `SAM2AutomaticMaskGenerator` on the weights of the predictor: it prompts with a
    grid of points and keeps the masks that are sure and stable. Where masks overlap, like those of
    a thing and its part, the best one is kept.

    Args:
        predictor: The predictor that tracks; not built with `vos_optimized=True`.
        min_area: Smaller masks are left out; a share of the frame.
        max_area: Larger ones too: that is background.
        points_per_side: Of the grid; None if `point_grids` is given. Its square is the number of
            points prompted on each frame, which takes longer than tracking it: see `detect_every`.
            Small things need more points.
        pred_iou_thresh: Masks with a lower predicted IoU are left out. This and the next are
            upstream's defaults, for the released models.
        stability_score_thresh: Masks are left out if raising the threshold of their logits from -1
            to 1 leaves less than this share of their area.
        **options: Others of `SAM2AutomaticMaskGenerator`, such as `crop_n_layers`.

    Returns:
        To be called with a frame (uint8 RGB, height x width x 3). It gives `Detections` with masks;
        a score is the predicted IoU times the stability, and there are no labels.

    Raises:
        ValueError: An area is not a share, upstream has no such option or refuses it, or the
            predictor is compiled.
    """
    # Not at the top: the wrapper explains what to do without sam2.
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    if isinstance(predictor, LongVideoPredictorVOS):
        raise ValueError(
            "everything needs a predictor without vos_optimized=True, which compiles for one "
            "shape. Build another predictor for it; the weights are the same."
        )
    if not 0 <= min_area < max_area <= 1:
        raise ValueError(
            f"min_area is {min_area!r} and max_area {max_area!r}; they are shares of the frame, "
            "0 <= min_area < max_area <= 1."
        )
    given = {
        "points_per_side": points_per_side,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        **options,
    }
    known = inspect.signature(SAM2AutomaticMaskGenerator).parameters.keys()
    unknown = sorted(given.keys() - known | given.keys() & {"model", "output_mode", "kwargs"})
    if unknown:  # upstream accepts anything silently
        raise ValueError(f"{', '.join(unknown)} is not an option of everything; see its docstring.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.script")  # upstream's
            generator = SAM2AutomaticMaskGenerator(predictor, **given, output_mode="binary_mask")
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"SAM2AutomaticMaskGenerator refuses {given}: {error}") from error
    side = predictor.image_size
    # Upstream hard-codes those for 1024:
    # https://github.com/facebookresearch/sam2/blob/2b90b9f5ceec907a1c18123530e92e794ad901a4/sam2/sam2_image_predictor.py#L62
    generator.predictor._bb_feat_sizes = [(side // n, side // n) for n in (4, 8, 16)]

    def detect(frame: Frame) -> Detections:
        with torch.inference_mode():
            found = generator.generate(frame)
        least, most = (share * frame.shape[0] * frame.shape[1] for share in (min_area, max_area))
        found = [one for one in found if max(least, 1) <= one["area"] <= most]
        found.sort(key=_score, reverse=True)
        found = _apart(found)
        scores = [min(_score(one), 1.0) for one in found]
        masks = np.zeros((len(found), *frame.shape[:2]), bool)
        for mask, one in zip(masks, found, strict=True):
            mask[:] = one["segmentation"]
        return Detections(None, scores, masks=masks)

    return detect


def _score(found: dict[str, Any]) -> float:
    """In tests either one alone preferred parts of things."""
    return float(found["predicted_iou"] * found["stability_score"])


def _apart(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was found, best first, without what lies on another kept one."""
    kept: list[dict[str, Any]] = []
    for one in found:
        x0, y0, width, height = (int(side) for side in one["bbox"])  # of inclusive corners
        at = slice(y0, y0 + height + 1), slice(x0, x0 + width + 1)
        part = one["segmentation"][at]
        if all(
            np.count_nonzero(part & other["segmentation"][at])
            <= MOST_SHARED * min(one["area"], other["area"])
            for other in kept
        ):
            kept.append(one)
    return kept
