"""Objects in one batch, and several frames in one call of the image encoder."""

from pathlib import Path
from typing import Any

import models
import pytest
import torch
import videos

from longsam import LongVideoPredictor
from longsam._upstream import outputs

# What upstream does with corrections is compared, those that a pass replaces among them.
pytestmark = pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")

Step = tuple[int, list[Any], torch.Tensor]
PROMPTS = {
    1: {"points": [[60, 50]], "labels": [1]},
    "two": {"box": [30, 20, 110, 90]},
    3: {"points": [[100, 80]], "labels": [1]},
}
FRAMES = 40


@pytest.fixture
def sizes(ours: LongVideoPredictor) -> Any:
    """The batch size of every call of memory attention."""
    seen: list[int] = []
    hook = ours.memory_attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["memory"].shape[1]), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each time that objects' tensors were put together, whether they were copied."""
    seen: list[bool] = []
    stack = outputs._stack

    def watched(rows: list[torch.Tensor]) -> torch.Tensor:
        result = stack(rows)
        seen.append(result.data_ptr() != rows[0].data_ptr())
        return result

    monkeypatch.setattr(outputs, "_stack", watched)
    return seen


ROUNDING = 1e-6
"""Of logits: 1.4e-7 is the most that was seen between a batch and the loop."""


def prompted(predictor: LongVideoPredictor, video: Any, **options: Any) -> Any:
    state = predictor.init_state(video, **options)
    for obj_id, prompt in PROMPTS.items():
        predictor.add_new_points_or_box(state, 0, obj_id, **prompt)
    return state


def assert_close(mine: list[Step], expected: list[Step]) -> None:
    assert [step[:2] for step in mine] == [step[:2] for step in expected]
    for (frame_idx, _, a), (_, _, b) in zip(mine, expected, strict=True):
        assert (a - b).abs().max() < ROUNDING, frame_idx
        # With random weights a logit may lie so near 0 that rounding alone turns its sign.
        is_clear = b.abs() > ROUNDING
        assert torch.equal((a > 0) & is_clear, (b > 0) & is_clear), frame_idx
        assert is_clear.float().mean() > 0.999, frame_idx
    assert any((step[2] > 0).any() for step in expected)


def many_calls(predictor: LongVideoPredictor, state: Any) -> list[Step]:
    """Corrections, objects that come and go, other directions."""
    steps: list[Step] = []

    def track(until: int | None = None, **options: Any) -> None:
        for step in predictor.propagate_in_video(state, **options):
            steps.append((step[0], list(step[1]), step[2]))
            if step[0] == until:
                break

    track(12)
    steps.append(predictor.add_new_points_or_box(state, 10, "two", points=[[40, 40]], labels=[0]))
    track(18, start_frame_idx=10)
    predictor.add_new_points_or_box(state, 19, "late", box=[10, 10, 60, 60])
    track(24, start_frame_idx=19)
    predictor.remove_object(state, "two")
    track(30, start_frame_idx=25)
    predictor.clear_all_prompts_in_frame(state, 19, "late")
    predictor.add_new_mask(state, 31, "late", torch.ones(96, 128, dtype=torch.bool))
    track(start_frame_idx=31)
    track(start_frame_idx=31, reverse=True, max_frame_num_to_track=20)
    return steps


def test_a_batch_gives_the_masks_of_the_loop(
    ours: LongVideoPredictor, mp4: Path, sizes: list[int], copies: list[bool]
) -> None:
    loop = list(ours.propagate_in_video(prompted(ours, mp4), max_frame_num_to_track=FRAMES))
    assert set(sizes) == {1}
    sizes.clear()
    state = prompted(ours, mp4, batch_objects=True)
    batch = list(ours.propagate_in_video(state, max_frame_num_to_track=FRAMES))
    assert_close(batch, loop)
    assert sizes == [3] * FRAMES
    # Only what was prompted object by object is copied into one: features and pointers of frame 0.
    assert copies == [True, True]
    copies.clear()
    list(ours.propagate_in_video(state, start_frame_idx=FRAMES, max_frame_num_to_track=5))
    assert copies
    assert not any(copies)


@pytest.mark.parametrize("batch_objects", [pytest.param(True, marks=pytest.mark.slow), 2])
def test_whatever_is_called(
    ours: LongVideoPredictor, mp4: Path, sizes: list[int], batch_objects: Any
) -> None:
    loop = many_calls(ours, prompted(ours, mp4))
    sizes.clear()
    batch = many_calls(ours, prompted(ours, mp4, batch_objects=batch_objects))
    assert_close(batch, loop)
    assert max(sizes) == (3 if batch_objects is True else 2)


def test_an_object_that_joins_later_has_a_group_of_its_own(
    ours: LongVideoPredictor, mp4: Path, sizes: list[int]
) -> None:
    state = prompted(ours, mp4, batch_objects=True)
    ours.add_new_points_or_box(state, 5, "late", box=[10, 10, 60, 60])
    ours.add_new_points_or_box(state, 5, "too", box=[40, 10, 90, 60])
    sizes.clear()
    list(ours.propagate_in_video(state, start_frame_idx=5, max_frame_num_to_track=10))
    # On frame 5 the first three alone; then two groups a frame.
    assert sizes == [3] + [3, 2] * 10


def test_memory_is_that_of_the_loop(ours: LongVideoPredictor, mp4: Path) -> None:
    held = []
    for batch_objects in (False, True):
        state = prompted(ours, mp4, batch_objects=batch_objects)
        totals = []
        for frame_idx, _, _ in ours.propagate_in_video(state):
            totals.append(ours.memory_usage(state)["total"]["cpu"])
            if frame_idx == 60:
                break
        assert len(set(totals[40:])) == 1
        held.append(totals[-1])
    assert held[1] <= held[0]
    ours.remove_object(state, "two")
    list(ours.propagate_in_video(state, start_frame_idx=61))
    kept = state["longsam"].batches
    assert {group for group, _ in [*kept._before, *kept._now]} == {(0, 1)}, "a batch of three stays"


def test_batches_are_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = prompted(ours, mp4, batch_objects=True)
    expected = list(ours.propagate_in_video(state, max_frame_num_to_track=FRAMES))
    state = prompted(ours, mp4, batch_objects=True)
    steps = ours.propagate_in_video(state, max_frame_num_to_track=FRAMES)
    mine = [next(steps) for _ in range(20)]
    ours.save_state(state, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    rest = list(ours.resume_propagation(loaded))
    for a, b in zip([*mine, *rest], expected, strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[2], b[2])


def test_live(ours: LongVideoPredictor, sizes: list[int]) -> None:
    frames = list(videos.frames(20))
    loop = list(ours.propagate_in_video(prompted(ours, iter(frames))))
    sizes.clear()
    batch = list(ours.propagate_in_video(prompted(ours, iter(frames), batch_objects=True)))
    assert_close(batch, loop)
    assert set(sizes) == {3}


def test_models_for_which_a_batch_would_mean_something_else(checkpoint: Path, mp4: Path) -> None:
    predictor = models.build_ours(checkpoint, "++model.non_overlap_masks_for_mem_enc=true")
    with pytest.raises(ValueError, match="non_overlap_masks_for_mem_enc"):
        predictor.init_state(mp4, batch_objects=True)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, "all"])
def test_bad_batches(ours: LongVideoPredictor, mp4: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match="batch_objects is"):
        ours.init_state(mp4, batch_objects=wrong)


def test_a_bank_holds_the_objects_that_were_asked_for(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    """Not the batch that their memories lie in."""
    sizes = {}
    for batch_objects in (False, True):
        state = prompted(ours, mp4, batch_objects=batch_objects)
        list(ours.propagate_in_video(state, max_frame_num_to_track=3))
        ours.save_memory_bank(state, tmp_path / "bank.pt", obj_ids=["two"])
        sizes[batch_objects] = (tmp_path / "bank.pt").stat().st_size
        ours.remove_object(state, 1)
        ours.remove_object(state, 3)
        outputs = state["output_dict_per_obj"][0]["cond_frame_outputs"][0]
        assert outputs["maskmem_features"].untyped_storage().nbytes() == (
            outputs["maskmem_features"].nbytes
        )
    assert sizes[True] <= sizes[False]
