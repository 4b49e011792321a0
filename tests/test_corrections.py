"""Corrections that hold, and warnings of those that will not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import test_exact
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from test_exact import click

from longsam import LongVideoPredictor, Snapshots

AS_COND = "++model.add_all_frames_to_correct_as_cond=true"


@pytest.fixture(scope="module")
def conditioning(checkpoint: Path) -> SAM2VideoPredictor:
    """Upstream, built to make every correction a conditioning frame."""
    return models.build_upstream(checkpoint, AS_COND)


def corrected_on_a_prompted_frame(p: Any, state: Any) -> Iterator[Any]:
    yield click(p, state)
    yield test_exact.box(p, state, 0, 2)
    yield from p.propagate_in_video(state, max_frame_num_to_track=20)
    yield click(p, state, points=[[20, 20]], labels=[0], clear_old_points=False)
    yield click(p, state, points=[[30, 20]], labels=[0], clear_old_points=False)
    yield test_exact.mask(p, state, 12, 2)
    yield click(p, state, 12, 1)
    yield click(p, state, 12, 1, points=[[70, 70]], clear_old_points=False)
    yield from p.propagate_in_video(state, max_frame_num_to_track=40)
    yield p.clear_all_prompts_in_frame(state, 12, 1)
    yield from p.propagate_in_video(state, start_frame_idx=12, max_frame_num_to_track=40)
    yield from p.propagate_in_video(state, start_frame_idx=12, reverse=True)


QUICK = {"correction_kept_while_tracking_on", "forward_then_reverse_from_the_middle"}


@pytest.mark.parametrize(
    "calls",
    [
        *(
            calls if calls.__name__ in QUICK else pytest.param(calls, marks=pytest.mark.slow)
            for calls in test_exact.SCENARIOS
        ),
        corrected_on_a_prompted_frame,
    ],
    ids=lambda calls: calls.__name__,
)
def test_equal_to_upstream_with_its_option(
    calls: Any, conditioning: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    theirs = test_exact.outputs(conditioning, mp4, calls)
    options = {"memory_window": 100} if calls is corrected_on_a_prompted_frame else {}
    mine = test_exact.outputs(ours, mp4, calls, corrections="condition", **options)
    test_exact.assert_equal(theirs, mine)


def corrected(p: Any, state: Any, frame_idx: int, **options: Any) -> list[Any]:
    """Track, correct, and track from 20 on; what the last pass gives."""
    click(p, state)
    list(p.propagate_in_video(state, max_frame_num_to_track=30))
    click(p, state, frame_idx, points=[[100, 70]])
    return [
        (frame_idx, list(obj_ids), masks.clone())
        for frame_idx, obj_ids, masks in p.propagate_in_video(state, 20, 30, **options)
    ]


def test_with_batched_objects(
    conditioning: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    theirs = corrected(conditioning, conditioning.init_state(str(mp4)), 25)
    mine = corrected(ours, ours.init_state(mp4, corrections="condition", batch_objects=True), 25)
    for (frame_idx, _, a), (_, _, b) in zip(theirs, mine, strict=True):
        assert (a - b).abs().max() < 1e-5, frame_idx


def test_two_states_of_one_model(
    upstream: SAM2VideoPredictor,
    conditioning: SAM2VideoPredictor,
    ours: LongVideoPredictor,
    mp4: Path,
) -> None:
    """By turns, each as if it were alone; the model's own option stays."""

    def calls(p: Any, state: Any) -> Iterator[Any]:
        yield click(p, state)
        yield from p.propagate_in_video(state, max_frame_num_to_track=20)
        yield click(p, state, 18, points=[[100, 70]])
        yield from p.propagate_in_video(state, 19, 20)

    states = [ours.init_state(mp4), ours.init_state(mp4, corrections="condition")]
    predictors = [upstream, conditioning]
    runs = [calls(ours, state) for state in states]
    runs += [calls(p, p.init_state(str(mp4))) for p in predictors]
    differ = 0
    for steps in zip(*runs, strict=True):
        (_, _, memory), (_, _, condition), (_, _, as_memory), (_, _, as_condition) = steps
        assert torch.equal(memory, as_memory)
        assert torch.equal(condition, as_condition)
        differ += not torch.equal(memory, condition)
        assert ours.add_all_frames_to_correct_as_cond is False
    assert differ > 10


def test_a_model_that_conditions_anyway(checkpoint: Path, mp4: Path) -> None:
    """Its own option stays, whatever a session says, and no warning is needed."""
    theirs = models.build_upstream(checkpoint, AS_COND)
    mine = models.build_ours(checkpoint, AS_COND)
    assert mine.add_all_frames_to_correct_as_cond is True
    expected = corrected(theirs, theirs.init_state(str(mp4)), 25)
    test_exact.assert_equal(expected, corrected(mine, mine.init_state(mp4), 25))


def test_it_is_saved(
    conditioning: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    theirs = conditioning.init_state(str(mp4))
    expected = corrected(conditioning, theirs, 25)[-1]
    state = ours.init_state(mp4, corrections="condition", snapshots=Snapshots(9))
    click(ours, state)
    list(ours.propagate_in_video(state, max_frame_num_to_track=30))
    ours.save_state(state, tmp_path / "state.pt")
    with pytest.warns(UserWarning, match="does not say where its snapshots are"):
        state = ours.load_state(tmp_path / "state.pt")
    click(ours, state, 25, points=[[100, 70]])
    mine = list(ours.propagate_in_video(state, 20, 30))[-1]
    assert torch.equal(mine[2], expected[2])


@pytest.mark.slow
def test_going_back_far(
    conditioning: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    """Corrections far back, each held by the passes that come after."""
    theirs = conditioning.init_state(str(mp4))
    state = ours.init_state(mp4, corrections="condition", snapshots=Snapshots(10))
    for p, s in ((conditioning, theirs), (ours, state)):
        click(p, s)
        list(p.propagate_in_video(s))
    for frame_idx in (70, 25):
        ours.rewind(state, frame_idx)
        for p, s in ((conditioning, theirs), (ours, state)):
            click(p, s, frame_idx, points=[[100, 70]])
        expected = list(conditioning.propagate_in_video(theirs, frame_idx))
        mine = list(ours.propagate_in_video(state, frame_idx))
        test_exact.assert_equal(expected, mine)


@pytest.mark.parametrize("wrong", ["cond", None, True, 1])
def test_bad_values(wrong: Any, ours: LongVideoPredictor, mp4: Path) -> None:
    with pytest.raises(ValueError, match=f'corrections is {wrong!r}; it must be "memory" or'):
        ours.init_state(mp4, corrections=wrong)


# Warnings; everywhere else in the tests one is an error ------------------------------------------


def tracked(ours: LongVideoPredictor, mp4: Path, **options: Any) -> Any:
    state = ours.init_state(mp4, memory_window=100, **options)
    click(ours, state)
    list(ours.propagate_in_video(state, max_frame_num_to_track=30))
    return state


@pytest.mark.parametrize(("start", "reverse"), [(0, False), (25, False), (None, False), (28, True)])
def test_a_pass_over_a_correction_warns_once(
    start: int | None, reverse: bool, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    state = tracked(ours, mp4)
    click(ours, state, 25)
    after = 24 if reverse else 26
    with pytest.warns(UserWarning, match="corrections") as caught:
        next(ours.propagate_in_video(state, start, reverse=reverse))
    (warning,) = (one for one in caught if "corrections" in str(one.message))
    message = str(warning.message)
    assert "covers the corrections of object 1 on frame 25" in message
    assert f"(start_frame_idx={after})" in message
    assert 'corrections="condition"' in message
    assert warning.filename == __file__
    next(ours.propagate_in_video(state, start, reverse=reverse))  # told already
    ours.save_state(state, tmp_path / "state.pt")
    next(ours.propagate_in_video(ours.load_state(tmp_path / "state.pt"), 20))
    list(ours.propagate_in_video(state, 20, 20))
    click(ours, state, 25)  # another one
    with pytest.warns(UserWarning, match="on frame 25"):
        next(ours.propagate_in_video(state, 25))


def test_passes_that_replace_no_correction_do_not_warn(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    state = tracked(ours, mp4)
    click(ours, state, 25)
    list(ours.propagate_in_video(state, 26, 10))  # after it
    list(ours.propagate_in_video(state, 24, 10, reverse=True))
    list(ours.propagate_in_video(state, 20, 4))  # ends before it
    click(ours, state, 80)  # not tracked yet: a conditioning frame
    list(ours.propagate_in_video(state, 78))
    ours.clear_all_prompts_in_frame(state, 25, 1)  # taken back
    list(ours.propagate_in_video(state, 25, 3))
    ours.reset_state(state)
    click(ours, state)
    list(ours.propagate_in_video(state))
    list(ours.propagate_in_video(state, 0, reverse=True))  # tracks nothing


def test_a_saved_correction_warns_too(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = tracked(ours, mp4)
    click(ours, state, 25)
    ours.save_memory_bank(state, tmp_path / "bank.pt")  # takes it up
    ours.save_state(state, tmp_path / "state.pt")
    with pytest.warns(UserWarning, match="object 1 on frame 25"):
        next(ours.propagate_in_video(ours.load_state(tmp_path / "state.pt"), 20))


def test_many_are_told_at_once(ours: LongVideoPredictor, mp4: Path) -> None:
    state = tracked(ours, mp4)
    for frame_idx in range(20, 27):
        click(ours, state, frame_idx)
    with pytest.warns(UserWarning, match=r"on frame 24 and 2 more: .*\(start_frame_idx=27\)"):
        next(ours.propagate_in_video(state, 0))


def test_a_correction_on_a_conditioning_frame_is_lost_and_said_so(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    kept = []
    for options in ({}, {"corrections": "condition"}):
        state = tracked(ours, mp4, **options)
        first = next(ours.propagate_in_video(state))[2].clone()
        mask = np.zeros((120, 160), bool)
        mask[10:30, 10:30] = True
        ours.add_new_mask(state, 0, 1, mask)
        if not options:
            with pytest.warns(UserWarning, match="on frame 0, which is a conditioning frame"):
                again = next(ours.propagate_in_video(state))[2]
        else:
            again = next(ours.propagate_in_video(state))[2]
        kept.append(torch.equal(again, first))
    assert kept == [True, False]
