"""The command line, run as a user runs it."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from longsam.cli import main, prompt_flags
from longsam.masks import MaskFolder, read_masks
from longsam.prompts import Prompt
from longsam.testing import SyntheticVideo, iou, load_predictor

VIDEO = SyntheticVideo(2, 60, (96, 128))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "video.mp4"
    VIDEO.write(path)
    return path


def clicks() -> list[str]:
    points = [VIDEO.click(0, number) for number in range(VIDEO.num_objects)]
    return [word for x, y in points for word in ("--point", f"{x:.0f},{y:.0f}")]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def track(video: Path, out: Path, *arguments: object) -> int:
    words = (*arguments, "--testing-model", "--device", "cpu", "--quiet")
    return run("track", video, "--out", out, *words)


def test_track_writes_the_masks_of_a_pass(video: Path, tmp_path: Path) -> None:
    formats = "rle,png,object_png,overlay"
    assert track(video, tmp_path / "out", *clicks(), "--format", formats) == 0
    predictor = load_predictor()
    state = predictor.init_state(video)
    for number in range(VIDEO.num_objects):
        x, y = (round(value) for value in VIDEO.click(0, number))
        predictor.add_new_points_or_box(state, 0, number + 1, points=[[x, y]], labels=[1])
    scores = []
    passes = zip(predictor.propagate_in_video(state), read_masks(tmp_path / "out"), strict=True)
    for (frame_idx, obj_ids, mask_logits), written in passes:
        assert (frame_idx, obj_ids) == written[:2]
        assert np.array_equal(written.masks, (mask_logits[:, 0] > 0).numpy())
        visible = VIDEO.visible(frame_idx)
        scores += list(iou(written.masks, VIDEO.masks(frame_idx))[visible])
    assert np.mean(scores) > 0.8
    for name in ("png", "object_png"):
        assert len(list(read_masks(tmp_path / "out", name))) == 60
    with av.open(tmp_path / "out" / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 60


def test_prompts_of_every_kind(video: Path, tmp_path: Path) -> None:
    masks = VIDEO.masks(10)
    Image.fromarray(masks[0]).save(tmp_path / "mask.png")
    x, y = VIDEO.click(0, 1)
    (tmp_path / "prompts.json").write_text(
        json.dumps(
            [
                {"frame": 0, "object": "b", "points": [[x, y], [2, 2]], "labels": [1, 0]},
                {"object": 5, "box": VIDEO.box(0, 1)},
                {"object": 6, "mask": "mask.png", "frame": 10},
            ]
        )
    )
    x0, y0, x1, y1 = VIDEO.box(4, 0)
    words = (
        "--prompts", tmp_path / "prompts.json", "--mask", f"{tmp_path / 'mask.png'}@10:7",
        "--box", f"{x0},{y0},{x1},{y1}@4:box", "--not-point", "2,2@0:b", "--frames", 12,
    )  # fmt: skip
    assert track(video, tmp_path / "out", *words) == 0
    folder = MaskFolder(tmp_path / "out")
    assert folder.frames == list(range(12))
    assert set(folder.obj_ids(0)) == {"b", 5, 6, 7, "box"}
    read = dict(zip(folder.obj_ids(10), folder.read(10).masks, strict=True))
    for obj_id, truth in (("b", 1), (5, 1), (6, 0), (7, 0), ("box", 0)):
        assert iou(read[obj_id], masks[truth]) > 0.7, obj_id


def test_prompts_as_they_are_written() -> None:
    assert prompt_flags.point("3,4.5") == Prompt("point", (3, 4.5), 0, None)
    assert prompt_flags.point("3,4@12:7") == Prompt("point", (3, 4), 12, 7)
    assert prompt_flags.box("1,2,3,4:left ant") == Prompt("box", (1, 2, 3, 4), 0, "left ant")
    assert prompt_flags.mask("a/b@3.png") == Prompt("mask", Path("a/b@3.png"), 0, None)
    windows = prompt_flags.mask(r"C:\masks\bee.png@7:2")
    assert windows == Prompt("mask", Path(r"C:\masks\bee.png"), 7, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no object was named"),
        (["--point", "500,10"], "(500, 10) is outside the frame, which is 128 pixels wide"),
        (["--point", "5,10@99"], "A prompt is on frame 99, but"),
        (["--mask", "nothing.png"], "There is no mask image at nothing.png"),
        (["--point", "5,10", "--frames", "0"], "--frames is 0"),
        (["--box", "1,1,9,9:1", "--box", "2,2,9,9:1"], "more than one box"),
        (["--prompts", "bad.json"], 'prompt 0: unknown keys ["point"]'.replace('"', "'")),
    ],
)
def test_errors_are_one_line(
    video: Path, tmp_path: Path, words: list[str], message: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('[{"object": 1, "point": [3, 4]}]')
    assert track(video, tmp_path / "out", *words) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("longsam: error: ")
    assert message in error
    assert "\n" not in error


def test_other_errors(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = ("--point", "5,5", "--out", tmp_path / "out")
    assert run("track", video, *point) == 1
    assert "no model: give --checkpoint" in capsys.readouterr().err
    assert run("track", video, *point, "--checkpoint", "mine.pt") == 1
    assert "There is no checkpoint at mine.pt" in capsys.readouterr().err
    assert run("track", video, *point, "--checkpoint", "sam2.1_hiera_tiny.pt") == 1
    assert "sam2.1_hiera_tiny.pt" in capsys.readouterr().err
    assert run("track", tmp_path / "none.mp4", *point, "--testing-model") == 1
    assert "There is no video file" in capsys.readouterr().err
    assert run("show", tmp_path) == 1
    assert "holds no masks" in capsys.readouterr().err
    for words in (["track", str(video), "--point", "5"], ["nonsense"], ["track"]):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 2


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["track", "--help"]):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 0
    said = capsys.readouterr().out
    for word in ("track", "info", "show", "demo", "--point", "masks.jsonl", "--resume", "Ctrl-C"):
        assert word in said


def test_info(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", video, "--objects", 3) == 0
    said = capsys.readouterr().out
    for words in (
        "frames     60",
        "128 x 96 pixels",
        "30.000 frames/s",
        "H.264 (AVC), pixels yuv420p",
        "180",
    ):
        assert words in said


def test_show_draws_a_contact_sheet(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(video, tmp_path, *clicks(), "--frames", 30) == 0
    assert run("show", tmp_path, "--every", 10) == 0
    assert "3 of 30 frames" in capsys.readouterr().out
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width >= 1000
        assert len(sheet.convert("RGB").getcolors(2**24) or []) > 500
    video.rename(tmp_path / "moved.mp4")
    try:
        assert run("show", tmp_path, "--out", tmp_path / "sheet.png") == 0
        assert "--video FILE" in capsys.readouterr().out
    finally:
        (tmp_path / "moved.mp4").rename(video)


def test_demo_says_how_to_track_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", tmp_path / "demo.mp4", "--frames", 12) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith("longsam track ")
    words = command.split()[1:-1]
    assert run(*words, tmp_path / "out", "--quiet") == 0
    assert len(MaskFolder(tmp_path / "out")) == 12
    assert run("demo", tmp_path / "demo.mp4") == 1


def test_ctrl_c_leaves_whole_files_and_says_how_to_resume(video: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    SyntheticVideo(2, 2000, (96, 128)).write(long)
    words: list[Any] = ["track", long, *clicks(), "--testing-model", "--device", "cpu"]
    words += ["--out", tmp_path / "out", "--format", "rle,overlay"]
    process = subprocess.Popen(
        [sys.executable, "-m", "longsam", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    )
    assert process.stderr is not None
    progress = ""
    while not re.search(r"\b([2-9]\d|1?\d{3})/2000", progress):
        progress += (character := process.stderr.read(1))
        assert character, progress
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = len(MaskFolder(tmp_path / "out"))
    assert written >= 20
    assert f"Stopped after frame {written - 1}. To resume: longsam track" in said
    command = said.strip().splitlines()[-1].split("To resume: longsam ")[1].split()
    assert command[-1] == "--resume"
    assert run(*command, "--frames", written + 20, "--quiet") == 0
    folder = MaskFolder(tmp_path / "out")
    assert folder.frames == list(range(written + 20))
    assert track(long, tmp_path / "whole", *clicks(), "--frames", written + 20) == 0
    for name in ("masks.jsonl", "frames.jsonl"):
        resumed, whole = ((tmp_path / o / name).read_text() for o in ("out", "whole"))
        assert resumed.splitlines()[1:] == whole.splitlines()[1:]
    truth = SyntheticVideo(2, 2000, (96, 128))
    last = folder.frames[-1]
    visible = truth.visible(last)
    assert np.mean(iou(folder.read(last).masks, truth.masks(last))[visible]) > 0.7
    with av.open(tmp_path / "out" / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == written + 20


def test_killed_and_resumed_gives_the_files_of_one_run(video: Path, tmp_path: Path) -> None:
    words = [*clicks(), "--format", "rle,png,object_png"]
    assert track(video, tmp_path / "whole", *words) == 0
    resumed = [*words, "--resume", "--save-every", "7"]
    command: list[Any] = [sys.executable, "-m", "longsam", "track", video, *resumed]
    command += ["--testing-model", "--device", "cpu", "--out", tmp_path / "killed"]
    for until in (3, 20, 40):  # the first time before there is a save
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        progress = ""
        while not any(int(n) >= until for n in re.findall(r"\b(\d+)/60", progress)):
            progress += process.stderr.read(1)
        process.kill()
        process.wait()
        process.stderr.close()
    assert track(video, tmp_path / "killed", *resumed) == 0
    whole, killed = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "killed")
    )
    for files in (whole, killed):
        for path in [p for p in files if p.name == "state.pt" or p.parts[0] == "snapshots"]:
            del files[path]
    assert whole.keys() == killed.keys()
    assert [p for p in whole if whole[p] != killed[p]] == []


def test_it_runs_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "longsam", "--version"], capture_output=True, text=True
    )
    assert re.fullmatch(r"longsam \d+\.\d+\.\d+\n", result.stdout)
