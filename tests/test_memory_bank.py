"""Objects known from other videos, and prompts that stay bounded."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

from longsam import LongVideoPredictor
from longsam.testing import SyntheticVideo, iou, load_predictor


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


VIDEO = SyntheticVideo(3, 10_000)


def clip(first: int, count: int) -> list[np.ndarray]:
    return [VIDEO.frame(i) for i in range(first, first + count)]


def save(
    predictor: LongVideoPredictor, path: Path, first: int, objects: dict[Any, int], **options: Any
) -> None:
    """A bank of objects that were prompted with their masks on one frame."""
    state = predictor.init_state(clip(first, 1))
    for obj_id, number in objects.items():
        predictor.add_new_mask(state, 0, obj_id, VIDEO.masks(first)[number])
    predictor.save_memory_bank(state, path, **options)


def score(steps: Any, first: int, objects: dict[Any, int]) -> float:
    scores = []
    for frame_idx, obj_ids, mask_logits in steps:
        for obj_id, mask in zip(obj_ids, mask_logits[:, 0] > 0, strict=True):
            number = objects[obj_id]
            if VIDEO.visible(first + frame_idx)[number]:
                scores.append(iou(mask, VIDEO.masks(first + frame_idx)[number]))
    return float(np.mean(scores))


def all_visible(after: int) -> int:
    """A frame from which on all objects show for 30 frames."""
    return next(
        i for i in range(after, 10_000, 5) if all(VIDEO.visible(i + k).all() for k in (0, 15, 29))
    )


def test_a_new_video_starts_knowing_the_objects(
    predictor: LongVideoPredictor, tmp_path: Path
) -> None:
    objects = {"first": 0, 7: 1}
    save(predictor, tmp_path / "bank.pt", 0, objects)
    first = all_visible(700)
    state = predictor.init_state(clip(first, 30), memory_bank=tmp_path / "bank.pt")
    steps = list(predictor.propagate_in_video(state))
    assert [step[0] for step in steps] == list(range(30))
    assert steps[0][1] == ["first", 7]
    assert score(steps, first, objects) > 0.8
    usage = predictor.memory_usage(state)
    assert usage["memory_features"]["cpu"] > 0


def test_banks_are_merged_with_each_other_and_with_new_prompts(
    predictor: LongVideoPredictor, tmp_path: Path
) -> None:
    second = all_visible(300)
    save(predictor, tmp_path / "a.pt", 0, {"a": 0, "b": 1}, obj_ids=["a"])
    save(predictor, tmp_path / "b.pt", second, {"a": 0, "b": 1})
    first = all_visible(900)
    state = predictor.init_state(
        clip(first, 30), memory_bank=[tmp_path / "a.pt", tmp_path / "b.pt"]
    )
    assert state["obj_ids"] == ["a", "b"]
    assert sorted(state["output_dict_per_obj"][0]["cond_frame_outputs"]) == [-2, -1]
    number = VIDEO.num_objects - 1
    predictor.add_new_mask(state, 4, "new", VIDEO.masks(first + 4)[number])
    predictor.add_new_mask(state, 4, "a", VIDEO.masks(first + 4)[0])
    steps = list(predictor.propagate_in_video(state, start_frame_idx=4))
    assert score(steps, first, {"a": 0, "b": 1, "new": number}) > 0.8
    predictor.save_state(state, tmp_path / "state.pt")
    loaded = predictor.load_state(tmp_path / "state.pt", clip(first, 30))
    again = [list(predictor.propagate_in_video(s, 10)) for s in (state, loaded)]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(*again, strict=True))
    predictor.remove_object(state, "a")
    predictor.reset_state(state)
    assert state["obj_ids"] == []


def test_bad_banks(predictor: LongVideoPredictor, ours: Any, mp4: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank.pt"
    state = predictor.init_state(clip(0, 1))
    with pytest.raises(RuntimeError, match="No input points or masks"):
        predictor.save_memory_bank(state, bank)
    predictor.add_new_mask(state, 0, 1, VIDEO.masks(0)[0])
    with pytest.raises(ValueError, match="There is no object 2; there are"):
        predictor.save_memory_bank(state, bank, obj_ids=[2])
    predictor.save_memory_bank(state, bank)
    with pytest.raises(ValueError, match="was saved with another model"):
        ours.init_state(mp4, memory_bank=bank)
    with pytest.raises(FileNotFoundError, match="no saved memory bank at"):
        ours.init_state(mp4, memory_bank=tmp_path / "none.pt")
    with pytest.raises(ValueError, match="is not a state that longsam has saved"):
        predictor.load_state(bank)


def test_prompts_stay_bounded(checkpoint: Path, mp4: Path) -> None:
    ours = models.build_ours(checkpoint)
    free, bounded = (
        ours.init_state(mp4, max_prompt_frames=limit, memory_window=16) for limit in (None, 3)
    )
    frames = range(2, 98)
    sizes: dict[str, list[int]] = {"free": [], "bounded": []}
    for start in frames[::3]:
        for name, state in (("free", free), ("bounded", bounded)):
            ours.add_new_points_or_box(state, start, 1, box=[30, 20, 110, 90])
            for _ in ours.propagate_in_video(state, start, max_frame_num_to_track=2):
                pass
            held = ours.memory_usage(state)
            sizes[name].append(held["memory_features"]["cpu"] + held["prompts"]["cpu"])
    conditioning = bounded["output_dict_per_obj"][0]["cond_frame_outputs"]
    assert next(iter(conditioning)) == 2
    assert len(conditioning) == 3
    assert len(bounded["point_inputs_per_obj"][0]) == 3
    assert sizes["bounded"][-1] == sizes["bounded"][-10], "memory grows with prompts"
    assert sizes["free"][-1] > sizes["free"][-10]


def test_prompts_that_lie_ahead_are_kept(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4, max_prompt_frames=2)
    for frame_idx in (0, 10, 20, 30, 40):
        ours.add_new_points_or_box(state, frame_idx, 1, box=[30, 20, 110, 90])
    for frame_idx, _, _ in ours.propagate_in_video(state):
        conditioning = set(state["output_dict_per_obj"][0]["cond_frame_outputs"])
        passed = {f for f in conditioning if f <= frame_idx}
        assert {f for f in (10, 20, 30, 40) if f > frame_idx} <= conditioning
        assert len(passed) <= 2
        assert 0 in passed
    assert conditioning == {0, 40}


def test_as_upstream_while_there_are_no_more_prompts_than_that(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    masks = []
    for limit in (None, 2):
        state = ours.init_state(mp4, max_prompt_frames=limit)
        ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
        ours.add_new_points_or_box(state, 20, 1, points=[[60, 50]], labels=[1])
        masks.append([m for _, _, m in ours.propagate_in_video(state)])
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3"])
def test_bad_limits(ours: LongVideoPredictor, mp4: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_prompt_frames is"):
        ours.init_state(mp4, max_prompt_frames=wrong)
