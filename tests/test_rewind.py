"""Going back far behind the window: corrections there are exactly upstream's."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import sessions
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import Autosave, LongVideoPredictor, Snapshots

# What upstream does with corrections is compared, those that a pass replaces among them.
pytestmark = pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")

CORRECTION = {"points": [[40, 40]], "labels": [0]}


def start(predictor: Any, video: Path, **options: Any) -> Any:
    state = predictor.init_state(str(video), **options)
    predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    predictor.add_new_points_or_box(state, 0, "two", box=[30, 20, 110, 90])
    return state


def track(predictor: Any, state: Any, *arguments: Any, **options: Any) -> list[Any]:
    return list(predictor.propagate_in_video(state, *arguments, **options))


def assert_equal(mine: list[Any], expected: list[Any]) -> None:
    assert [step[:2] for step in mine] == [step[:2] for step in expected]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(mine, expected, strict=True))


def assert_same_memories(ours: Any, theirs: Any, frames: range) -> None:
    for obj_idx in (0, 1):
        mine, wanted = (
            s["output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"] for s in (ours, theirs)
        )
        for frame_idx in frames:
            for name in ("maskmem_features", "pred_masks", "obj_ptr", "object_score_logits"):
                assert torch.equal(mine[frame_idx][name], wanted[frame_idx][name])


def assert_corrected_alike(
    ours: Any, mine: Any, upstream: Any, theirs: Any, frame_idx: int
) -> None:
    """A correction, and tracking on from it."""
    returned = [
        predictor.add_new_points_or_box(state, frame_idx, 1, **CORRECTION)
        for predictor, state in ((ours, mine), (upstream, theirs))
    ]
    assert torch.equal(returned[0][2], returned[1][2])
    assert_equal(track(ours, mine, frame_idx), track(upstream, theirs, frame_idx))


@pytest.mark.parametrize(
    "frame_idx",
    [1, 47, 99, *(pytest.param(frame_idx, marks=pytest.mark.slow) for frame_idx in (30, 33, 60))],
)
def test_a_correction_far_back(
    upstream: SAM2VideoPredictor,
    ours: LongVideoPredictor,
    mp4: Path,
    frame_idx: int,
    tmp_path: Path,
) -> None:
    theirs = start(upstream, mp4)
    mine = start(ours, mp4, snapshots=Snapshots(15, tmp_path))
    assert_equal(track(ours, mine), track(upstream, theirs))
    ours.rewind(mine, frame_idx)
    assert_same_memories(mine, theirs, range(max(1, frame_idx - 15), frame_idx + 1))
    for _ in range(2):  # and once more, from what the correction has changed
        assert_corrected_alike(ours, mine, upstream, theirs, frame_idx)
        frame_idx = max(1, frame_idx - 20)
        ours.rewind(mine, frame_idx)
        assert_same_memories(mine, theirs, range(max(1, frame_idx - 15), frame_idx + 1))


def test_passes_prompts_and_objects_in_between(
    upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    """Later prompts stay, later passes count, and prompts that wait have no part in the replay."""
    upstream = sessions.float_memory(upstream)
    results = []
    for predictor, options in ((upstream, {}), (ours, {"snapshots": Snapshots(20)})):
        state = start(predictor, mp4, **options)
        steps = track(predictor, state, max_frame_num_to_track=70)
        predictor.add_new_points_or_box(state, 71, 1, points=[[70, 60]], labels=[1])
        predictor.add_new_points_or_box(state, 71, "new", box=[20, 20, 60, 60])
        for step in predictor.propagate_in_video(state, 71):
            steps.append(step)
            if step[0] == 75:
                predictor.add_new_points_or_box(state, 90, "two", points=[[30, 30]], labels=[1])
        if predictor is ours:
            predictor.rewind(state, 74)
        steps += [(74, [], predictor.add_new_points_or_box(state, 74, "new", **CORRECTION)[2][2:])]
        steps += track(predictor, state, 74)
        if predictor is ours:
            predictor.rewind(state, 40)
        steps += [(40, [], predictor.add_new_points_or_box(state, 40, 1, **CORRECTION)[2][:1])]
        steps += track(predictor, state, 40)
        results.append(steps)
    assert_equal(results[1], results[0])


def test_in_reverse(upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path) -> None:
    results = []
    for predictor, options in ((upstream, {}), (ours, {"snapshots": Snapshots(20)})):
        state = predictor.init_state(str(mp4), **options)
        predictor.add_new_points_or_box(state, 90, 1, points=[[60, 50]], labels=[1])
        steps = track(predictor, state, reverse=True)
        for frame_idx in (50, 0):
            if predictor is ours:
                predictor.rewind(state, frame_idx)
            prompted = predictor.add_new_points_or_box(state, frame_idx, 1, **CORRECTION)
            steps.append((frame_idx, [1], prompted[2]))
            steps += track(predictor, state, frame_idx, reverse=True)
        results.append(steps)
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_snapshot_due_at_the_end_of_the_video(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path, reverse: bool
) -> None:
    """There is no frame to take it for."""
    state = start(ours, mp4, snapshots=Snapshots(5, tmp_path))
    first = 4 if reverse else 95
    assert len(track(ours, state, first, reverse=reverse)) == 5
    assert [path.name for path in tmp_path.iterdir()] == [f"segment_00001_frame_{first:08d}.pt"]
    assert track(ours, state, 1, 0, reverse=reverse)[0][0] == 1


def test_snapshots_on_disk(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    """Those of frames that were tracked anew are removed, and a bound is kept."""

    def files() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    state = start(ours, mp4, snapshots=Snapshots(30, tmp_path))
    track(ours, state)
    assert files() == [f"segment_00001_frame_{n:08d}.pt" for n in (0, 30, 60, 90)]
    ours.rewind(state, 45)
    ours.add_new_points_or_box(state, 45, 1, **CORRECTION)
    track(ours, state, 45)
    assert files() == [
        *(f"segment_00001_frame_{n:08d}.pt" for n in (0, 30)),
        *(f"segment_00002_frame_{n:08d}.pt" for n in (45, 75)),
    ]
    track(ours, state, 0)
    assert files() == [f"segment_00003_frame_{n:08d}.pt" for n in (0, 30, 60, 90)]

    folder = tmp_path / "bounded"
    one = (tmp_path / files()[-1]).stat().st_size
    state = start(ours, mp4, snapshots=Snapshots(5, folder, max_bytes=int(4.5 * one)))
    for _ in ours.propagate_in_video(state):
        assert sum(p.stat().st_size for p in folder.iterdir()) <= 4.5 * one
    frames = sorted(int(p.stem[-8:]) for p in folder.iterdir())
    assert frames[0] == 0
    assert len(frames) >= 4
    gaps = [b - a for a, b in zip(frames, [*frames[1:], 100], strict=True)]
    assert max(gaps) <= 60
    ours.rewind(state, 50)


@pytest.mark.parametrize("frame_idx", [20, 52, 80])
def test_snapshots_outlive_a_crash(
    upstream: SAM2VideoPredictor,
    ours: LongVideoPredictor,
    mp4: Path,
    frame_idx: int,
    tmp_path: Path,
) -> None:
    theirs = start(upstream, mp4)
    track(upstream, theirs)
    folder = tmp_path / "snapshots"
    state = start(ours, mp4, snapshots=Snapshots(15, folder))
    steps = ours.propagate_in_video(state, autosave=Autosave(tmp_path / "state.pt", 25))
    for done, _, _ in steps:
        if done == 65:  # as if killed: the save is of frame 49, and later snapshots are there
            break
    del state, steps
    (folder / "segment_00001_frame_00000099.pt.99999999.partial").touch()
    mine = ours.load_state(tmp_path / "state.pt")
    rest = list(ours.resume_propagation(mine))
    assert rest[0][0] == 50
    segments = mine["longsam"].history.segments.values()
    indexed = {p for one in segments for p in one.snapshots.values()}
    assert set(folder.iterdir()) == indexed
    ours.rewind(mine, frame_idx)
    assert_same_memories(mine, theirs, range(max(1, frame_idx - 15), frame_idx + 1))
    assert_corrected_alike(ours, mine, upstream, theirs, frame_idx)


def test_a_temporary_folder_goes_with_the_session(ours: LongVideoPredictor, mp4: Path) -> None:
    state = start(ours, mp4, snapshots=Snapshots(30))
    folder = state["longsam"].history.folder
    track(ours, state, max_frame_num_to_track=3)
    assert list(folder.iterdir())
    del state
    assert not folder.exists()


def test_what_cannot_be_gone_back_to(ours: LongVideoPredictor, mp4: Path) -> None:
    state = start(ours, mp4)
    track(ours, state, max_frame_num_to_track=3)
    with pytest.raises(ValueError, match="give init_state snapshots="):
        ours.rewind(state, 2)
    state = start(ours, mp4, snapshots=Snapshots(10))
    track(ours, state, max_frame_num_to_track=3)
    ours.rewind(state, 50)  # nothing was tracked there, so nothing is missing
    with pytest.raises(ValueError, match="which is outside"):
        ours.rewind(state, 500)
    for wrong in (0, -5, 1.5, True):
        with pytest.raises(ValueError, match=r"Snapshots\(every\) is"):
            Snapshots(wrong)  # type: ignore[arg-type]


# Sessions in which the memories of a frame come from several passes -------------------------------


def click(predictor: Any, state: Any, frame_idx: int, obj_id: Any = 1, label: int = 1) -> Any:
    """What is returned of the object itself."""
    point = [[60, 50]] if label else [[40, 40]]
    frame_idx, obj_ids, mask_logits = predictor.add_new_points_or_box(
        state, frame_idx, obj_id, points=point, labels=[label]
    )
    return frame_idx, [obj_id], mask_logits[obj_ids.index(obj_id)]


def corrected(predictor: Any, state: Any, frame_idx: int, obj_id: Any = 1) -> Any:
    """Back to a frame, and a correction there."""
    sessions.rewind(predictor, state, frame_idx)
    return click(predictor, state, frame_idx, obj_id, label=0)


def after_a_partial_pass(p: Any, state: Any) -> Iterator[Any]:
    """What a correction changed on a part of the way counts when a later frame is gone back to."""
    click(p, state, 0)
    yield from p.propagate_in_video(state)
    yield corrected(p, state, 30)
    yield from p.propagate_in_video(state, 31, 5)
    yield corrected(p, state, 40)
    yield from p.propagate_in_video(state, 41, 20)


def after_corrections_that_go_forward(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    yield from p.propagate_in_video(state)
    for frame_idx in (20, 45, 25, 60, 24):
        yield corrected(p, state, frame_idx)
        yield from p.propagate_in_video(state, frame_idx + 1, 7)
    yield corrected(p, state, 55)
    yield from p.propagate_in_video(state, 56, 20)


def forward_into_what_was_tracked_in_reverse(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    yield from p.propagate_in_video(state)
    yield from p.propagate_in_video(state, 80, 50, reverse=True)
    sessions.rewind(p, state, 50)
    yield from p.propagate_in_video(state, 51, 20)
    yield corrected(p, state, 31)
    yield from p.propagate_in_video(state, 32, 20)


def reverse_into_what_was_tracked_forward(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    yield from p.propagate_in_video(state)
    yield corrected(p, state, 50)
    yield from p.propagate_in_video(state, 49, 20, reverse=True)
    sessions.rewind(p, state, 40)
    yield from p.propagate_in_video(state, 39, 10, reverse=True)


def both_ways_from_the_prompt_of_one_of_two(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 50)
    click(p, state, 70, "two")
    yield from p.propagate_in_video(state)
    yield from p.propagate_in_video(state, reverse=True)
    for frame_idx in (50, 70, 45, 52):
        yield corrected(p, state, frame_idx, "two")
        yield from p.propagate_in_video(state, frame_idx + 1, 6)
        yield from p.propagate_in_video(state, frame_idx - 1, 6, reverse=True)


def after_reset(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    yield from p.propagate_in_video(state)
    p.reset_state(state)
    click(p, state, 60)
    yield from p.propagate_in_video(state, 60, 20)
    with suppress(ValueError):  # there is nothing to go back to
        sessions.rewind(p, state, 30)  # tracked for the old object alone
    yield click(p, state, 30)
    yield from p.propagate_in_video(state, 31, 8)
    yield corrected(p, state, 65)
    yield from p.propagate_in_video(state, 66, 20)


def with_an_id_that_is_used_again(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    click(p, state, 0, "two")
    yield from p.propagate_in_video(state)
    p.remove_object(state, 1)
    sessions.rewind(p, state, 60)
    click(p, state, 60)
    yield from p.propagate_in_video(state, 60, 20)
    yield corrected(p, state, 40, "two")
    yield click(p, state, 40)  # of the new object nothing is known here
    yield from p.propagate_in_video(state, 41, 40)


def with_an_object_that_is_added_later(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    yield from p.propagate_in_video(state, 0, 70)
    click(p, state, 71, "new")
    yield from p.propagate_in_video(state, 71)
    sessions.rewind(p, state, 30)
    yield click(p, state, 30, "new")
    yield click(p, state, 30, 1, label=0)
    yield from p.propagate_in_video(state, 31, 60)


def while_two_passes_are_open(p: Any, state: Any) -> Iterator[Any]:
    click(p, state, 0)
    forward, back = (p.propagate_in_video(state, at, None, at == 99) for at in (0, 99))
    for _ in range(10):
        yield from islice(forward, 6)
        yield from islice(back, 6)
    yield corrected(p, state, 50)
    yield from islice(forward, 10)
    yield from p.propagate_in_video(state, 51, 8)
    yield corrected(p, state, 54)
    yield from back
    yield from forward


@pytest.mark.parametrize("every", [7, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "calls",
    [
        after_a_partial_pass,
        after_corrections_that_go_forward,
        forward_into_what_was_tracked_in_reverse,
        reverse_into_what_was_tracked_forward,
        both_ways_from_the_prompt_of_one_of_two,
        after_reset,
        with_an_id_that_is_used_again,
        with_an_object_that_is_added_later,
        while_two_passes_are_open,
    ],
)
def test_the_newest_memories_count(
    upstream: SAM2VideoPredictor,
    ours: LongVideoPredictor,
    mp4: Path,
    calls: Callable[[Any, Any], Iterator[Any]],
    every: int,
) -> None:
    """As upstream, which forgets nothing: of each frame what was written last."""
    results = []
    for predictor in (sessions.float_memory(upstream), ours):
        state = sessions.open_session(predictor, mp4, snapshots=Snapshots(every=every))
        results.append(
            [(step[0], list(step[1]), step[2].clone()) for step in calls(predictor, state)]
        )
    assert_equal(results[1], results[0])
