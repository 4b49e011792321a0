"""Defects that a reading of the wrapper found; each test failed before its fix."""

import os
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import videos
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LiveVideo, LongVideoPredictor, Snapshots

CLICK: dict[str, Any] = {"points": [[60, 50]], "labels": [1]}


def test_snapshots_go_on_in_a_new_folder_after_a_load(
    upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    """The old temporary folder is gone, so the next snapshot is due at once."""
    theirs = upstream.init_state(str(mp4))
    upstream.add_new_points_or_box(theirs, 0, 1, **CLICK)
    list(upstream.propagate_in_video(theirs))
    state = ours.init_state(mp4, snapshots=Snapshots(every=40))
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    for frame_idx, _, _ in ours.propagate_in_video(state):
        if frame_idx == 44:
            break
    ours.save_state(state, tmp_path / "state.pt")
    with pytest.warns(UserWarning, match="does not say where its snapshots are"):
        loaded = ours.load_state(tmp_path / "state.pt")
    list(ours.resume_propagation(loaded))
    ours.rewind(loaded, 64)
    masks = [
        p.add_new_points_or_box(s, 64, 1, points=[[40, 40]], labels=[0])[2]
        for p, s in ((upstream, theirs), (ours, loaded))
    ]
    assert torch.equal(*masks)


def test_a_folder_given_by_a_relative_path_is_found_again(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    state = ours.init_state(mp4, snapshots=Snapshots(every=10, folder="."))
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    for frame_idx, _, _ in ours.propagate_in_video(state):
        if frame_idx == 20:
            break
    ours.save_state(state, "../state.pt")
    os.chdir(tmp_path)
    loaded = ours.load_state("state.pt")
    assert loaded["longsam"].history.folder == inner
    list(ours.resume_propagation(loaded))
    ours.rewind(loaded, 40)
    ours.save_state(ours.init_state(mp4), "plain.pt")
    with pytest.raises(ValueError, match="the session keeps no snapshots, so there is no folder"):
        ours.load_state("plain.pt", snapshots=inner)


def test_prompts_that_are_let_go_are_forgotten(ours: LongVideoPredictor, mp4: Path) -> None:
    """Also where no pass has come by their frames."""
    state = ours.init_state(mp4, max_prompt_frames=1)
    held = []
    for start in range(0, 100, 5):
        ours.add_new_points_or_box(state, start, 1, **CLICK)
        for _ in ours.propagate_in_video(state, min(start + 1, 99), 3):
            pass
        outputs = state["output_dict_per_obj"][0]
        held.append(sum(map(len, outputs.values())))
    # The window, the neighbours of two starts, a waiting prompt.
    assert max(held) <= 31 + 2 * 31 + 2
    assert held[-1] <= held[10] + 1, held


def test_a_prompt_that_waits_takes_no_others_place(ours: LongVideoPredictor, mp4: Path) -> None:
    masks = []
    for prompts_meanwhile in (False, True):
        state = ours.init_state(mp4, max_prompt_frames=2)
        for frame_idx in (0, 10):
            ours.add_new_points_or_box(state, frame_idx, 1, **CLICK)
        steps = ours.propagate_in_video(state, 20, 12)
        next(steps)
        if prompts_meanwhile:
            ours.add_new_points_or_box(state, 15, 1, **CLICK)
        masks.append([mask_logits.clone() for _, _, mask_logits in steps])
        assert set(state["output_dict_per_obj"][0]["cond_frame_outputs"]) == {0, 10}
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_ids_that_no_snapshot_can_hold_are_refused_at_once(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    state = ours.init_state(mp4, snapshots=Snapshots())
    with pytest.raises(ValueError, match="of a session with snapshots must be integers or strings"):
        ours.add_new_points_or_box(state, 0, uuid.uuid4(), **CLICK)
    assert state.obj_ids == []


def test_a_live_source_can_be_used_after_a_refusal(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    live = LiveVideo(iter(videos.frames(5)))
    (tmp_path / "bank.pt").write_bytes(b"no bank")
    with pytest.raises(ValueError, match="is not a memory bank"):
        ours.init_state(live, memory_bank=tmp_path / "bank.pt")
    with pytest.raises(ValueError, match="is live"):
        ours.init_state(live, snapshots=Snapshots())
    state = ours.init_state(live)
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    assert [step[0] for step in ours.propagate_in_video(state)] == [0, 1, 2, 3, 4]


def test_a_live_pass_in_reverse(ours: LongVideoPredictor) -> None:
    """Over the frames that are held; a prompt on its way costs no frame."""
    state = ours.init_state(iter(videos.frames(20)), frames_per_chunk=6)
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    steps = ours.propagate_in_video(state)
    for frame_idx, _, _ in steps:
        if frame_idx == 10:
            break
    steps.close()
    back = ours.propagate_in_video(state, reverse=True, max_frame_num_to_track=3)
    assert [step[0] for step in back] == [9, 8, 7, 6]
    state = ours.init_state(iter(videos.frames(20)), frames_per_chunk=6)
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    list(ours.propagate_in_video(state, 0, 4))
    seen = []
    for frame_idx, _, _ in ours.propagate_in_video(state, 4, reverse=True):
        seen.append(frame_idx)
        if frame_idx == 1:
            ours.add_new_points_or_box(state, 2, 2, box=[30, 20, 110, 90])
    assert seen == [4, 3, 2, 1, 0]


def test_a_refused_prompt_does_not_count_as_told(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, **CLICK)
    list(ours.propagate_in_video(state))
    with (
        pytest.warns(UserWarning, match="Frame 40 was tracked and has been forgotten"),
        pytest.raises(ValueError, match="cannot add box without clearing old points"),
    ):
        ours.add_new_points_or_box(state, 40, 1, box=[1, 2, 30, 40], clear_old_points=False)
    with pytest.warns(UserWarning, match="The pass starts at frame 40, but of the frames"):
        next(ours.propagate_in_video(state, 40))


@pytest.mark.parametrize("wrong", [torch.tensor(1.5), np.array([1, 2]), "3", 1.0, True, None])
def test_what_is_no_index(ours: LongVideoPredictor, mp4: Path, wrong: Any) -> None:
    state = ours.init_state(mp4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="it must be a whole number, the frame's index"):
            ours.add_new_points_or_box(state, wrong, 1, **CLICK)
