"""Saved states: whole, of this model and video, and going on as if nothing had happened."""

import random
import resource
import signal
import subprocess
import sys
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import videos

from longsam import Autosave, LongVideoPredictor, _upstream, storage

Step = tuple[int, list[Any], torch.Tensor]


def prompted(predictor: LongVideoPredictor, video: Any, frame_idx: int = 0, **options: Any) -> Any:
    state = predictor.init_state(video, **options)
    predictor.add_new_points_or_box(state, frame_idx, 1, points=[[60, 50]], labels=[1])
    predictor.add_new_points_or_box(state, frame_idx, "two", box=[30, 20, 110, 90])
    return state


def take(steps: Any, count: int) -> list[Step]:
    return [step for _, step in zip(range(count), steps, strict=False)]


def assert_equal(mine: list[Step], expected: list[Step]) -> None:
    assert [step[:2] for step in mine] == [step[:2] for step in expected]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(mine, expected, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("interrupted_after", [1, 17, 40, 60])
def test_going_on_equals_never_having_stopped(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path, reverse: bool, interrupted_after: int
) -> None:
    start = 60 if reverse else 20
    expected = list(ours.propagate_in_video(prompted(ours, mp4, start), reverse=reverse))[:75]
    state = prompted(ours, mp4, start)
    before = take(ours.propagate_in_video(state, reverse=reverse), interrupted_after)
    ours.save_state(state, tmp_path / "state.pt")
    del state
    loaded = ours.load_state(tmp_path / "state.pt")
    after = take(ours.resume_propagation(loaded), 75 - interrupted_after)
    assert_equal(before + after, expected)
    if reverse:
        assert after[-1][0] == 0
        assert list(ours.resume_propagation(loaded)) == []


@pytest.mark.filterwarnings("ignore:memory_window is 14")
def test_a_small_window_is_gone_on_with_too(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    """The frames around the pass's start are kept as if it had not been interrupted."""
    whole, interrupted = (prompted(ours, mp4, 20, memory_window=14) for _ in range(2))
    expected = take(ours.propagate_in_video(whole), 40)
    before = take(ours.propagate_in_video(interrupted), 13)
    ours.save_state(interrupted, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    assert_equal(before + take(ours.resume_propagation(loaded), 27), expected)


def test_numpys_numbers_are_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    """Indices often come from arrays, and torch refuses to load what NumPy's scalars need."""
    state = ours.init_state(mp4, offload_state_to_cpu=np.bool_(True))  # type: ignore[arg-type]
    two = np.int64(2)
    ours.add_new_points_or_box(state, two, 1, points=[[80, 60]], labels=[1])
    take(ours.propagate_in_video(state, two, np.int64(9)), 5)
    ours.add_new_mask(state, np.int64(4), Shade.RED, np.eye(120, 160, dtype=bool))
    ours.save_state(state, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    assert_equal(*(take(ours.resume_propagation(s), 5) for s in (loaded, state)))
    ours.save_memory_bank(state, tmp_path / "bank.pt")
    ours.init_state(mp4, memory_bank=tmp_path / "bank.pt")


def test_what_would_not_load_is_not_saved(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    """And the save before it stays."""
    ours.save_state(prompted(ours, mp4), tmp_path / "state.pt")
    before = (tmp_path / "state.pt").read_bytes()
    state = prompted(ours, mp4)
    state.extras["number"] = np.complex64(1)
    with pytest.raises(ValueError, match=r"\(1\+0j\) is of type complex, which cannot be saved"):
        ours.save_state(state, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == before


class Shade(str, Enum):
    RED = "red"


@pytest.mark.filterwarnings("ignore:.*the correction is replaced")
def test_another_process_goes_on(checkpoint: Path, mp4: Path, tmp_path: Path) -> None:
    """Everything is in the file: the model is built anew, and prompts not yet tracked are kept."""
    ours = models.build_ours(checkpoint)
    state = prompted(ours, mp4)
    take(ours.propagate_in_video(state), 30)
    ours.add_new_points_or_box(state, 28, 1, points=[[40, 40]], labels=[0])
    ours.add_new_mask(state, 35, "new", np.eye(120, 160, dtype=bool))
    ours.save_state(state, tmp_path / "state.pt")
    expected = take(ours.propagate_in_video(state, start_frame_idx=28), 30)
    code = f"""
import torch, models
from datetime import timedelta
from pathlib import Path
torch.set_num_threads(1)
predictor = models.build_ours(Path({str(checkpoint)!r}))
state = predictor.load_state({str(tmp_path / "state.pt")!r})
steps = predictor.propagate_in_video(state, 28, max_frame_num_to_track=29)
torch.save([(i, list(ids), m.clone()) for i, ids, m in steps], {str(tmp_path / "out.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    assert_equal(torch.load(tmp_path / "out.pt", weights_only=True), expected)


def test_what_is_remembered_is_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = prompted(ours, mp4, memory_window=20, frames_per_chunk=5, offload_state_to_cpu=True)
    take(ours.propagate_in_video(state), 50)
    ours.save_state(state, tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt")
    used, reloaded = (ours.memory_usage(s) for s in (state, loaded))
    for usage in (used, reloaded):
        del usage["cached_features"], usage["total"]
    assert used == reloaded
    assert {key: loaded[key] for key in ("num_frames", "offload_state_to_cpu", "obj_ids")} == {
        "num_frames": 100,
        "offload_state_to_cpu": True,
        "obj_ids": [1, "two"],
    }
    for it in (state, loaded):
        with pytest.warns(UserWarning, match="Frame 3 was tracked and has been forgotten"):
            ours.add_new_points_or_box(it, 3, 1, points=[[60, 50]], labels=[1])
    assert (tmp_path / "state.pt").stat().st_size < 1.2 * sum(
        sum(k.values()) for k in used.values()
    )


def test_an_array_must_be_given_again(ours: LongVideoPredictor, tmp_path: Path) -> None:
    frames = np.stack(list(videos.frames(30)))
    state = prompted(ours, frames)
    expected = list(ours.propagate_in_video(state))
    state = prompted(ours, frames)
    before = take(ours.propagate_in_video(state), 12)
    ours.save_state(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="tracking the ndarray of frames, which has no path"):
        ours.load_state(tmp_path / "state.pt")
    loaded = ours.load_state(tmp_path / "state.pt", frames)
    assert_equal(before + list(ours.resume_propagation(loaded)), expected)


def test_a_file_that_has_moved(ours: LongVideoPredictor, tmp_path: Path) -> None:
    video = videos.write_video(tmp_path / "old.mp4", 20)
    ours.save_state(prompted(ours, video), tmp_path / "state.pt")
    video.rename(tmp_path / "new.mp4")
    with pytest.raises(FileNotFoundError, match=r"old\.mp4"):
        ours.load_state(tmp_path / "state.pt")
    assert ours.load_state(tmp_path / "state.pt", tmp_path / "new.mp4")["num_frames"] == 20


def test_other_models_and_videos_are_refused(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    ours.save_state(prompted(ours, mp4), path)
    for seed, option, differs in ((1, (), "weights"), (0, ("++model.num_maskmem=6",), "config")):
        overrides = [*models.SMALL, *option]
        checkpoint = models.save_checkpoint(tmp_path / f"{differs}.pt", seed, overrides)
        other = models.build_ours(checkpoint, overrides=overrides)
        with pytest.raises(ValueError, match=f"another model.*{differs}.pt.*the {differs} differ"):
            other.load_state(path)
    same_length = videos.write_video(tmp_path / "other.mp4", 100, options={"crf": "40"})
    with pytest.raises(ValueError, match=r"video\.mp4 \(100 frames.*other\.mp4 \(100 frames.*anot"):
        ours.load_state(path, same_length)


def test_damaged_files_are_refused(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    ours.save_state(prompted(ours, mp4), path)
    whole = path.read_bytes()
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    content = torch.load(path, weights_only=True)
    storage.write({**content, "longsam_state": 99}, tmp_path / "newer.pt")
    for name, data in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"hello")):
        (tmp_path / f"{name}.pt").write_bytes(data)
    for name in ("cut", "empty", "text", "checkpoint"):
        with pytest.raises(ValueError, match=f"{name}.pt is not a state that longsam has saved"):
            ours.load_state(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="version 99 of the format; this longsam reads version 4"):
        ours.load_state(tmp_path / "newer.pt")
    with pytest.raises(FileNotFoundError, match="no saved state at"):
        ours.load_state(tmp_path / "none.pt")


def test_no_flipped_bit_goes_unnoticed(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    """Where it does no harm the file may be loaded, with what was saved."""
    path = tmp_path / "state.pt"
    ours.save_state(prompted(ours, mp4), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            state = ours.load_state(tmp_path / "flipped.pt")
        except ValueError:
            refused += 1
        else:
            ours.save_state(state, tmp_path / "again.pt")
            assert torch.equal(*(flat(p) for p in (path, tmp_path / "again.pt")))
    assert refused > 50
    next(ours.propagate_in_video(ours.load_state(path)))


def flat(path: Path) -> torch.Tensor:
    """All numbers of a save."""
    content = torch.load(path, weights_only=True)["upstream"]
    tensors = _upstream.tensors_by_kind({**content, "cached_features": {}})
    return torch.cat([tensor.flatten().double() for _, tensor in tensors])


def test_what_cannot_be_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = ours.init_state(iter(videos.frames(5)))
    for save in (
        lambda: ours.save_state(state, path),
        lambda: ours.propagate_in_video(state, autosave=Autosave(path)),  # at once
    ):
        with pytest.raises(ValueError, match="is a live source, whose frames are gone"):
            save()
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, (1, 2), points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=r"object id \(1, 2\) is of type tuple"):
        ours.save_state(state, path)
    assert not path.exists()
    with pytest.raises(RuntimeError, match="No pass over this state"):
        next(ours.resume_propagation(state))


SAVER = """
import torch, models
from datetime import timedelta
from pathlib import Path
torch.set_num_threads(1)
predictor = models.build_ours(Path({checkpoint!r}))
state = predictor.init_state({video!r})
predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
for frame_idx, _, _ in predictor.propagate_in_video(state):
    predictor.save_state(state, {path!r})
    print(frame_idx, flush=True)
"""


def test_killed_while_saving(
    ours: LongVideoPredictor, checkpoint: Path, mp4: Path, tmp_path: Path
) -> None:
    """At any time there is a save that can be loaded: the last one, or the one that was coming."""
    rng = random.Random(0)
    path = tmp_path / "state.pt"
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    expected = list(ours.propagate_in_video(state))
    for _ in range(3):
        code = SAVER.format(checkpoint=str(checkpoint), video=str(mp4), path=str(path))
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent,
        )
        assert child.stdout is not None
        for _ in range(rng.randrange(2, 30)):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        saved = int(child.stdout.read().split()[-1:][0]) if child.stdout.peek() else None  # type: ignore[attr-defined]
        child.wait()
        child.stdout.close()
        loaded = ours.load_state(path)
        (step,) = take(ours.resume_propagation(loaded), 1)
        assert saved is None or step[0] in {saved + 1, saved + 2}
        assert_equal([step], [expected[step[0]]])


def test_autosave(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    """It is saved when the caller has dealt with a frame, and not before; the first at once."""
    path, events = tmp_path / "state.pt", []
    state = prompted(ours, mp4)
    expected = list(ours.propagate_in_video(prompted(ours, mp4)))
    before = []
    steps = ours.propagate_in_video(
        state, autosave=Autosave(path, 10, lambda: events.append(len(before)))
    )
    for step in steps:
        before.append(step)
        if len(before) == 35:
            break
    assert events == [1, 10, 20, 30]
    loaded = ours.load_state(path)
    after = list(
        ours.resume_propagation(loaded, autosave=Autosave(path, timedelta(microseconds=1)))
    )
    assert_equal(before[:30] + after, expected)
    assert list(ours.resume_propagation(ours.load_state(path))) == [], "the pass is over"
    for wrong in (0, timedelta(0), 1.5, True):
        with pytest.raises(ValueError, match=r"Autosave\(every\) is"):
            Autosave(path, wrong)  # type: ignore[arg-type]


def test_a_save_that_fails_leaves_the_one_before(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    state = prompted(ours, mp4)
    take(ours.propagate_in_video(state), 5)
    ours.save_state(state, path)
    saved = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(saved) // 2, before[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            ours.save_state(state, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_saved(ours: LongVideoPredictor, mp4: Path, tmp_path: Path) -> None:
    state = prompted(ours, mp4)
    with pytest.raises(ValueError, match="is not a file, so nothing can be saved there"):
        ours.save_state(state, tmp_path)
    with pytest.raises(ValueError, match="/dev/null is not a file"):
        ours.save_state(state, "/dev/null")
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        ours.save_state(state, tmp_path / "none" / "state.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "target.pt")
    ours.save_state(state, tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink()
    assert ours.load_state(tmp_path / "target.pt").obj_ids == [1, "two"]


def test_what_a_killed_save_has_left_is_removed(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    (tmp_path / "state.pt.99999999.partial").touch()
    ours.save_state(prompted(ours, mp4), tmp_path / "state.pt")
    assert list(tmp_path.iterdir()) == [tmp_path / "state.pt"]
