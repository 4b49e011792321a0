"""See a frame, check its masks; the flags of tracking that are about how, not where."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import videos
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from longsam import prompts
from longsam.cli import main, prompt_flags, times
from longsam.cli.drawing import MARGIN, grid_step
from longsam.frames import VideoFile
from longsam.masks import MaskFolder
from longsam.testing import SyntheticVideo, iou, load_predictor

VIDEO = SyntheticVideo(2, 40, (96, 128))
MODEL = ("--testing-model", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("see") / "video.mp4"
    VIDEO.write(path)
    return path


def click(frame_idx: int = 0, number: int = 0) -> str:
    x, y = VIDEO.click(frame_idx, number)
    return f"{x:.0f},{y:.0f}@{frame_idx}"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_frame_is_drawn_at_its_own_size_with_a_grid(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "f.png"
    assert run("frame", video, "--at", "12", "--out", out) == 0
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == (96 + 2 * MARGIN, 128 + 2 * MARGIN, 3)
    (frame,) = VideoFile(video, None).read(12, 13)
    inside = drawn[MARGIN:-MARGIN, MARGIN:-MARGIN]
    step = grid_step(128)
    between = np.ones((96, 128), bool)
    between[::step] = between[:, ::step] = False
    assert np.array_equal(inside[between], frame[between])
    assert not np.array_equal(inside[::step], frame[::step])
    assert len(np.unique(drawn[:MARGIN])) > 2  # labels
    assert run("frame", video, "--at", "0", "--at", "00:01", "--out", out) == 0
    assert {path.name for path in out.parent.iterdir()} == {"f.png", "f_0.png", "f_30.png"}


def test_times_are_those_of_the_frames(video: Path) -> None:
    source = VideoFile(video, None)
    for text, frame_idx in (("7", 7), ("0.5s", 15), ("00:01.1", 33), ("0:00:01", 30), ("0s", 0)):
        assert times.frame_at(source, times.moment(text), "--at") == frame_idx, text


def test_preview_draws_the_masks_that_the_model_makes(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "preview.png"
    words = ("--point", f"{click()}:bee", "--point", f"{click(20, 1)}:wasp", "--out", out)
    assert run("preview", video, *words, *MODEL) == 0
    said = capsys.readouterr().out
    predictor = load_predictor()
    state = predictor.init_state(video)
    for frame_idx, obj_id, number in ((0, "bee", 0), (20, "wasp", 1)):
        x, y = (round(value) for value in VIDEO.click(frame_idx, number))
        _, ids, logits = predictor.add_new_points_or_box(
            state, frame_idx, obj_id, points=[[x, y]], labels=[1]
        )
        area = int((logits[ids.index(obj_id)] > 0).sum())
        assert re.search(
            rf"frame {frame_idx}: object {obj_id}: {area:,} pixels.*score [01]\.", said
        )
    with Image.open(out) as image:
        assert image.height > 2 * 96
        assert (0, 230, 0) in {colour for _, colour in image.convert("RGB").getcolors(2**24) or []}


def test_preview_says_what_is_hardly_meant(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full.png"
    Image.new("L", (128, 96), 255).save(full)
    empty = tmp_path / "empty.png"
    Image.new("L", (128, 96), 0).save(empty)
    words = ("--not-point", "3,3:n", "--box", "60,60,20,20:q", "--mask", f"{full}:all")
    words += ("--mask", f"{empty}:none", "--out", str(tmp_path / "p.png"))
    assert run("preview", video, *words, *MODEL) == 0
    said = capsys.readouterr().out
    assert "object n, frame 0: only points beside the object" in said
    assert "the box 60,60,20,20 is inverted or empty" in said
    assert "20,20,60,60" in said
    assert "object all, frame 0: the mask covers nearly all" in said
    assert "object none, frame 0: the mask is empty" in said


def test_a_mask_of_several_objects(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:2], labels[4:] = 3, 7
    indexed = Image.fromarray(labels)
    indexed.save(tmp_path / "grey.png")
    indexed.putpalette([0] * 768)
    indexed.save(tmp_path / "indexed.png")
    info = PngInfo()
    info.add_text("longsam", json.dumps({"objects": [[3, "bee"], [7, 9]]}))
    indexed.save(tmp_path / "named.png", pnginfo=info)
    soft = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    Image.fromarray(soft).save(tmp_path / "soft.png")
    for name, ids in (
        ("grey", {3, 7}), ("indexed", {3, 7}), ("named", {"bee", 9}), ("soft", {1})
    ):  # fmt: skip
        grouped = prompts.numbered([prompt_flags.mask(f"{tmp_path / name}.png@4")])
        assert {obj_id for obj_id, _ in grouped} == ids, name
    named = prompts.numbered([prompt_flags.mask(f"{tmp_path / 'grey.png'}:one")])
    assert set(named) == {("one", 0)}


def test_how_a_run_computes_is_recorded_and_used_again(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("track", video, "--point", click(3), *MODEL)
    half = ("--dtype", "bfloat16", "--batch-objects")
    assert run(*words, *half, "--out", tmp_path / "whole") == 0
    said = capsys.readouterr()
    assert "frames 0 to 2 come before the first prompt and are not tracked" in said.err
    assert re.search(r"object 1: seen on \d+ frames, empty on \d+", said.out)
    assert run(*words, *half, "--out", tmp_path / "two", "--frames", 9) == 0
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["dtype"] == "bfloat16"
    assert record["device"] == "cpu"
    assert record["batch_objects"] is True
    assert run(*words, "--out", tmp_path / "two", "--resume", "--dtype", "float32") == 1
    assert "the run in" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "two", "--resume") == 0
    one, two = ((tmp_path / name / "masks.jsonl").read_bytes() for name in ("whole", "two"))
    assert one == two
    folder = MaskFolder(tmp_path / "two")
    assert folder.frames == list(range(3, 40))
    assert iou(folder.read(9).masks, VIDEO.masks(9)[:1])[0] > 0.5


def test_overwrite_replaces_only_once_the_run_begins(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("track", video, *MODEL, "--out", tmp_path / "out")
    assert run(*words, "--point", click(), "--frames", 8) == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    written = (tmp_path / "out" / "masks.jsonl").read_bytes()
    assert run(*words, "--point", click()) == 1
    assert "--resume continues it, --overwrite replaces it" in capsys.readouterr().err
    assert run(*words, "--point", "500,3", "--overwrite") == 1
    assert run(*words, "--point", click(), "--memory-window", 0, "--overwrite") == 1
    assert (tmp_path / "out" / "masks.jsonl").read_bytes() == written
    assert run(*words, "--point", click(), "--frames", 5, "--overwrite") == 0
    assert len(MaskFolder(tmp_path / "out")) == 5
    assert (tmp_path / "out" / "notes.txt").exists()


def test_float32_is_the_default_on_a_cpu() -> None:
    from argparse import Namespace

    from longsam.cli import model

    assert model.dtype_of(Namespace(dtype=None), torch.device("cpu")) == "float32"


def test_sigterm_stops_as_ctrl_c_does(tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    SyntheticVideo(2, 3000, (96, 128)).write(long)
    words = ("track", long, "--point", click(), "--testing-model", "--device", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "longsam", *map(str, words), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0,
    )  # fmt: skip
    assert process.stderr is not None
    progress = ""
    while not re.search(r"\b([2-9]|\d\d+)/3000", progress):
        progress += (character := process.stderr.read(1))
        assert character, progress
    assert "loading the testing model on cpu" in progress
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "To resume: longsam track" in said


def test_every_flag_says_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no line of a help is too wide."""
    monkeypatch.setenv("COLUMNS", "102")
    for command in (
        *("track", "correct", "preview", "frame", "info", "review", "show", "export", "demo"),
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 100, command
        text = text[: text.find("\nexample")] if "\nexample" in text else text
        flags = re.split(r"\n  (?=--)", text)[1:]
        assert flags
        for flag in flags:
            assert re.search(r"\(.*\)", " ".join(flag.split())), f"{command}: {flag}"


def test_info_names_what_people_ask_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = [40 * i + (200 if i > 5 else 0) for i in range(12)]
    videos.write_video(tmp_path / "phone.mp4", 12, options={"bf": "0"}, times=at)
    videos.rotate(tmp_path / "phone.mp4", 90)
    assert run("info", tmp_path / "phone.mp4") == 0
    said = capsys.readouterr().out
    for words in ("H.264 (AVC)", "rotation   270", "rate varies", "0.000 s (first frame) to 0.640"):
        assert words in said
    assert "interlaced" not in said
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    videos.write_video(tmp_path / "tv.mkv", 12, options=options)
    assert run("info", tmp_path / "tv.mkv") == 0
    said = capsys.readouterr().out
    assert "interlaced" in said
    assert "varies" not in said


def test_info_knows_results_from_images(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--point", click(), "--frames", 5, "--out", tmp_path, "--format", "rle,png")
    assert run("track", video, *words, *MODEL) == 0
    capsys.readouterr()
    assert run("info", tmp_path) == 0
    said = capsys.readouterr().out
    for words_ in ("masks written by longsam", "5: 0 to 4", "in float32 on cpu", "object 1:"):
        assert words_ in said
    assert run("info", tmp_path / "png") == 0
    assert "frames     5" in capsys.readouterr().out


def test_main_does_not_look_at_sys_argv(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["notebook", "--nonsense"])
    assert run("frame", video, "--out", tmp_path / "f.png") == 0
