"""Promise 1: with default settings the masks are bit for bit upstream's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import videos
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LongVideoPredictor

Output = tuple[int, list[Any], torch.Tensor]
Calls = Callable[[SAM2VideoPredictor, Any], Iterator[Output]]
"""What a user does with a fresh state; yields all that the predictor returns."""

# What upstream does with corrections is compared, those that a pass replaces among them.
pytestmark = pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")

REACH = 15
DISC = np.hypot(*np.mgrid[-60:60, -80:80]) < 40


def outputs(
    predictor: SAM2VideoPredictor, video: Path, calls: Calls, **options: Any
) -> list[Output]:
    state = predictor.init_state(str(video), **options)
    return [
        (frame_idx, list(obj_ids), mask_logits.clone())
        for frame_idx, obj_ids, mask_logits in calls(predictor, state)
    ]


def assert_equal(theirs: list[Output], ours: list[Output]) -> None:
    assert [(f, ids) for f, ids, _ in ours] == [(f, ids) for f, ids, _ in theirs]
    differ = [f for (f, _, a), (_, _, b) in zip(theirs, ours, strict=True) if not torch.equal(a, b)]
    assert not differ, f"masks differ at frames {differ}"


def click(predictor: Any, state: Any, frame_idx: int = 0, obj_id: Any = 1, **kwargs: Any) -> Output:
    kwargs.setdefault("points", [[60 + 20 * len(str(obj_id)), 50]])
    kwargs.setdefault("labels", [1] * len(kwargs["points"]))
    return predictor.add_new_points_or_box(state, frame_idx, obj_id, **kwargs)


def box(predictor: Any, state: Any, frame_idx: int = 0, obj_id: Any = 1) -> Output:
    return predictor.add_new_points_or_box(state, frame_idx, obj_id, box=[30, 20, 110, 90])


def mask(predictor: Any, state: Any, frame_idx: int = 0, obj_id: Any = 1) -> Output:
    return predictor.add_new_mask(state, frame_idx, obj_id, DISC)


def first(passes: Iterator[Output], count: int) -> Iterator[Output]:
    """The first few frames of a pass, which is then abandoned."""
    for _, output in zip(range(count), passes, strict=False):
        yield output


# What a user does. Each is run on upstream and on ours -------------------------------------------


def click_forward(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from p.propagate_in_video(state)


def box_forward(p: Any, state: Any) -> Iterator[Output]:
    yield box(p, state)
    yield from p.propagate_in_video(state)


def mask_forward(p: Any, state: Any) -> Iterator[Output]:
    yield mask(p, state)
    yield from p.propagate_in_video(state)


def three_objects_forward(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state, obj_id=1)
    yield box(p, state, obj_id="two")
    yield mask(p, state, obj_id=7)
    yield from p.propagate_in_video(state)


def reverse_from_the_last_frame(p: Any, state: Any) -> Iterator[Output]:
    last = state["num_frames"] - 1
    yield click(p, state, last)
    yield box(p, state, last, 2)
    yield from p.propagate_in_video(state, reverse=True)


def forward_then_reverse_from_the_middle(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state, 50)
    yield mask(p, state, 50, 2)
    yield from p.propagate_in_video(state)
    yield from p.propagate_in_video(state, reverse=True)


def back_and_forth_from_the_middle(p: Any, state: Any) -> Iterator[Output]:
    """Promise 1 (b): each pass starts where the one before started, in either direction."""
    yield click(p, state, 40)
    for reverse in (False, True, True, False, False, True):
        yield from p.propagate_in_video(state, reverse=reverse)


def back_and_forth_from_a_tracked_frame(p: Any, state: Any) -> Iterator[Output]:
    """The same, from a frame that is no conditioning frame and reads its neighbours."""
    yield click(p, state, 20)
    yield from p.propagate_in_video(state, max_frame_num_to_track=30)
    for reverse in (False, True, False):
        yield from p.propagate_in_video(state, start_frame_idx=45, reverse=reverse)


def corrected_at_the_end_then_reverse_from_the_prompt(p: Any, state: Any) -> Iterator[Output]:
    """The default start stays exact, whatever passes came between."""
    yield click(p, state, 40)
    yield from p.propagate_in_video(state)
    yield click(p, state, 96)
    yield from p.propagate_in_video(state, start_frame_idx=96)
    yield from p.propagate_in_video(state, reverse=True)


def second_pass_after_more_clicks(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from p.propagate_in_video(state)
    yield click(p, state, points=[[20, 20]], labels=[0], clear_old_points=False)
    yield click(p, state, 0, 2)
    yield from p.propagate_in_video(state)


def several_clicks(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield click(p, state, points=[[90, 70]], clear_old_points=False)
    yield click(p, state, points=[[10, 10]], labels=[0], clear_old_points=False)
    yield click(p, state, 3, 1, points=[[0.4, 0.5]], normalize_coords=False)
    yield from p.propagate_in_video(state, max_frame_num_to_track=40)


def corrections_inside_the_window(p: Any, state: Any) -> Iterator[Output]:
    """Promise 1 (a): a correction on each of the last reach + 1 frames, and on from there."""
    yield click(p, state)
    yield box(p, state, 0, 2)
    yield from p.propagate_in_video(state, max_frame_num_to_track=40)
    last = 40
    for back in (0, 1, REACH, 7):
        frame_idx = last - back
        yield click(p, state, frame_idx, 1, points=[[70, 60]])
        yield from p.propagate_in_video(state, frame_idx, max_frame_num_to_track=back + 9)
        last = frame_idx + back + 9


def correction_kept_while_tracking_on(p: Any, state: Any) -> Iterator[Output]:
    """A correction stored beside tracked frames is a prompt: it is corrected again much later."""
    yield click(p, state)
    yield from p.propagate_in_video(state, max_frame_num_to_track=30)
    yield click(p, state, 30)
    yield from p.propagate_in_video(state, start_frame_idx=31)
    yield from p.propagate_in_video(state)


def object_added_midway(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from p.propagate_in_video(state, max_frame_num_to_track=50)
    yield mask(p, state, 45, 2)
    yield from p.propagate_in_video(state, start_frame_idx=45)


def object_prompted_later_than_the_start(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield box(p, state, 20, 2)
    yield from p.propagate_in_video(state, max_frame_num_to_track=50)
    yield mask(p, state, 51, 3)
    yield from p.propagate_in_video(state, start_frame_idx=46)


def object_removed(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state, obj_id=1)
    yield box(p, state, obj_id=2)
    yield mask(p, state, obj_id=3)
    yield from p.propagate_in_video(state, max_frame_num_to_track=30)
    obj_ids, updated = p.remove_object(state, 2)
    for frame_idx, mask_logits in updated:
        yield frame_idx, obj_ids, mask_logits
    yield from p.propagate_in_video(state, start_frame_idx=31)
    yield click(p, state, 99, 2)
    yield from p.propagate_in_video(state, start_frame_idx=99)


def prompts_cleared(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield click(p, state, 25)
    yield box(p, state, 0, 2)
    yield from p.propagate_in_video(state, max_frame_num_to_track=35)
    yield p.clear_all_prompts_in_frame(state, 25, 1)
    yield from p.propagate_in_video(state, start_frame_idx=30)
    yield from p.propagate_in_video(state)


def prompts_cleared_before_they_were_tracked(p: Any, state: Any) -> Iterator[Output]:
    """The cleared frame keeps an output that no pass has made; a pass beside it reads that."""
    yield click(p, state)
    yield click(p, state, 70)
    yield from p.propagate_in_video(state, max_frame_num_to_track=20)
    yield p.clear_all_prompts_in_frame(state, 70, 1)
    yield from first(p.propagate_in_video(state, 21), 20)
    yield from p.propagate_in_video(state, start_frame_idx=75)


def state_reset(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from p.propagate_in_video(state, max_frame_num_to_track=40)
    p.reset_state(state)
    yield click(p, state, 20, 5)
    yield from p.propagate_in_video(state, max_frame_num_to_track=20)


def passes_abandoned_and_resumed(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from first(p.propagate_in_video(state), 20)
    yield from first(p.propagate_in_video(state, start_frame_idx=20), 20)
    yield from p.propagate_in_video(state, start_frame_idx=35, max_frame_num_to_track=0)
    yield from p.propagate_in_video(state, start_frame_idx=36)


def turned_round_at_the_end(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield from p.propagate_in_video(state, max_frame_num_to_track=60)
    yield from p.propagate_in_video(state, start_frame_idx=60, reverse=True)


def far_from_all_that_was_tracked(p: Any, state: Any) -> Iterator[Output]:
    """Promise 1 (c)."""
    yield click(p, state)
    yield from p.propagate_in_video(state, max_frame_num_to_track=30)
    yield click(p, state, 80)
    yield from p.propagate_in_video(state, start_frame_idx=80, max_frame_num_to_track=5)
    yield from p.propagate_in_video(
        state, start_frame_idx=80, reverse=True, max_frame_num_to_track=20
    )


def prompts_between_two_yields(p: Any, state: Any) -> Iterator[Output]:
    yield click(p, state)
    yield box(p, state, 0, 2)
    for step in p.propagate_in_video(state, max_frame_num_to_track=60):
        yield step
        if step[0] in (10, 33):
            yield click(p, state, step[0] - 4, 1)
            yield click(p, state, step[0], 2)


SCENARIOS = [
    click_forward,
    box_forward,
    mask_forward,
    three_objects_forward,
    reverse_from_the_last_frame,
    forward_then_reverse_from_the_middle,
    back_and_forth_from_the_middle,
    back_and_forth_from_a_tracked_frame,
    corrected_at_the_end_then_reverse_from_the_prompt,
    second_pass_after_more_clicks,
    several_clicks,
    corrections_inside_the_window,
    correction_kept_while_tracking_on,
    object_added_midway,
    object_removed,
    prompts_cleared,
    prompts_cleared_before_they_were_tracked,
    state_reset,
    passes_abandoned_and_resumed,
    far_from_all_that_was_tracked,
    prompts_between_two_yields,
]


# On a CPU without autocast upstream raises a dtype error in these, and only we go on.
SCENARIOS_WITH_UPSTREAM_MENDED = [object_prompted_later_than_the_start, turned_round_at_the_end]


@pytest.mark.parametrize("calls", SCENARIOS_WITH_UPSTREAM_MENDED, ids=lambda calls: calls.__name__)
def test_equal_to_upstream_where_it_raises_a_dtype_error(
    calls: Calls, checkpoint: Path, ours: LongVideoPredictor, mp4: Path
) -> None:
    upstream = models.build_upstream(checkpoint)
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        outputs(upstream, mp4, calls)

    forward = upstream.memory_attention.forward
    upstream.memory_attention.forward = lambda memory, **kwargs: forward(
        memory=memory.float(), **kwargs
    )
    assert_equal(outputs(upstream, mp4, calls), outputs(ours, mp4, calls))


@pytest.mark.slow
@pytest.mark.parametrize("calls", [*SCENARIOS, *SCENARIOS_WITH_UPSTREAM_MENDED][-6:])
def test_equal_to_upstream_under_autocast(
    calls: Calls, upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(outputs(upstream, mp4, calls), outputs(ours, mp4, calls))


@pytest.mark.parametrize("calls", SCENARIOS, ids=lambda calls: calls.__name__)
@pytest.mark.parametrize("video", ["mp4", pytest.param("jpegs", marks=pytest.mark.slow)])
def test_equal_to_upstream(
    calls: Calls,
    video: str,
    upstream: SAM2VideoPredictor,
    ours: LongVideoPredictor,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(video)
    assert_equal(outputs(upstream, path, calls), outputs(ours, path, calls))


def everything(p: Any, state: Any) -> Iterator[Output]:
    """Forward, a correction, reverse: for options of the state and of the model."""
    yield click(p, state, 50)
    yield mask(p, state, 50, 2)
    yield from p.propagate_in_video(state)
    yield click(p, state, 95, 1)
    yield from p.propagate_in_video(state, start_frame_idx=95)
    yield from p.propagate_in_video(state, start_frame_idx=95, reverse=True)


@pytest.mark.parametrize(
    "options",
    [
        {"offload_state_to_cpu": True},
        {"offload_video_to_cpu": True},
        {"async_loading_frames": True},
        {"offload_video_to_cpu": True, "offload_state_to_cpu": True},
    ],
    ids=lambda options: "+".join(options),
)
def test_options_of_the_state(
    options: dict[str, bool], upstream: SAM2VideoPredictor, ours: LongVideoPredictor, jpegs: Path
) -> None:
    assert_equal(
        outputs(upstream, jpegs, everything, **options), outputs(ours, jpegs, everything, **options)
    )


def many_conditioning_frames(p: Any, state: Any) -> Iterator[Output]:
    for frame_idx in (10, 12, 30, 55, 57, 90):
        yield click(p, state, frame_idx)
    yield box(p, state, 10, 2)
    yield mask(p, state, 10, 3)
    yield from p.propagate_in_video(state)
    yield click(p, state, 95)
    yield from p.propagate_in_video(state, start_frame_idx=95)
    yield from p.propagate_in_video(state, start_frame_idx=95, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reach"),
    [
        (["++model.memory_temporal_stride_for_eval=2"], 15),
        (["++model.memory_temporal_stride_for_eval=3"], 16),
        (["++model.num_maskmem=4"], 15),
        (["++model.max_obj_ptrs_in_encoder=5"], 6),
        (["++model.max_obj_ptrs_in_encoder=40"], 39),
        (["++model.max_cond_frames_in_attn=2"], 15),
        (["++model.non_overlap_masks=true"], 15),
        (["++model.non_overlap_masks_for_mem_enc=true"], 15),
        (["++model.add_all_frames_to_correct_as_cond=true"], 15),
        (["++model.only_obj_ptrs_in_the_past_for_eval=false"], 15),
        (["++model.num_maskmem=1"], 15),
    ],
    ids=lambda value: "+".join(o.split(".")[-1] for o in value) if isinstance(value, list) else "",
)
def test_options_of_the_model(options: list[str], reach: int, mp4: Path, tmp_path: Path) -> None:
    checkpoint = models.save_checkpoint(tmp_path / "model.pt", overrides=[*models.SMALL, *options])
    upstream = models.build_upstream(checkpoint, *options)
    ours = models.build_ours(checkpoint, *options)
    expected = outputs(upstream, mp4, many_conditioning_frames)
    assert_equal(expected, outputs(ours, mp4, many_conditioning_frames))

    state = ours.init_state(mp4)
    assert state["longsam"].memory.reach == reach
    assert state["longsam"].memory.window == 2 * reach + 1


@pytest.mark.parametrize("options", [[], ["++model.max_obj_ptrs_in_encoder=40"]])
def test_reach_is_enough_and_one_less_is_not(
    options: list[str], checkpoint: Path, mp4: Path
) -> None:
    upstream, ours = (
        models.build_upstream(checkpoint, *options),
        models.build_ours(checkpoint, *options),
    )
    reach = ours.init_state(mp4)["longsam"].memory.reach
    expected = outputs(upstream, mp4, three_objects_forward)
    assert_equal(expected, outputs(ours, mp4, three_objects_forward, memory_window=reach))

    with pytest.warns(UserWarning, match=f"reads {reach} frames back: masks will differ"):
        shorter = outputs(ours, mp4, three_objects_forward, memory_window=reach - 1)
    differ = [
        f for (f, _, a), (_, _, b) in zip(expected[3:], shorter[3:], strict=True) if not a.equal(b)
    ]
    assert differ == list(range(reach + 1, 100))


def test_naive_trimming_would_fail_what_the_default_window_does(
    upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    """The default window is not too large: with reach frames a correction further back differs."""
    expected = outputs(upstream, mp4, corrections_inside_the_window)
    with pytest.warns(UserWarning, match="have been forgotten"):
        naive = outputs(ours, mp4, corrections_inside_the_window, memory_window=REACH)
    assert any(not a.equal(b) for (_, _, a), (_, _, b) in zip(expected, naive, strict=True))


@pytest.mark.parametrize("num_frames", [1, 2, 9, 15, 16])
def test_short_videos(
    num_frames: int, upstream: SAM2VideoPredictor, ours: LongVideoPredictor, tmp_path: Path
) -> None:
    """Upstream scales the pointers' time encoding by the frame count where it is below 16."""

    def calls(p: Any, state: Any) -> Iterator[Output]:
        yield click(p, state, num_frames // 2)
        yield box(p, state, num_frames // 2, 2)
        yield from p.propagate_in_video(state)
        yield from p.propagate_in_video(state, reverse=True)

    video = videos.write_video(tmp_path / "short.mp4", num_frames)
    assert_equal(outputs(upstream, video, calls), outputs(ours, video, calls))


def test_the_test_model_is_worth_testing_with(upstream: SAM2VideoPredictor, mp4: Path) -> None:
    """Masks of both signs, objects that count as present, frames and objects that differ."""
    state = upstream.init_state(str(mp4))
    results = list(three_objects_forward(upstream, state))[3:]
    positive = torch.stack([(m > 0).float().mean(dim=(1, 2, 3)) for _, _, m in results])
    assert positive.min() > 0.1
    assert positive.max() < 0.9
    for outputs_of_object in state["output_dict_per_obj"].values():
        for output in outputs_of_object["non_cond_frame_outputs"].values():
            assert output["object_score_logits"] > 0
    assert not torch.equal(results[50][2][0], results[50][2][1])
    assert not torch.equal(results[50][2], results[51][2])


def test_subclass_of_upstream_that_upstreams_own_builder_makes(checkpoint: Path, mp4: Path) -> None:
    predictor = models.build_upstream(checkpoint, "++model._target_=longsam.LongVideoPredictor")
    assert type(predictor) is LongVideoPredictor
    assert len(outputs(predictor, mp4, click_forward)) == 101
