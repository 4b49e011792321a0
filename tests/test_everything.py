"""Detectors that give masks, and the one that is made of the model that tracks."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

from longsam import LongVideoPredictor
from longsam.detections import Detections, as_detections, everything, track_detections
from longsam.detections.detections import usable
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo, iou, load_predictor

POINTS = {"points_per_side": 12, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
"""Upstream's default thresholds are for the released models: the testing one is less sure."""


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


class Masks:
    """A detector that knows the true masks; asked on every nth frame, in order."""

    def __init__(self, video: SyntheticVideo, every: int, shift: int = 0):
        self.video, self.every, self.shift, self.calls = video, every, shift, 0

    def __call__(self, frame: np.ndarray) -> Any:
        i = self.calls * self.every
        self.calls += 1
        assert np.array_equal(frame, self.video.frame(i))
        shown = np.flatnonzero(self.video.visible(i))
        masks = np.roll(self.video.masks(i)[shown], self.shift if i else 0, axis=2)
        return Detections(labels=[f"kind {number}" for number in shown], masks=masks)


def score(video: SyntheticVideo, steps: Any) -> tuple[float, int, int]:
    """The share of visible objects that have a mask, how many were tracked, how many falsely."""
    found = shown = 0
    best: dict[Any, float] = {}
    for frame_idx, obj_ids, mask_logits, _ in steps:
        masks, truth = mask_logits[:, 0] > 0, video.masks(frame_idx)
        for number in np.flatnonzero(video.visible(frame_idx)):
            ious = [float(iou(mask, truth[number])) for mask in masks]
            for obj_id, one in zip(obj_ids, ious, strict=True):
                best[obj_id] = max(best.get(obj_id, 0.0), one)
            shown += 1
            found += max(ious, default=0.0) > 0.5
    return found / shown, len(best), sum(value <= 0.5 for value in best.values())


@pytest.mark.parametrize("seed", [4, pytest.param(7, marks=pytest.mark.slow)])
def test_everything_is_found_and_kept(predictor: LongVideoPredictor, seed: int) -> None:
    """With no prompt and no detector but the model itself."""
    video = SyntheticVideo(seed, 40)
    detector = everything(predictor, **POINTS)
    steps = track_detections(predictor, video, detector, detect_every=20, min_hits=1)
    share, num_objects, num_false = score(video, steps)
    assert share > 0.9
    assert num_objects == video.num_objects
    assert num_false == 0


def test_it_is_upstreams_generator(predictor: LongVideoPredictor) -> None:
    """The same masks as upstream's image model gives with the same weights."""
    model = build_sam2(CONFIG, str(CHECKPOINT), device="cpu", hydra_overrides_extra=list(OVERRIDES))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        generator = SAM2AutomaticMaskGenerator(model, **POINTS)
    side = model.image_size
    generator.predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    frame = SyntheticVideo(4, 1).frame(0)
    expected = generator.generate(frame)
    assert len(expected) > 3
    found = everything(predictor, **POINTS)(frame)
    assert 1 < len(found) < len(expected)
    assert found.masks is not None
    for i, mask in enumerate(found.masks):
        (same,) = (one for one in expected if np.array_equal(one["segmentation"], mask))
        assert found.scores[i] == pytest.approx(same["predicted_iou"] * same["stability_score"])
    assert list(found.scores) == sorted(found.scores, reverse=True)
    areas = found.masks.sum((1, 2))
    for i, mask in enumerate(found.masks):
        for k in range(i):
            assert (mask & found.masks[k]).sum() <= 0.5 * min(areas[i], areas[k])


def test_areas_and_thresholds(predictor: LongVideoPredictor) -> None:
    frame = SyntheticVideo(4, 1).frame(0)
    all_areas = everything(predictor, **POINTS)(frame).masks.sum((1, 2)) / frame[..., 0].size
    least, most = (all_areas.min() + all_areas.max()) / 2, all_areas.max()
    for options in ({"min_area": least}, {"max_area": least}, {"max_area": most}):
        masks = everything(predictor, **POINTS, **options)(frame).masks
        shares = masks.sum((1, 2)) / frame[..., 0].size
        assert len(shares)
        assert (shares >= options.get("min_area", 0)).all()
        assert (shares <= options.get("max_area", 1)).all()
    nothing = everything(predictor, points_per_side=4, pred_iou_thresh=0.9999)(frame)
    assert len(nothing) == 0
    assert nothing.masks is not None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"min_area": 0.5, "max_area": 0.4}, "min_area is 0.5 and max_area 0.4"),
        ({"min_area": -1}, "min_area is -1"),
        ({"max_area": 200}, "max_area 200"),
        ({"point_per_side": 3}, "point_per_side is not an option"),
        ({"output_mode": "coco_rle"}, "output_mode is not an option"),
        ({"points_per_side": None}, "SAM2AutomaticMaskGenerator refuses"),
    ],
)
def test_wrong_options(predictor: LongVideoPredictor, options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        everything(predictor, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"crop_n_layers": 1},
        {"use_m2m": True},
        {"min_mask_region_area": 20},
        {"multimask_output": False},
        {"points_per_batch": 7},
        {"points_per_side": None, "point_grids": [np.random.default_rng(0).random((30, 2))]},
    ],
    ids=lambda options: next(reversed(options)),
)
def test_upstreams_options_by_their_names(predictor: LongVideoPredictor, options: Any) -> None:
    """The same things are found."""
    frame = SyntheticVideo(4, 1, (180, 240)).frame(0)
    given = {**POINTS, "points_per_side": 8}
    expected = everything(predictor, **given)(frame).masks
    found = everything(predictor, **{**given, **options})(frame).masks
    assert len(found) == len(expected)
    ious = [max(iou(mask, other) for other in found) for mask in expected]
    assert min(ious) > 0.9


def test_a_compiled_predictor_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a predictor without vos_optimized=True"):
        everything(load_predictor(vos_optimized=True))


def test_what_is_taken_for_granted() -> None:
    source = inspect.getsource(SAM2ImagePredictor)
    assert "self._bb_feat_sizes = [" in source
    assert "self._bb_feat_sizes[::-1]" in source


# Masks from any detector --------------------------------------------------------------------------


@pytest.mark.parametrize("is_live", [False, True])
def test_masks_are_prompts(predictor: LongVideoPredictor, is_live: bool) -> None:
    """What is found on frame 0 is tracked as if its mask had been given there."""
    video = SyntheticVideo(3, 30)
    steps = list(
        track_detections(
            predictor,
            iter(video) if is_live else video,
            Masks(video, 100),
            detect_every=100,
            min_hits=1,
        )
    )
    state = predictor.init_state(video)
    for number in np.flatnonzero(video.visible(0)):
        predictor.add_new_mask(state, 0, int(number) + 1, video.masks(0)[number])
    for mine, theirs in zip(steps, predictor.propagate_in_video(state), strict=True):
        assert mine[:2] == theirs[:2]
        assert torch.equal(mine[2], theirs[2])


def test_masks_confirm_correct_and_add(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    video = SyntheticVideo(3, 60)
    steps = list(track_detections(predictor, video, Masks(video, 10), detect_every=10))
    assert all(step[1] == [] for step in steps[:10])  # detected once
    share, num_objects, num_false = score(video, steps[10:])
    assert share > 0.95
    assert (num_objects, num_false) == (video.num_objects, 0)

    prompted: list[int] = []
    add = predictor.add_new_mask

    def watched(state: Any, frame_idx: int, obj_id: int, mask: Any) -> Any:
        prompted.append(frame_idx)
        return add(state, frame_idx, obj_id, mask)

    predictor.add_new_mask = watched  # type: ignore[method-assign]
    try:
        width = video.masks(0)[0].any(0).sum()
        for shift, expected in ((0, {0}), (int(0.35 * width), {0, 10, 20})):
            prompted.clear()
            clip = [video.frame(i) for i in range(30)]
            list(
                track_detections(
                    predictor, clip, Masks(video, 10, shift), match_iou=0.2, correct_iou=0.7,
                    min_hits=1,
                )
            )  # fmt: skip
            assert set(prompted) == expected
    finally:
        predictor.add_new_mask = add  # type: ignore[method-assign]


def test_masks_tell_apart_what_boxes_cannot(predictor: LongVideoPredictor) -> None:
    """Two things of which one lies within the other's box."""
    video = SyntheticVideo(3, 2)
    height, width = video.frame(0).shape[:2]
    ring, dot = np.zeros((2, height, width), bool)
    ring[20:200, 20:200] = True
    ring[40:180, 40:180] = False
    dot[60:160, 60:160] = True
    for masks, expected in (([ring, dot], 2), ([ring, ring], 1)):
        found = Detections(masks=np.array(masks))
        steps = track_detections(predictor, video, lambda frame, f=found: f, min_hits=1)
        assert len(next(steps)[1]) == expected


MASKS = np.zeros((2, 20, 30), bool)
MASKS[0, 3:9, 4:10] = True
MASKS[1, 19, 29] = True
BOXES = [[4, 3, 10, 9], [29, 19, 30, 20]]


@pytest.mark.parametrize(
    "found",
    [
        MASKS,
        torch.from_numpy(MASKS),
        MASKS[:, None].astype(np.uint8),
        Detections(masks=list(MASKS)),
        (None, None, None, MASKS),
        (BOXES, [1, 1], None, MASKS),
        supervision.Detections(np.array(BOXES, float), MASKS),
    ],
)
def test_what_a_detector_may_give(found: Any) -> None:
    given = as_detections(found)
    assert given.boxes.tolist() == BOXES
    assert given.masks is not None
    assert given.masks.dtype == bool
    assert np.array_equal(given.masks, MASKS)
    kept = usable(given, (20, 30), 0.5)
    assert np.array_equal(kept.masks, MASKS)
    assert np.array_equal(given.only([1]).masks, MASKS[1:])


def test_empty_masks_are_ignored() -> None:
    empty = np.zeros((3, 20, 30), bool)
    empty[1, 5, 5] = True
    for given in (Detections(masks=empty), Detections([[0, 0, 9, 9]] * 3, masks=empty)):
        kept = usable(given, (20, 30), 0.5)
        assert np.array_equal(kept.masks, empty[1:2])
    assert len(as_detections(np.zeros((0, 20, 30), bool))) == 0
    assert len(usable(Detections(masks=[]), (20, 30), 0.5)) == 0


@pytest.mark.parametrize(
    "found",
    [
        np.zeros((2, 20, 30)) + 0.3,
        np.zeros((2, 3, 20, 30), bool),
        (BOXES, None, None, MASKS[:1]),
        (None, None, None, [MASKS[0], MASKS[1, 1:]]),
        (None, [1], None, MASKS),
        (None, None, None, "mask"),
        ([[4, 3, 4, 9], BOXES[1]], None, None, MASKS),
    ],
)
def test_what_it_may_not_give(found: Any) -> None:
    with pytest.raises(ValueError, match=r"Detections (are|have)|A box is"):
        as_detections(found)


def test_masks_of_another_size(predictor: LongVideoPredictor) -> None:
    steps = track_detections(predictor, SyntheticVideo(3, 9), lambda frame: MASKS, min_hits=1)
    with pytest.raises(ValueError, match="masks are 30x20 pixels, but the frame is 256x256"):
        next(steps)
