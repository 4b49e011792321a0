"""`longsam correct`: the masks are upstream's of the same calls, and a kill loses nothing."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor

from longsam import Snapshots
from longsam.cli import main
from longsam.masks import MaskFolder, read_masks
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo, load_predictor

NUM_FRAMES = 60
VIDEO = SyntheticVideo(2, NUM_FRAMES, (96, 128))
MODEL = ("--testing-model", "--device", "cpu", "--quiet")
EVERY = ("--snapshot-every", "10")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("correct") / "video.mp4"
    VIDEO.write(path)
    return path


def click(frame_idx: int, number: int = 0) -> tuple[float, float]:
    x, y = VIDEO.click(frame_idx, number)
    return round(x), round(y)


def point(frame_idx: int, number: int = 0) -> str:
    x, y = click(frame_idx, number)
    return f"{x},{y}@{frame_idx}:{number + 1}"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def track(video: Path, out: Path, *words: object) -> int:
    return run("track", video, "--out", out, *MODEL, *EVERY, *words)


def correct(out: Path, *words: object) -> int:
    return run("correct", out, "--quiet", *words)


Calls = list[tuple[str, Any]]


def expected(video: Path, calls: Calls) -> dict[int, Any]:
    """The masks of upstream after the same calls, each frame as it was given last."""
    predictor = upstream()
    state = predictor.init_state(str(video))
    masks = {}
    for name, value in calls:
        if name == "point":
            x, y = click(*value)
            steps = [
                predictor.add_new_points_or_box(
                    state, value[0], value[1] + 1, points=[[x, y]], labels=[1]
                )
            ]
        else:
            start, reverse, stop = value
            steps = predictor.propagate_in_video(
                state, start, max_frame_num_to_track=abs(stop - start), reverse=reverse
            )
        for frame_idx, obj_ids, logits in steps:
            if len(obj_ids) == 2:  # prompts are given one after the other
                masks[frame_idx] = (logits[:, 0] > 0).numpy()
    return masks


def upstream() -> Any:
    return build_sam2_video_predictor(
        CONFIG, str(CHECKPOINT), device="cpu", hydra_overrides_extra=list(OVERRIDES)
    )


def assert_masks(out: Path, masks: dict[int, Any]) -> None:
    written = {frame_idx: found for frame_idx, _, found in read_masks(out)}
    assert written.keys() == masks.keys()
    differ = [i for i in masks if not np.array_equal(written[i], masks[i])]
    assert differ == []


def both_points(frame_idx: int) -> tuple[str, ...]:
    return "--point", point(frame_idx), "--point", point(frame_idx, 1)


def start(frame_idx: int) -> Calls:
    return [("point", (frame_idx, 0)), ("point", (frame_idx, 1))]


LAST = NUM_FRAMES - 1
CASES: dict[str, tuple[tuple[str, ...], int, tuple[tuple[int, int], ...], Calls]] = {
    "forward": ((), 0, ((25, 1),), [("pass", (0, False, LAST)), ("point", (25, 1)),
        ("pass", (26, False, LAST))]),
    "two frames": ((), 0, ((45, 0), (15, 1)), [("pass", (0, False, LAST)), ("point", (15, 1)),
        ("pass", (16, False, 45)), ("point", (45, 0)), ("pass", (46, False, LAST))]),
    "the last frame": ((), 0, ((LAST, 1),), [("pass", (0, False, LAST)), ("point", (LAST, 1))]),
    "the first frame": ((), 0, ((0, 1),), [("pass", (0, False, LAST)), ("point", (0, 1)),
        ("pass", (1, False, LAST))]),
    "reverse": (("--reverse",), 50, ((30, 1),), [("pass", (50, True, 0)), ("point", (30, 1)),
        ("pass", (29, True, 0))]),
    "both, forward": (("--both",), 25, ((40, 1),), [("pass", (25, False, LAST)),
        ("pass", (24, True, 0)), ("point", (40, 1)), ("pass", (41, False, LAST))]),
    "both, in reverse": (("--both",), 25, ((15, 0),), [("pass", (25, False, LAST)),
        ("pass", (24, True, 0)), ("point", (15, 0)), ("pass", (14, True, 0))]),
    "both, each": (("--both",), 25, ((15, 0), (40, 1)), [("pass", (25, False, LAST)),
        ("pass", (24, True, 0)), ("point", (40, 1)), ("pass", (41, False, LAST)),
        ("point", (15, 0)), ("pass", (14, True, 0))]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")
@pytest.mark.parametrize(
    "case",
    [
        case if case in {"forward", "both, each"} else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_masks_are_those_of_upstream_doing_the_same(case: str, video: Path, tmp_path: Path) -> None:
    flags, first, corrected, calls = CASES[case]
    out = tmp_path / "out"
    words = (*flags, *both_points(first), "--format", "rle,png,object_png,overlay")
    assert track(video, out, *words) == 0
    prompts = [word for at in corrected for word in ("--point", point(*at))]
    assert correct(out, *prompts) == 0
    assert_masks(out, expected(video, [*start(first), *calls]))
    for name in ("png", "object_png"):
        assert len(list(read_masks(out, name))) == len(MaskFolder(out))
    with av.open(out / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == len(MaskFolder(out))
    assert not (out / "correction").exists()
    assert not (out / "corrected").exists()


@pytest.mark.filterwarnings("ignore:.*the correction is (replaced|lost)")
def test_corrections_one_after_the_other(video: Path, tmp_path: Path) -> None:
    assert track(video, tmp_path, *both_points(0)) == 0
    assert correct(tmp_path, "--point", point(35, 1)) == 0
    assert correct(tmp_path, "--point", point(12, 0)) == 0
    assert_masks(
        tmp_path,
        expected(
            video,
            [*start(0), ("pass", (0, False, LAST)), ("point", (35, 1)), ("pass", (36, False, LAST)),
             ("point", (12, 0)), ("pass", (13, False, LAST))],
        ),
    )  # fmt: skip


def test_a_run_that_was_stopped_is_corrected_and_then_resumed(video: Path, tmp_path: Path) -> None:
    assert track(video, tmp_path, *both_points(0), "--frames", 40) == 0
    assert correct(tmp_path, "--point", point(20, 1)) == 0
    assert MaskFolder(tmp_path).frames == list(range(40))
    assert run("track", video, "--out", tmp_path, "--resume", "--quiet") == 0
    calls = [("pass", (0, False, 39)), ("point", (20, 1)), ("pass", (21, False, LAST))]
    assert_masks(tmp_path, expected(video, [*start(0), *calls]))


def test_with_a_step_frames_are_those_of_the_video(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(video, tmp_path, *both_points(12), "--start", 3, "--step", 3) == 0
    before = dict((i, m) for i, _, m in read_masks(tmp_path))
    assert correct(tmp_path, "--point", point(31, 1)) == 1
    assert "frame 30 is tracked" in capsys.readouterr().err
    assert correct(tmp_path, "--point", point(30, 1)) == 0
    after = dict((i, m) for i, _, m in read_masks(tmp_path))
    assert list(after) == list(range(12, 60, 3))
    differ = [i for i in after if not np.array_equal(before[i], after[i])]
    assert differ
    assert min(differ) >= 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--point", "5,5@50:1"), "has not been tracked yet"),
        (("--point", "500,5@10:1"), "is outside the frame"),
        ((), "no object was named"),
        (("--resume",), "holds no stopped correction"),
    ],
)
def test_wrong_corrections_change_nothing(
    words: tuple[str, ...],
    message: str,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert track(video, tmp_path, *both_points(0), "--frames", 40) == 0
    names = ("frames.jsonl", "masks.jsonl", "state.pt", "run.json")
    before = [(tmp_path / name).read_bytes() for name in names]
    assert correct(tmp_path, *words) == 1
    assert message in capsys.readouterr().err
    assert [(tmp_path / name).read_bytes() for name in names] == before


@pytest.mark.slow
def test_killed_the_old_masks_stay_and_it_resumes(video: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    SyntheticVideo(2, 160, (96, 128)).write(long)
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = ("--point", point(20, 1), "--point", point(50, 0))
    for folder in (whole, out):
        assert track(long, folder, *both_points(0)) == 0
    assert correct(whole, *words) == 0
    choose = random.Random(5)
    old = {i: m for i, _, m in read_masks(out)}
    command = [sys.executable, "-W", "ignore", __file__, str(out), *words]
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(choose.randrange(3, 60)):  # a line a frame
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        now = {i: m for i, _, m in read_masks(out)}
        assert all(np.array_equal(old[i], now[i]) for i in old)
        command = [*command[:5], "--resume"]
    assert correct(out, "--resume") == 0
    for name in ("frames.jsonl", "masks.jsonl"):
        assert (whole / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.slow  # 14,000 frames
def test_corrected_far_back_in_a_long_video(tmp_path: Path) -> None:
    num_frames, at = 3000, 1200
    truth = SyntheticVideo(2, num_frames, (96, 128))
    truth.write(tmp_path / "long.mp4")
    clicks = {i: [round(value) for value in truth.click(i, 0)] for i in (0, at)}

    def outputs(predictor: Any, **options: Any) -> Iterator[tuple[int, torch.Tensor]]:
        state = predictor.init_state(str(tmp_path / "long.mp4"), **options)
        predictor.add_new_points_or_box(state, 0, 1, points=[clicks[0]], labels=[1])
        for frame_idx, _, logits in predictor.propagate_in_video(state):
            yield frame_idx, logits
        if options:
            predictor.rewind(state, at)
        step = predictor.add_new_points_or_box(state, at, 1, points=[clicks[at]], labels=[1])
        yield at, step[2]
        for frame_idx, _, logits in predictor.propagate_in_video(state, at + 1):
            yield frame_idx, logits

    words = ["--point", "{},{}@0:1".format(*clicks[0]), *MODEL, "--snapshot-every", "500"]
    assert run("track", tmp_path / "long.mp4", "--out", tmp_path / "out", *words) == 0
    assert correct(tmp_path / "out", "--point", "{},{}@1200:1".format(*clicks[at])) == 0
    written = MaskFolder(tmp_path / "out")
    ours = outputs(load_predictor(), snapshots=Snapshots(every=500))
    num_compared = 0
    for (frame_idx, theirs), (own_idx, own) in zip(outputs(upstream()), ours, strict=True):
        assert frame_idx == own_idx
        assert torch.equal(theirs, own), f"output {num_compared}, frame {frame_idx}"
        num_compared += 1
        if num_compared <= at or num_compared > num_frames:
            masks = written.read(frame_idx).masks
            assert np.array_equal(masks, (theirs[:, 0] > 0).numpy()), frame_idx
    assert num_compared == num_frames + num_frames - at
    shown = [written.areas(i)[0] > 0 for i in range(at, num_frames)]
    assert np.mean(shown) > 0.2


if __name__ == "__main__":  # the process that is killed: it says when it has written a frame
    from datetime import timedelta

    from longsam.cli import correct as command
    from longsam.masks import MaskWriter

    command.SAVE_EVERY = timedelta(milliseconds=200)
    write = MaskWriter.write

    def note_write(*given: Any, **named: Any) -> None:
        write(*given, **named)
        print("frame", flush=True)

    MaskWriter.write = note_write  # type: ignore[method-assign]
    correct(Path(sys.argv[1]), *sys.argv[2:])
