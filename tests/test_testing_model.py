"""The shipped model: small, in upstream's format, and it truly tracks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor

import longsam
from longsam import LongVideoPredictor
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo, iou, load_predictor

PROMPTS = ("click", "box", "mask")


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


def prompt_all(predictor: Any, video: SyntheticVideo, source: Any, target: int) -> Any:
    """Three objects of the model for one of the video, each prompted in its own way."""
    state = predictor.init_state(source)
    predictor.add_new_points_or_box(state, 0, "click", points=[video.click(0, target)], labels=[1])
    predictor.add_new_points_or_box(state, 0, "box", box=video.box(0, target))
    predictor.add_new_mask(state, 0, "mask", video.masks(0)[target])
    return state


def test_the_files_are_small() -> None:
    assert CHECKPOINT.stat().st_size <= 6e6
    package = Path(longsam.__file__).parent
    sizes = [p.stat().st_size for p in package.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sum(sizes) < 8e6


def test_the_checkpoint_has_upstreams_format() -> None:
    content = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)
    assert set(content) == {"model"}
    model = build_sam2_video_predictor(
        CONFIG, None, device="cpu", hydra_overrides_extra=list(OVERRIDES)
    )
    assert set(content["model"]) == set(model.state_dict())


@pytest.mark.parametrize("seed", [0, 1])
def test_it_follows_a_prompted_object(predictor: LongVideoPredictor, seed: int) -> None:
    """Seeds of examples/train_testing_model/evaluate.py, never trained on."""
    video = SyntheticVideo(seed, 120)
    target = seed % video.num_objects
    state = prompt_all(predictor, video, video, target)
    scores, others, empty, absent = [], [], 0, 0
    for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
        assert obj_ids == list(PROMPTS)
        masks, truth = (mask_logits[:, 0] > 0).numpy(), video.masks(frame_idx)
        if frame_idx > 0 and video.visible(frame_idx)[target]:
            scores.append(iou(masks, truth[target]))
            others.append(iou(masks[0], np.delete(truth, target, axis=0)).max())
        elif not truth[target].any():
            absent += 1
            empty += int((~masks.any(axis=(1, 2))).sum())
    for name, score in zip(PROMPTS, np.mean(scores, axis=0), strict=True):
        assert score > 0.8, name
    assert np.mean(others) < 0.1, "it follows another object than the one that was prompted"
    assert empty >= 0.8 * 3 * absent


def test_a_hidden_object_is_called_absent_and_found_again(predictor: LongVideoPredictor) -> None:
    video = SyntheticVideo(0, 10**6)
    hidden = next(
        (i, n)
        for i in range(100, 10**6, 10)
        for n in range(video.num_objects)
        if not video.masks(i)[n].any() and video.visible(i - 60)[n] and video.visible(i + 60)[n]
    )
    middle, target = hidden
    first = middle - 60
    clip = [video.frame(i) for i in range(first, middle + 61)]
    state = predictor.init_state(clip)
    predictor.add_new_mask(state, 0, 1, video.masks(first)[target])
    masks = {
        first + i: (mask_logits[0, 0] > 0).numpy()
        for i, _, mask_logits in predictor.propagate_in_video(state)
    }
    assert not masks[middle].any()
    assert iou(masks[middle + 60], video.masks(middle + 60)[target]) > 0.7


@pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")
@pytest.mark.parametrize("difficulty", [pytest.param("easy", marks=pytest.mark.slow), "hard"])
def test_ours_equals_upstream(
    predictor: LongVideoPredictor, tmp_path: Path, difficulty: str
) -> None:
    """On masks that mean something: a file, a correction, a new object, and back."""
    video = SyntheticVideo(1, 60, (96, 160), difficulty)
    video.write(tmp_path / "video.mp4")
    upstream = build_sam2_video_predictor(
        CONFIG, str(CHECKPOINT), device="cpu", hydra_overrides_extra=list(OVERRIDES)
    )
    runs: list[list[Any]] = []
    for side in (upstream, predictor):
        state = prompt_all(side, video, str(tmp_path / "video.mp4"), 0)
        steps = list(side.propagate_in_video(state, max_frame_num_to_track=40))
        side.add_new_points_or_box(state, 40, "click", points=[[30, 30]], labels=[0])
        side.add_new_points_or_box(state, 40, "new", box=[20, 20, 60, 60])
        steps += list(side.propagate_in_video(state, start_frame_idx=40))
        steps += list(side.propagate_in_video(state, reverse=True, start_frame_idx=40))
        runs.append(steps)
    assert len(runs[0]) == len(runs[1]) == 41 + 20 + 41
    for theirs, mine in zip(*runs, strict=True):
        assert theirs[:2] == mine[:2]
        assert torch.equal(theirs[2], mine[2])
