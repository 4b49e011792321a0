"""Scores: what upstream computes of how sure it is, of each object and frame."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import test_exact
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LongVideoPredictor, Snapshots
from longsam.masks import MaskFolder, MaskWriter

pytestmark = pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")

Scores = dict[Any, tuple[float, float]]

CALLS = [
    test_exact.three_objects_forward,
    test_exact.several_clicks,
    test_exact.second_pass_after_more_clicks,
    test_exact.prompts_between_two_yields,
    test_exact.prompts_cleared,
    test_exact.object_removed,
    test_exact.forward_then_reverse_from_the_middle,
]


def spied(checkpoint: Path) -> SAM2VideoPredictor:
    """Upstream's predictor, with the predicted IoU left in each output."""
    upstream = models.build_upstream(checkpoint)
    seen: list[torch.Tensor] = []
    track_step, infer = upstream._track_step, upstream._run_single_frame_inference

    def watched(*args: Any) -> Any:
        result = track_step(*args)
        ious, chosen = result[1][2], result[1][3]
        at = ious.argmax(dim=-1)
        assert torch.equal(result[1][0][torch.arange(len(at)), at], chosen[:, 0])
        seen.append(ious[torch.arange(len(at)), at])
        return result

    def keeping(*args: Any, **kwargs: Any) -> Any:
        output, mask_logits = infer(*args, **kwargs)
        output["spied"] = seen.pop()
        return output, mask_logits

    upstream._track_step, upstream._run_single_frame_inference = watched, keeping
    return upstream


def expected(state: Any, frame_idx: int) -> Scores:
    """What the spied upstream has made last of a frame."""
    scores = {}
    for obj_idx, obj_id in state["obj_idx_to_id"].items():
        places = [
            *state["temp_output_dict_per_obj"][obj_idx].values(),
            *state["output_dict_per_obj"][obj_idx].values(),  # conditioning frames first
        ]
        for outputs in places:
            if frame_idx in outputs:
                of_frame = outputs[frame_idx]
                scores[obj_id] = (of_frame["object_score_logits"].item(), of_frame["spied"].item())
                break
    return scores


def by_step(
    predictor: Any,
    state: Any,
    calls: Callable[[Any, Any], Iterator[Any]],
    scores: Callable[[Any, int], Scores],
) -> list[tuple[int, torch.Tensor, Scores]]:
    return [
        (frame_idx, mask_logits.clone(), scores(state, frame_idx))
        for frame_idx, _, mask_logits in calls(predictor, state)
    ]


@pytest.fixture(scope="module")
def spy(checkpoint: Path) -> SAM2VideoPredictor:
    return spied(checkpoint)


@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: calls.__name__)
def test_equal_to_what_upstream_computes(
    calls: Any, spy: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    theirs = by_step(spy, spy.init_state(str(mp4)), calls, expected)
    mine = by_step(ours, ours.init_state(mp4), calls, ours.scores)
    assert len(mine) == len(theirs) > 20
    for (frame_idx, mask_logits, scores), (_, same_mask, same_scores) in zip(
        mine, theirs, strict=True
    ):
        assert torch.equal(mask_logits, same_mask)
        assert scores == same_scores, frame_idx
    assert len({numbers for _, _, scores in mine for numbers in scores.values()}) > 20


def test_prompts_that_are_masks(ours: LongVideoPredictor, mp4: Path) -> None:
    """Upstream's dummies."""
    state = ours.init_state(mp4)
    ours.add_new_mask(state, 0, "there", test_exact.DISC)
    ours.add_new_mask(state, 0, "not", np.zeros((120, 160), bool))
    assert ours.scores(state, 0) == {"there": (10, 1), "not": (-10, 1)}
    next(ours.propagate_in_video(state))
    scores = ours.scores(state, 0)
    assert scores == {"there": (10, 1), "not": (-10, 1)}
    assert scores["there"].object_score == 10
    assert scores["not"].predicted_iou == 1


def test_in_batches(ours: LongVideoPredictor, mp4: Path) -> None:
    calls = test_exact.three_objects_forward
    loop = by_step(ours, ours.init_state(mp4), calls, ours.scores)
    batch = by_step(ours, ours.init_state(mp4, batch_objects=True), calls, ours.scores)
    for (_, _, scores), (_, _, others) in zip(batch, loop, strict=True):
        assert list(scores) == list(others)
        for obj_id, numbers in scores.items():
            assert numbers == pytest.approx(others[obj_id], abs=1e-4)


def track(predictor: Any, state: Any, count: int, **options: Any) -> dict[int, Scores]:
    steps = predictor.propagate_in_video(state, max_frame_num_to_track=count - 1, **options)
    return {frame_idx: predictor.scores(state, frame_idx) for frame_idx, _, _ in steps}


@pytest.mark.parametrize("options", [{}, {"batch_objects": True}, {"offload_state_to_cpu": True}])
def test_they_are_saved_and_made_again(
    options: dict[str, Any], ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    state = ours.init_state(mp4, snapshots=Snapshots(20, folder=tmp_path / "s"), **options)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.add_new_mask(state, 0, "two", test_exact.DISC)
    seen = track(ours, state, 80)
    ours.save_state(state, tmp_path / "state.pt")
    state.close()
    state = ours.load_state(tmp_path / "state.pt")
    for frame_idx in (0, 49, 79):
        assert ours.scores(state, frame_idx) == seen[frame_idx]
    with pytest.raises(ValueError, match="No object is remembered on frame 30"):
        ours.scores(state, 30)
    ours.rewind(state, 30)
    for frame_idx in (20, 30, 40):
        assert ours.scores(state, frame_idx) == seen[frame_idx]
    assert ours.memory_usage(state)["object_pointers"]["cpu"] > 0


def test_objects_of_a_memory_bank(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.save_memory_bank(state, tmp_path / "bank.pt")
    other = ours.init_state(mp4, memory_bank=tmp_path / "bank.pt")
    with pytest.raises(ValueError, match="No object is remembered on frame 0"):
        ours.scores(other, 0)
    assert track(ours, other, 3).keys() == {0, 1, 2}
    for frame_idx in (-1, 3, 99):
        with pytest.raises(ValueError, match=f"No object is remembered on frame {frame_idx}"):
            ours.scores(other, frame_idx)
    with pytest.raises(ValueError, match=r"frame_idx is 1\.5"):
        ours.scores(other, 1.5)  # type: ignore[arg-type]


def test_objects_that_are_not_remembered_there_are_left_out(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    track(ours, state, 5)
    ours.add_new_points_or_box(state, 3, "late", points=[[60, 50]], labels=[1])
    assert list(ours.scores(state, 2)) == [1]
    assert list(ours.scores(state, 3)) == [1, "late"]


def test_two_states_by_turns_and_in_threads(ours: LongVideoPredictor, mp4: Path) -> None:
    """Nothing is kept on the model, which they share."""
    from concurrent.futures import ThreadPoolExecutor

    def prompted(obj_id: int) -> Any:
        state = ours.init_state(mp4)
        ours.add_new_points_or_box(state, 0, obj_id, points=[[40 + 20 * obj_id, 50]], labels=[1])
        return state

    alone = [track(ours, prompted(obj_id), 10) for obj_id in (1, 2)]
    states = [prompted(obj_id) for obj_id in (1, 2)]
    passes = [ours.propagate_in_video(state, None, 9) for state in states]
    by_turns: list[dict[int, Scores]] = [{}, {}]
    for steps in zip(*passes, strict=True):
        for which, step in enumerate(steps):
            by_turns[which][step[0]] = ours.scores(states[which], step[0])
    assert by_turns == alone
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda i: track(ours, prompted(i), 10, progress_bar=False), (1, 2)))
    assert at_once == alone


def test_from_the_predictor_to_the_folder(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    seen = {}
    with MaskWriter(tmp_path) as writer:
        for frame_idx, obj_ids, mask_logits in ours.propagate_in_video(state, None, 30):
            seen[frame_idx] = ours.scores(state, frame_idx)
            time = state.source.time(frame_idx)
            writer.write(frame_idx, obj_ids, mask_logits, scores=seen[frame_idx], time=time)
    folder = MaskFolder(tmp_path)
    for frame_idx, scores in seen.items():
        assert folder.scores(frame_idx) == pytest.approx([scores[1].object_score], rel=1e-4)
        assert folder.ious(frame_idx) == pytest.approx([scores[1].predicted_iou], rel=1e-4)
        assert folder.time(frame_idx) == pytest.approx(frame_idx / 30, abs=1e-6)


def test_upstreams_signature() -> None:
    """Where `_track_step` has the outputs so far, and what it returns second."""
    parameters = list(inspect.signature(SAM2VideoPredictor._track_step).parameters)
    assert parameters[1:][7] == "output_dict"
    source = inspect.getsource(SAM2VideoPredictor._track_step)
    assert "return current_out, sam_outputs, high_res_features, pix_feat" in source
