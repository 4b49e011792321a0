"""What a state is besides upstream's dict, and what a save says of model and video."""

import copy
import pickle
import signal
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import videos

from longsam import Autosave, LongVideoPredictor, Snapshots, State
from longsam.fingerprint import fingerprint
from longsam.frame_map import FrameMap


def prompted(predictor: LongVideoPredictor, video: Any, **options: Any) -> State:
    state = predictor.init_state(video, **options)
    predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    return state


def test_names_of_a_state(ours: LongVideoPredictor, mp4: Path) -> None:
    with prompted(ours, mp4) as state:
        assert state.source.num_frames == 100
        assert state.obj_ids == [1] == state["obj_ids"]
        assert state.last_frame_idx == -1
        for _ in ours.propagate_in_video(state, max_frame_num_to_track=4):
            pass
        assert state.last_frame_idx == 4
        state.extras["note"] = "kept"
        steps = ours.propagate_in_video(state)
        next(steps)
        assert state.extras == {}, "what was noted of an earlier frame is gone"
    with pytest.raises(RuntimeError, match="The state is closed"):
        next(steps)
    with pytest.raises(RuntimeError, match="The state is closed"):
        next(ours.propagate_in_video(state))
    with pytest.raises(RuntimeError, match=r"is closed.*Open it again with init_state"):
        state["images"][7]
    ours.close(state)  # again does no harm


def test_a_closed_state_leaves_no_snapshots(ours: LongVideoPredictor, mp4: Path) -> None:
    with prompted(ours, mp4, snapshots=Snapshots(every=10)) as state:
        next(ours.propagate_in_video(state))
        folder = state["longsam"].history.folder
        assert list(folder.iterdir())
    assert not folder.exists()


KILLED = """
import os, signal, sys, models
from pathlib import Path
from longsam import Snapshots
predictor = models.build_ours(Path({checkpoint!r}))
state = predictor.init_state({video!r}, snapshots=Snapshots(every=10))
predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
next(predictor.propagate_in_video(state))
print(state["longsam"].history.folder, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_killed_sessions_snapshots_are_removed_by_the_next(
    ours: LongVideoPredictor,
    checkpoint: Path,
    mp4: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = KILLED.format(checkpoint=str(checkpoint), video=str(mp4))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert result.returncode == -signal.SIGTERM, result.stderr
    left = Path(result.stdout.split()[-1])
    assert left.parent == tmp_path
    assert len(list(left.iterdir())) == 2  # a snapshot and the lock
    states = [prompted(ours, mp4, snapshots=Snapshots(every=10)) for _ in range(2)]
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 2, "those that are in use stay"
    for state in states:
        state.close()
    assert list(tmp_path.iterdir()) == []


def test_a_state_cannot_be_copied(ours: LongVideoPredictor, mp4: Path) -> None:
    state = prompted(ours, mp4)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"Use predictor\.save_state.*load_state"):
            copied(state)


def test_extras_are_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = prompted(ours, mp4)
    next(ours.propagate_in_video(state))
    state.extras["table"] = {"rows": [1, 2.5, None], "mask": torch.eye(3)}
    ours.save_state(state, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    assert loaded.extras["table"]["rows"] == [1, 2.5, None]
    assert torch.equal(loaded.extras["table"]["mask"], torch.eye(3))
    ours.add_new_points_or_box(loaded, 0, 2, box=[30, 20, 110, 90])
    ours.remove_object(loaded, 1)
    assert loaded.extras == {}


def test_options_are_checked_once_and_saved_as_themselves(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "memory_window": np.int64(20),
        "frames_per_chunk": 6,
        "max_prompt_frames": 3,
        "batch_objects": 2,
        "snapshots": Snapshots(every=7, folder=tmp_path / "s", max_bytes=10**9),
    }
    state = prompted(ours, mp4, **options)
    ours.save_state(state, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    assert loaded["longsam"].options == state["longsam"].options
    assert type(loaded["longsam"].options.memory_window) is int
    for wrong in ("yes", 300, True):
        with pytest.raises(ValueError, match=r"it must be longsam\.Snapshots"):
            ours.init_state(mp4, snapshots=wrong)  # type: ignore[arg-type]
    for wrong in ("state.pt", 500):
        with pytest.raises(ValueError, match=r"it must be longsam\.Autosave"):
            ours.propagate_in_video(state, autosave=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Autosave\(path\) is 5"):
        Autosave(5)  # type: ignore[arg-type]


def test_autosave_saves_the_last_frame_once(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    for num_frames, expected in ((10, [1, 5, 10]), (12, [1, 5, 10, 12]), (1, [1])):
        events: list[int] = []
        seen: list[int] = []
        autosave = Autosave(tmp_path / "state.pt", 5, lambda e=events, s=seen: e.append(len(s)))
        state = prompted(ours, mp4)
        for step in ours.propagate_in_video(state, 0, num_frames - 1, autosave=autosave):
            seen.append(step[0])
        assert events == expected
    autosave = Autosave(str(tmp_path / "state.pt"), np.int64(3))  # type: ignore[arg-type]
    assert type(autosave.every) is int
    assert Autosave("x", timedelta(minutes=2)).every == timedelta(minutes=2)


def test_weights_that_change_after_a_save_are_noticed(
    checkpoint: Path, mp4: Path, tmp_path: Path
) -> None:
    predictor = models.build_ours(checkpoint)
    state = prompted(predictor, mp4)
    predictor.save_state(state, tmp_path / "state.pt")
    before = fingerprint(predictor)["weights"]
    parameter = next(predictor.memory_encoder.parameters())
    with torch.no_grad():
        parameter.add_(1e-3)
    with pytest.raises(ValueError, match="the weights differ"):
        predictor.load_state(tmp_path / "state.pt")
    with torch.no_grad():
        parameter.sub_(1e-3)
    other = models.build_ours(checkpoint)
    predictor.load_state_dict(other.state_dict())
    assert fingerprint(predictor)["weights"] == before
    predictor.load_state(tmp_path / "state.pt")


def test_another_video_with_the_same_first_frame_is_refused(
    ours: LongVideoPredictor, tmp_path: Path
) -> None:
    frames = np.stack(list(videos.frames(40)))
    other = frames.copy()
    other[1:] = other[:0:-1]
    paths = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    videos.write_video(paths[0], 40, options={"g": "10"})
    videos.remux(paths[0], tmp_path / "copy.mkv")
    state = prompted(ours, paths[0])
    for _ in ours.propagate_in_video(state, max_frame_num_to_track=20):
        pass
    ours.save_state(state, tmp_path / "state.pt")
    ours.load_state(tmp_path / "state.pt", tmp_path / "copy.mkv")  # the same frames
    with pytest.raises(ValueError, match="is another video"):
        ours.load_state(tmp_path / "state.pt", other)
    state = prompted(ours, frames)
    ours.save_state(state, tmp_path / "array.pt")
    ours.load_state(tmp_path / "array.pt", frames.copy())
    with pytest.raises(ValueError, match="is another video"):
        ours.load_state(tmp_path / "array.pt", other)


def test_passes_draw_upstreams_bar_or_none(
    ours: LongVideoPredictor, mp4: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn, hidden = (prompted(ours, mp4) for _ in range(2))
    for is_drawn in (None, True, False):
        next(ours.propagate_in_video(drawn, 0, 0, progress_bar=is_drawn))
        assert ("propagate in video" in capfd.readouterr().err) is (is_drawn is not False)
    # One that hides it does not hide the other's, whichever ends first.
    first = ours.propagate_in_video(hidden, progress_bar=False)
    next(first)
    second = ours.propagate_in_video(drawn)
    next(second)
    first.close()
    second.close()
    assert "propagate in video" in capfd.readouterr().err
    live = prompted(ours, iter(videos.frames(3)))
    next(ours.propagate_in_video(live))
    assert capfd.readouterr().err == ""


def test_numpys_ids_are_pythons(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, np.int64(0), np.int64(3), points=[[60, 50]], labels=[1])
    ours.add_new_mask(state, np.int32(0), np.str_("two"), np.eye(120, 160, dtype=bool))
    assert [type(i) for i in state.obj_ids] == [int, str]
    for step in ours.propagate_in_video(state, np.int64(0), np.int64(2)):
        assert type(step[0]) is int
    ours.clear_all_prompts_in_frame(state, np.int64(0), np.str_("two"))
    ours.remove_object(state, np.int64(3))
    assert state.obj_ids == ["two"]
    with pytest.raises(ValueError, match=r"object id \[1\] is of type list; use an integer"):
        ours.add_new_points_or_box(state, 0, [1], points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=r"points has shape \(2, 2\) and labels \(1,\)"):
        ours.add_new_points_or_box(state, 0, 1, points=[[60, 50], [1, 2]], labels=[1])
    with pytest.raises(ValueError, match=r"box has shape \(3,\); it must be the four numbers"):
        ours.add_new_points_or_box(state, 0, 1, box=[60, 50, 3])
    assert state.obj_ids == ["two"]


def test_frame_map_is_a_dict_in_runs() -> None:
    rng = np.random.default_rng(0)
    by_frame: dict[int, int] = {}
    runs = FrameMap()
    for _ in range(3000):
        frame_idx, number = int(rng.integers(0, 40)), int(rng.integers(0, 3))
        if rng.random() < 0.3:
            by_frame.pop(frame_idx, None)
            runs.discard(frame_idx)
        else:
            by_frame[frame_idx] = number
            runs[frame_idx] = number
        assert {f: n for a, b, n in runs.runs() for f in range(a, b)} == by_frame
        listed = list(runs.runs())
        joined = pairwise(listed)
        assert all(a[1] < b[0] or (a[1] == b[0] and a[2] != b[2]) for a, b in joined)
    assert all(runs.get(f) == by_frame.get(f) for f in range(-2, 45))
    assert list(FrameMap(runs.runs()).runs()) == list(runs.runs())
    with pytest.raises(ValueError, match="out of order"):
        FrameMap(iter([(5, 9, 0), (7, 12, 1)]))
