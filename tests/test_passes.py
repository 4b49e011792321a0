"""Passes that are open at once, left, resumed or refused; what fails while one runs."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sessions
import torch
import videos
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sessions import Snapshots

from longsam import LongVideoPredictor

# What upstream does with corrections is compared, those that a pass replaces among them.
pytestmark = pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")

REACH = 15
BOX = [30, 20, 110, 90]
DISC = np.hypot(*np.mgrid[-60:60, -80:80]) < 40

Calls = Callable[[Any, Any], Iterator[Any]]
"""What a user does with a fresh state; yields what the predictor returns."""


@pytest.fixture(scope="module")
def upstream(upstream: SAM2VideoPredictor) -> Any:
    return sessions.float_memory(upstream)


def click(predictor: Any, state: Any, frame_idx: int = 0, obj_id: Any = 1, label: int = 1) -> Any:
    return predictor.add_new_points_or_box(
        state, frame_idx, obj_id, points=[[60, 50]], labels=[label]
    )


def copied(step: Any) -> Any:
    frame_idx, obj_ids, mask_logits = step
    return frame_idx, list(obj_ids), mask_logits.clone()


def returned(predictor: Any, video: Any, calls: Calls, **options: Any) -> list[Any]:
    return [
        copied(step)
        for step in calls(predictor, sessions.open_session(predictor, video, **options))
    ]


def assert_equal(mine: list[Any], expected: list[Any]) -> None:
    assert [step[:2] for step in mine] == [step[:2] for step in expected]
    pairs = zip(mine, expected, strict=True)
    differ = [a[0] for a, b in pairs if not torch.equal(a[2], b[2])]
    assert not differ, f"masks differ on frames {differ}"


# Passes that are open at once ---------------------------------------------------------------------


def preview_elsewhere(p: Any, state: Any) -> Iterator[Any]:
    click(p, state)
    steps = p.propagate_in_video(state)
    yield from islice(steps, 40)
    yield from p.propagate_in_video(state, 70, 16)  # 17 frames
    yield from steps


def previews_in_reverse_over_its_frames(p: Any, state: Any) -> Iterator[Any]:
    click(p, state)
    steps = p.propagate_in_video(state)
    yield from islice(steps, 40)
    yield from p.propagate_in_video(state, 99, reverse=True)  # writes all of them anew
    yield from steps


def three_by_turns(p: Any, state: Any) -> Iterator[Any]:
    click(p, state)
    click(p, state, 0, 2)
    passes = [
        p.propagate_in_video(state),
        p.propagate_in_video(state, 50),
        p.propagate_in_video(state, 99, reverse=True),
    ]
    for _ in range(9):
        for steps in passes:
            yield from islice(steps, 6)
    for steps in passes:
        yield from steps


def prompts_while_two_are_open(p: Any, state: Any) -> Iterator[Any]:
    click(p, state)
    first = p.propagate_in_video(state)
    yield from islice(first, 20)
    second = p.propagate_in_video(state, 80, reverse=True)
    yield from islice(second, 25)
    yield click(p, state, 56, 1, label=0)
    yield from islice(first, 20)
    yield click(p, state, 39, 1, label=0)
    yield from p.propagate_in_video(state, 40, 2)
    yield from islice(second, 5)
    yield from first


@pytest.mark.parametrize(
    "calls",
    [
        preview_elsewhere,
        previews_in_reverse_over_its_frames,
        three_by_turns,
        prompts_while_two_are_open,
    ],
)
def test_passes_that_are_open_at_once(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, calls: Calls
) -> None:
    assert_equal(returned(ours, mp4, calls), returned(upstream, mp4, calls))


def test_a_pass_goes_on_after_rewind(upstream: Any, ours: LongVideoPredictor, mp4: Path) -> None:
    def calls(p: Any, state: Any) -> Iterator[Any]:
        click(p, state)
        steps = p.propagate_in_video(state)
        yield from islice(steps, 60)
        sessions.rewind(p, state, 5)
        yield from islice(steps, 5)
        sessions.rewind(p, state, 30)
        yield click(p, state, 30, 1, label=0)
        yield from p.propagate_in_video(state, 31, 20)
        yield from steps

    mine = returned(ours, mp4, calls, snapshots=Snapshots(every=10))
    assert_equal(mine, returned(upstream, mp4, calls))


def test_open_passes_keep_what_they_read_and_no_more(ours: LongVideoPredictor, mp4: Path) -> None:
    state = sessions.open_session(ours, mp4)
    click(ours, state)
    held = []
    for start in (10, 40, 70):
        steps = ours.propagate_in_video(state, start)
        list(islice(steps, 3))
        held.append(steps)
    for steps in held:
        list(islice(steps, 15))
    list(ours.propagate_in_video(state))
    kept = set(sessions.outputs(state, 1))
    for start in (10, 40, 70):
        assert set(range(start + 18 - REACH, start + 18)) <= kept
    window = range(99 - sessions.window(state), 100)
    around_start = range(REACH + 2)
    open_passes = [range(start + 18 - REACH - 1, start + 19) for start in (10, 40, 70)]
    assert kept <= {f for frames in (window, around_start, *open_passes) for f in frames}
    del held, steps
    list(ours.propagate_in_video(state, 90))
    assert not {26, 27, 56, 57} & set(sessions.outputs(state, 1))


@pytest.mark.parametrize("change", ["reset", "remove"])
def test_a_pass_over_objects_that_are_gone_is_refused(
    ours: LongVideoPredictor, mp4: Path, change: str
) -> None:
    state = sessions.open_session(ours, mp4)
    click(ours, state)
    click(ours, state, 0, 2)
    old = ours.propagate_in_video(state)
    list(islice(old, 5))
    if change == "reset":
        ours.reset_state(state)
        click(ours, state)
    else:
        ours.remove_object(state, 1)
    with pytest.raises(RuntimeError):
        next(old)
    assert [step[0] for step in ours.propagate_in_video(state, 0, 3)] == [0, 1, 2, 3]
    assert list(old) == []  # a generator that has raised is over


@pytest.mark.parametrize("then", ["close", "next"])
def test_a_pass_that_another_has_replaced(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, then: str
) -> None:
    def calls(p: Any, state: Any) -> Iterator[Any]:
        click(p, state)
        left = p.propagate_in_video(state)
        yield from islice(left, 25)
        yield from p.propagate_in_video(state)  # over all that the other has tracked
        if then == "close":
            left.close()
        yield from left
        sessions.rewind(p, state, 30)
        yield click(p, state, 30, 1, label=0)
        yield from p.propagate_in_video(state, 31, 10)

    mine = returned(ours, mp4, calls, snapshots=Snapshots(every=10))
    assert_equal(mine, returned(upstream, mp4, calls))


# Corrections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("far_back", [False, True])
def test_a_correction_takes_effect_from_the_next_frame_on(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, far_back: bool
) -> None:
    """A pass that starts on the corrected frame tracks it again, and the correction is lost."""

    def calls(start: int | None) -> Calls:
        def corrected(p: Any, state: Any) -> Iterator[Any]:
            p.add_new_points_or_box(state, 0, "bee", box=BOX)
            list(p.propagate_in_video(state, 0, None if far_back else 3))
            if far_back:
                sessions.rewind(p, state, 3)
            if start is not None:
                p.add_new_points_or_box(state, 3, "bee", points=[[70, 60]], labels=[0])
            yield from p.propagate_in_video(state, start or 4, 20)

        return corrected

    options = {"snapshots": Snapshots(every=20)} if far_back else {}
    without, with_it, discarded = (
        returned(ours, mp4, calls(start), **options) for start in (None, 4, 3)
    )
    assert_equal(with_it, returned(upstream, mp4, calls(4)))
    assert not any(torch.equal(a[2], b[2]) for a, b in zip(with_it, without, strict=True))
    assert_equal(discarded[1:], without[:20])
    assert_equal(discarded, returned(upstream, mp4, calls(3)))


# Prompts that fail --------------------------------------------------------------------------------


def prompts_of(state: Any) -> Any:
    """All that prompts change, by value."""
    plain = {
        key: {
            obj_idx: {name: value for name, value in of_object.items()}
            for obj_idx, of_object in state[key].items()
        }
        for key in (
            "point_inputs_per_obj",
            "mask_inputs_per_obj",
            "output_dict_per_obj",
            "temp_output_dict_per_obj",
            "frames_tracked_per_obj",
        )
    }
    return sorted(_leaves((), plain), key=str), list(state["obj_ids"]), dict(state["obj_id_to_idx"])


def _leaves(path: tuple[Any, ...], value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    elif isinstance(value, torch.Tensor):
        yield path, value.tolist()
    elif not isinstance(value, list):  # lists hold the positional encoding, which is constant
        yield path, value


BAD_PROMPTS: dict[str, dict[str, Any]] = {
    "fewer labels than points": {"points": [[60, 50], [40, 40]], "labels": [1]},
    "no label": {"points": [[60, 50]], "labels": []},
    "points only": {"points": [[60, 50]]},
    "labels only": {"labels": [1]},
    "nothing": {},
    "a box, and old points kept": {"box": BOX, "clear_old_points": False},
    "a box of three numbers": {"box": [1, 2, 3]},
    "points of three numbers": {"points": [[1, 2, 3]], "labels": [1]},
    "text": {"points": [["a", "b"]], "labels": [1]},
}


@pytest.mark.parametrize("bad", BAD_PROMPTS)
@pytest.mark.parametrize("before", ["nothing", "mask", "click", "correction"])
def test_a_refused_prompt_leaves_the_state_as_it_was(
    upstream: Any, ours: LongVideoPredictor, jpegs: Path, bad: str, before: str
) -> None:
    def calls(p: Any, state: Any) -> Iterator[Any]:
        frame_idx = 0
        if before == "mask":
            yield p.add_new_mask(state, 0, 1, DISC)
        elif before != "nothing":
            yield click(p, state)
        if before == "correction":
            yield from p.propagate_in_video(state, 0, 3)
            frame_idx = 2
            yield click(p, state, 2, 1, label=0)
        if p is ours:
            was = prompts_of(state)
            with pytest.raises((ValueError, RuntimeError, TypeError, IndexError, AssertionError)):
                p.add_new_points_or_box(state, frame_idx, 1, **BAD_PROMPTS[bad])
            assert prompts_of(state) == was
        yield p.add_new_points_or_box(
            state, frame_idx, 1, points=[[70, 60]], labels=[1], clear_old_points=False
        )
        yield from p.propagate_in_video(state, frame_idx, 2)

    assert_equal(returned(ours, jpegs, calls), returned(upstream, jpegs, calls))


@pytest.mark.parametrize("mask", [np.ones(5, bool), np.ones((1, 120, 160), bool), "mask", None])
def test_a_refused_mask_leaves_the_state_as_it_was(
    ours: LongVideoPredictor, jpegs: Path, mask: Any
) -> None:
    state = sessions.open_session(ours, jpegs)
    for has_prompt in (False, True):
        if has_prompt:
            click(ours, state)
        was = prompts_of(state)
        with pytest.raises((ValueError, TypeError, RuntimeError, AssertionError)):
            ours.add_new_mask(state, 0, 1, mask)
        assert prompts_of(state) == was


@pytest.mark.parametrize("prompt", ["click", "mask"])
@pytest.mark.parametrize("which", ["first object", "second object", "correction"])
def test_ctrl_c_inside_a_prompt(
    upstream: Any, ours: LongVideoPredictor, jpegs: Path, which: str, prompt: str
) -> None:
    """The state is as before: no object without a prompt is left, which no pass would accept."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def calls(p: Any, state: Any) -> Iterator[Any]:
        if which != "first object":
            yield click(p, state, 5, 1)
            yield from p.propagate_in_video(state, 5, 4)
        obj_id, frame_idx = (1, 7) if which == "correction" else ("new", 30)
        if p is ours:
            was = prompts_of(state)
            given = (
                click if prompt == "click" else partial(LongVideoPredictor.add_new_mask, mask=DISC)
            )
            hook = ours.sam_mask_decoder.register_forward_pre_hook(interrupt)
            try:
                with pytest.raises(KeyboardInterrupt):
                    given(p, state, frame_idx, obj_id)
            finally:
                hook.remove()
            assert prompts_of(state) == was
        yield click(p, state, 9, 1, label=0)
        yield from p.propagate_in_video(state, 9, 4)

    assert_equal(returned(ours, jpegs, calls), returned(upstream, jpegs, calls))


def test_ctrl_c_while_the_frame_of_a_first_prompt_is_encoded(
    ours: LongVideoPredictor, jpegs: Path
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    state = sessions.open_session(ours, jpegs)
    hook = ours.image_encoder.register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            click(ours, state, 5, "ghost")
    finally:
        hook.remove()
    assert state["obj_ids"] == []
    click(ours, state, 5, 1)
    assert [step[1] for step in ours.propagate_in_video(state, 5, 1)] == [[1], [1]]


# Live sources -------------------------------------------------------------------------------------


def test_a_live_pass_that_was_resumed_sees_new_objects(ours: LongVideoPredictor) -> None:
    def calls(resumes: bool) -> Calls:
        def tracked(p: Any, state: Any) -> Iterator[Any]:
            click(p, state)
            steps = p.propagate_in_video(state)
            if resumes:
                yield from islice(steps, 10)
                steps.close()
                steps = p.resume_propagation(state)
            for step in steps:
                yield step
                if step[0] == 20:
                    p.add_new_points_or_box(state, 20, "new", box=BOX)
                elif step[0] == 30:
                    p.remove_object(state, 1)

        return tracked

    mine, expected = (
        returned(ours, iter(list(videos.frames(40))), calls(resumes)) for resumes in (True, False)
    )
    assert expected[-1][1] == ["new"]
    assert [step[1] for step in expected[19:23]] == [[1], [1], [1, "new"], [1, "new"]]
    assert_equal(mine, expected)


# Snapshots that fail, and memory banks ------------------------------------------------------------


def test_a_snapshot_that_cannot_be_written(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    """One warning, and no frame is lost."""
    folder = tmp_path / "snapshots"

    def calls(p: Any, state: Any) -> Iterator[Any]:
        click(p, state)
        for step in p.propagate_in_video(state, 0, 39):
            yield step
            if step[0] == 17 and p is ours:  # as where a disk is gone
                shutil.rmtree(folder)
                folder.write_bytes(b"")
        if p is ours:
            assert list(p.resume_propagation(state)) == []
        yield from p.propagate_in_video(state, 40, 9)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mine = returned(ours, mp4, calls, snapshots=Snapshots(every=10, folder=folder))
    said = [str(w.message) for w in caught if "Skipping the post-processing" not in str(w.message)]
    assert len(said) == 1, said
    assert "snapshot" in said[0]
    assert str(folder) in said[0]
    assert_equal(mine, returned(upstream, mp4, calls))


def with_bank(
    upstream: Any, ours: LongVideoPredictor, video: Path, path: Path, **options: Any
) -> tuple[Any, Any]:
    """A session of each that knows an object from another; upstream's is given it by hand."""
    states = []
    for p in (upstream, ours):
        state = sessions.open_session(p, video)
        p.add_new_mask(state, 40, "known", DISC)
        p.propagate_in_video_preflight(state)
        states.append(state)
    theirs = sessions.open_session(upstream, video)
    upstream._obj_id_to_idx(theirs, "known")
    for key, output in sessions.outputs(states[0], "known").items():
        assert key == 40
        memories = theirs["output_dict_per_obj"][0]["cond_frame_outputs"]
        memories[-1] = {**output, "pred_masks": None}
    ours.save_memory_bank(states[1], path)
    return theirs, sessions.open_session(ours, video, memory_bank=path, **options)


def test_a_bank_is_saved_with_a_state_before_its_first_frame(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    theirs, mine = with_bank(upstream, ours, mp4, tmp_path / "bank.pt")
    ours.save_state(mine, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    assert_equal(
        [copied(step) for step in ours.propagate_in_video(loaded, 0, 20)],
        [copied(step) for step in upstream.propagate_in_video(theirs, 0, 20)],
    )


def test_rewind_where_objects_are_known_from_a_bank(
    upstream: Any, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    states = with_bank(upstream, ours, mp4, tmp_path / "bank.pt", snapshots=Snapshots(every=10))
    results = []
    for p, state in zip((upstream, ours), states, strict=True):
        steps = [copied(step) for step in p.propagate_in_video(state, 0)]
        sessions.rewind(p, state, 3)
        steps.append(copied(click(p, state, 3, "known", label=0)))
        steps += [copied(step) for step in p.propagate_in_video(state, 4, 20)]
        results.append(steps)
    assert_equal(results[1], results[0])
