"""What the objects of a frame have in common is computed once, with upstream's bits."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LongVideoPredictor
from longsam.policies import Sam2Long
from longsam.testing import SyntheticVideo, load_predictor

PROMPTS = {1: [60, 50], "two": [100, 80], 3: [30, 20]}
FRAMES = 12

Step = tuple[int, list[Any], torch.Tensor]


def prompted(predictor: Any, video: Any, **options: Any) -> Any:
    state = predictor.init_state(video, **options)
    for obj_id, point in PROMPTS.items():
        predictor.add_new_points_or_box(state, 0, obj_id, points=[point], labels=[1])
    return state


def tracked(predictor: Any, video: Path, **options: Any) -> list[Step]:
    state = prompted(predictor, str(video), **options)
    steps = predictor.propagate_in_video(state, max_frame_num_to_track=FRAMES - 1)
    return [(frame_idx, list(obj_ids), logits.clone()) for frame_idx, obj_ids, logits in steps]


def assert_equal(mine: list[Step], expected: list[Step]) -> None:
    assert [step[:2] for step in mine] == [step[:2] for step in expected]
    for (frame_idx, _, a), (_, _, b) in zip(mine, expected, strict=True):
        assert torch.equal(a, b), frame_idx
    shown = torch.cat([logits > 0 for _, _, logits in mine])
    assert shown.any()
    assert not shown.all()


@contextmanager
def counted(predictor: Any, layer: int) -> Iterator[list[int]]:
    """The batch size of each call of a layer's self-attention."""
    seen: list[int] = []
    hook = predictor.memory_attention.layers[layer].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["v"].shape[0]), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, [1, 1, 1]), ({"batch_objects": True}, [3]), ({"batch_objects": 2}, [2, 1])],
    ids=["one by one", "a batch", "batches of two"],
)
def test_first_self_attention_is_computed_once_a_frame(
    ours: LongVideoPredictor,
    upstream: SAM2VideoPredictor,
    jpegs: Path,
    options: dict[str, Any],
    sizes: list[int],
) -> None:
    with counted(ours, 0) as first, counted(ours, 1) as second:
        mine = tracked(ours, jpegs, **options)
    assert first == [1] * (FRAMES - 1)
    assert second == sizes * (FRAMES - 1)
    if not options:
        assert_equal(mine, tracked(upstream, jpegs))


def test_passes_that_take_turns_do_not_see_each_other(ours: LongVideoPredictor) -> None:
    """Two states are at the same frame index of videos that differ."""
    videos = [SyntheticVideo(seed, FRAMES, (120, 160)) for seed in (1, 2)]
    runs = [ours.propagate_in_video(prompted(ours, video)) for video in videos]
    turns = list(zip(*runs, strict=True))
    for number, video in enumerate(videos):
        state = prompted(ours, video)
        for (_, _, a), (_, _, b) in zip(
            (turn[number] for turn in turns), ours.propagate_in_video(state), strict=True
        ):
            assert torch.equal(a, b)


def test_hypotheses_share_it_too() -> None:
    predictor, video = load_predictor(), SyntheticVideo(2105, 60, (192, 192), "hard")
    splits = Sam2Long(certain_score=100.0)
    with predictor.init_state(video, memory_policy=splits) as state:
        predictor.add_new_mask(state, 0, 1, video.masks(0)[0])
        with counted(predictor, 0) as first, counted(predictor, 1) as second:
            for _ in predictor.propagate_in_video(state):
                pass
    assert first == [1] * 59
    assert len(second) > 2 * 59


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copied_models_share_it(ours: LongVideoPredictor, jpegs: Path, copied: Any) -> None:
    other = copied(ours)
    with counted(ours, 0) as of_the_first, counted(other, 0) as first:
        mine = tracked(other, jpegs)
    assert first == [1] * (FRAMES - 1)
    assert not of_the_first
    assert_equal(mine, tracked(ours, jpegs))


def test_nothing_is_held_between_frames(ours: LongVideoPredictor, jpegs: Path) -> None:
    state = ours.init_state(str(jpegs))
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    for _ in ours.propagate_in_video(state, max_frame_num_to_track=3):
        assert state["longsam"].attention._result is None
