"""`longsam track`: which frames, in which order, and what is resumed."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longsam.cli import main
from longsam.masks import MaskFolder, read_masks
from longsam.testing import SyntheticVideo, load_predictor

VIDEO = SyntheticVideo(2, 60, (96, 128))
MODEL = ("--testing-model", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("span") / "video.mp4"
    VIDEO.write(path)
    return path


def click(frame_idx: int, number: int = 0) -> str:
    x, y = VIDEO.click(frame_idx, number)
    return f"{x:.0f},{y:.0f}@{frame_idx}:{number + 1}"


def track(video: Path, out: Path, *arguments: object) -> int:
    return main([str(word) for word in ("track", video, "--out", out, *MODEL, *arguments)])


def expected(video: Path, which: slice | None, frame_idx: int, *passes: dict[str, Any]) -> Any:
    """What the library gives, by the video's own indices."""
    predictor = load_predictor("cpu")
    masks = {}
    with predictor.init_state(video, frames=which) as state:
        x, y = VIDEO.click(frame_idx, 0)
        frames = state.source.frames
        at = frames.index(frame_idx)
        predictor.add_new_points_or_box(state, at, 1, points=[[round(x), round(y)]], labels=[1])
        for one in passes:
            for idx, _, logits in predictor.propagate_in_video(state, progress_bar=False, **one):
                masks[frames[idx]] = (logits[:, 0] > 0).numpy()
    return masks


@pytest.mark.parametrize(
    ("flags", "which", "prompt", "passes"),
    [
        (("--reverse",), None, 40, [{"start_frame_idx": 40, "reverse": True}]),
        (("--both",), None, 20, [{}, {"start_frame_idx": 19, "reverse": True}]),
        (("--start", 10, "--end", 50, "--step", 4), slice(10, 50, 4), 14, [{}]),
        # Frames 15 to 44, shown at 30 frames/s.
        (("--start", "0.5s", "--end", "00:01.5"), slice(15, 45), 15, [{}]),
        (
            ("--start", 3, "--step", 3, "--both"), slice(3, 60, 3), 30,
            [{}, {"start_frame_idx": 8, "reverse": True}],
        ),
    ],
)  # fmt: skip
def test_frames_and_their_order(
    flags: tuple[object, ...],
    which: slice | None,
    prompt: int,
    passes: list[dict[str, Any]],
    video: Path,
    tmp_path: Path,
) -> None:
    words = (*flags, "--point", click(prompt), "--format", "rle,overlay")
    assert track(video, tmp_path, *words) == 0
    masks = expected(video, which, prompt, *passes)
    written = {frame_idx: found for frame_idx, _, found in read_masks(tmp_path)}
    assert written.keys() == masks.keys()
    assert all(np.array_equal(written[frame_idx], masks[frame_idx]) for frame_idx in masks)
    with av.open(tmp_path / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == len(masks)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["is_finished"] is True


@pytest.mark.parametrize("flags", [("--both",), ("--reverse",), ("--both", "--step", 2)])
@pytest.mark.parametrize(
    "stops", [(25, 45), *(pytest.param(s, marks=pytest.mark.slow) for s in ((5,), (40,)))]
)
def test_a_stopped_run_resumes_in_its_direction(
    flags: tuple[object, ...], stops: tuple[int, ...], video: Path, tmp_path: Path
) -> None:
    words = (*flags, "--point", click(20), "--save-every", 7)
    assert track(video, tmp_path / "whole", *words) == 0
    words = (*words, "--frames", stops[0])
    assert track(video, tmp_path / "parts", *words) == 0
    for stop in stops[1:]:
        assert track(video, tmp_path / "parts", "--resume", "--frames", stop) == 0
    assert track(video, tmp_path / "parts", "--resume") == 0
    whole, parts = (list(read_masks(tmp_path / name)) for name in ("whole", "parts"))
    assert [step[:2] for step in whole] == [step[:2] for step in parts]
    assert all(np.array_equal(a.masks, b.masks) for a, b in zip(whole, parts, strict=True))


def test_frames_counts_those_of_the_run_before(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(video, tmp_path, "--point", click(0), "--frames", 12) == 0
    assert track(video, tmp_path, "--resume", "--frames", 12) == 0
    assert "0 frames in" in capsys.readouterr().out
    assert len(MaskFolder(tmp_path)) == 12
    assert track(video, tmp_path, "--resume", "--frames", 20) == 0
    assert len(MaskFolder(tmp_path)) == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--point", "9,9@3:1"), "these prompts differ from those of the run in"),
        (("--format", "png"), "--format: the run in"),
        (("--memory-window", "20"), "--memory-window: the run in"),
        (("--memory", "samurai"), "--memory: the run in"),
        (("--batch-objects",), "--batch-objects: the run in"),
        (("--both",), "--both: the run in"),
        (("--step", "2"), "--start, --end, --step: the run in"),
    ],
)
def test_a_run_is_resumed_as_it_was(
    flags: tuple[str, ...],
    message: str,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert track(video, tmp_path, "--point", click(0), "--frames", 3) == 0
    capsys.readouterr()
    assert track(video, tmp_path, "--resume", *flags) == 1
    assert message in capsys.readouterr().err
    assert len(MaskFolder(tmp_path)) == 3
    assert track(video, tmp_path, "--resume", "--point", click(0), "--frames", 4) == 0


def test_a_memory_policy_is_recorded_and_resumed(video: Path, tmp_path: Path) -> None:
    words = ("--point", click(0), "--memory", "samurai", "--save-every", 5)
    assert track(video, tmp_path, *words, "--frames", 12) == 0
    assert json.loads((tmp_path / "run.json").read_text())["memory"] == "samurai"
    assert track(video, tmp_path, "--resume", "--frames", 20) == 0
    predictor = load_predictor("cpu")
    with predictor.init_state(video, memory_policy="samurai") as state:
        x, y = VIDEO.click(0, 0)
        predictor.add_new_points_or_box(state, 0, 1, points=[[round(x), round(y)]], labels=[1])
        steps = predictor.propagate_in_video(state, 0, 19, progress_bar=False)
        masks = {frame_idx: (logits[:, 0] > 0).numpy() for frame_idx, _, logits in steps}
    found = {frame_idx: mask for frame_idx, _, mask in read_masks(tmp_path)}
    assert found.keys() == masks.keys()
    assert all(np.array_equal(found[i], masks[i]) for i in masks)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--step", 0), "--step is 0"),
        (("--start", 60), "--start is 60, but"),
        (("--end", "1:00"), "--end is 60 s, but"),
        (("--start", 20, "--end", 20), "which is not after --start"),
        (("--start", 5), "object 1 has a prompt on frame 0, which"),
        (("--step", 7, "--point", click(8, 1)), "frame 7 is tracked"),
    ],
)
def test_wrong_spans(
    flags: tuple[object, ...],
    message: str,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert track(video, tmp_path / "out", "--point", click(0), *flags) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
