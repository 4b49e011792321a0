"""Forty wrong command lines: one line each that says what to do, and no file left."""

import json
from pathlib import Path

import pytest
from PIL import Image

from longsam.cli import main
from longsam.testing import SyntheticVideo

POINT = "--point 5,10 "
MODEL = "--testing-model --device cpu --quiet "
TRACK = "track video.mp4 --out new/out " + MODEL
PREVIEW = "preview video.mp4 --out new/p.png " + MODEL
FRAME = "frame video.mp4 --out new/f.png "

WRONG = {
    TRACK: "or --prompts, or let it find them: --everything.",
    TRACK + "--point 500,10": "(500, 10) is outside the frame",
    TRACK + "--point -5,63": "(-5, 63) is outside the frame",
    TRACK + "--point 5,10@99": "frame 99, but video.mp4 has 12 frames: 0 to 11",
    TRACK + "--point 5": "must be X,Y in pixels",
    TRACK + "--point a,b": "must be X,Y in pixels",
    TRACK + "--not-point 5,5": "must name its object",
    TRACK + "--not-point 5,5:bee": "only points beside the object",
    TRACK + "--box 1,2,3": "must be X0,Y0,X1,Y1",
    TRACK + "--box 60,60,20,20": "is inverted or empty",
    TRACK + "--box 1,1,9,9:1 --box 2,2,9,9:1": "more than one box",
    TRACK + "--mask none.png": "There is no mask image at none.png",
    TRACK + "--mask text.txt": "cannot be read as an image",
    TRACK + "--mask small.png": "is 8x8 pixels, but the video is 128x96",
    TRACK + "--prompts text.txt": "is not JSON",
    TRACK + "--prompts none.json": "none.json: no such file",
    TRACK + "--prompts keys.json": "unknown keys",
    TRACK + POINT + "--frames 0": "--frames is 0",
    TRACK + POINT + "--frames many": "invalid int value",
    TRACK + POINT + "--save-every often": "must be a frame's number (1200) or a time",
    TRACK + POINT + "--format gif": "is not one of rle, png",
    TRACK + POINT + "--memory-window 0": "memory_window is 0",
    TRACK + POINT + "--dtype int8": "invalid choice",
    TRACK + POINT + "--device gpu": "--device is 'gpu'",
    TRACK + POINT + "--resume --overwrite": "cannot be combined",
    TRACK + POINT + "--out text.txt": "which is a file",
    TRACK + POINT + "--out text.txt/out": "nothing can be written",
    TRACK + POINT + "--colour red": "unrecognized arguments",
    "track none.mp4 --out new " + MODEL + POINT: "There is no video file or image folder",
    "track empty.mp4 --out new " + MODEL + POINT: "is empty (0 bytes)",
    "track text.txt --out new " + MODEL + POINT: "cannot be opened as a video",
    "track video.mp4 --out new " + POINT: "no model: give --checkpoint",
    "track video.mp4 " + MODEL + POINT: "required: --out",
    "track video.mp4 --out new --quiet --checkpoint none.pt " + POINT: "no checkpoint at none.pt",
    "track video.mp4 --out new --quiet --checkpoint text.txt "
    + POINT: "is not a PyTorch checkpoint",
    "track video.mp4 --out new --quiet --checkpoint page.pt " + POINT: "is a web page",
    TRACK + POINT + "--step 0": "--step is 0",
    TRACK + POINT + "--start 12": "--start is 12, but video.mp4 has 12 frames",
    TRACK + POINT + "--start 4": "frame 4 is tracked",
    TRACK + POINT + "--end noon": "must be a frame's number (1200) or a time",
    TRACK + POINT + "--reverse --both": "not allowed with argument",
    TRACK + POINT + "--snapshot-every often": "must be a frame's number (1200) or a time",
    TRACK + "--everything " + POINT: "--mask and --prompts cannot be combined",
    TRACK + "--everything --prompts keys.json": "--prompts cannot be combined",
    TRACK + "--everything --reverse": "--reverse cannot be combined",
    TRACK + "--everything --both": "--both cannot be combined",
    TRACK + "--everything --vos-optimized": "--vos-optimized cannot be combined",
    TRACK + "--everything --snapshot-every 9": "--snapshot-every cannot be combined",
    TRACK + "--everything --format rle,png": "--format png cannot be combined",
    TRACK + "--everything --detect-every 0": "'0' must be a whole number from 1",
    TRACK + "--everything --detect-every 1s": "'1s' must be a whole number from 1",
    TRACK + "--everything --min-area -5": "'-5' must be a whole number from 0",
    TRACK + "--everything --min-area 1e3": "'1e3' must be a whole number from 0",
    TRACK + "--everything --min-area 99999": "--min-area is 99999 pixels, but a frame has 12,288",
    TRACK + "--everything --min-area 90 --max-area 80": "the first must be the smaller one",
    TRACK + "--everything --max-area 5": "--min-area is 12 (the default) and --max-area 5",
    TRACK + "--everything --min-hits 0": "'0' must be a whole number from 1",
    TRACK + "--everything --retire-after no": "'no' must be a whole number from 1",
    TRACK + "--everything --max-objects 0": "'0' must be a whole number from 1",
    TRACK + "--everything --points-per-side 0": "'0' must be a whole number from 1",
    TRACK + "--everything --points-per-side 1001": "must be a whole number from 1 to 1000",
    TRACK + "--everything --points-per-batch 1025": "must be a whole number from 1 to 1024",
    TRACK + "--everything --pred-iou-thresh 80": "'80' must be a number from 0 to 1",
    TRACK + "--everything --stability-score-thresh nan": "'nan' must be a number from 0 to 1",
    TRACK + POINT + "--min-area 9": "--min-area is only for --everything",
    TRACK + "--detect-every 9": "--detect-every is only for --everything",
    "correct new/out " + POINT: "holds no run that can be corrected",
    "correct video.mp4 " + POINT: "holds no run that can be corrected",
    PREVIEW: "no object was named: give --point, --box, --mask or --prompts.",
    PREVIEW + POINT + "--out new/p.gif": "must end in .png",
    PREVIEW + "--point 5,10@12": "frame 12, but video.mp4 has 12 frames",
    FRAME + "--at 12": "--at is 12, but video.mp4 has 12 frames (0.4 s): 0 to 11",
    FRAME + "--at 01:00": "--at is 60 s",
    FRAME + "--at noon": "must be a frame's number (1200) or a time",
    FRAME + "--out new/f.txt": "must end in .png or .jpg",
    "show .": "holds no masks",
    "info none.mp4": "There is no video file or image folder",
    "demo video.mp4": "already exists",
    "watch video.mp4": "invalid choice",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    SyntheticVideo(2, 12, (96, 128)).write(folder / "video.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.txt").write_text("no video, no image, no weights")
    (folder / "page.pt").write_text("<html>")
    (folder / "keys.json").write_text(json.dumps([{"object": 1, "point": [3, 4]}]))
    Image.new("L", (8, 8), 255).save(folder / "small.png")
    return folder


def test_there_are_forty() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    try:
        code: object = main(line.split())
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    is_of_everything = "--everything" in line or "only for --everything" in WRONG[line]
    assert code == 2 if is_of_everything else code in {1, 2}
    said = captured.err.strip()
    assert WRONG[line] in said
    assert "\n" not in said
    assert len(said) < 300
    assert "Errno" not in said
    assert captured.out == ""
    assert sorted(folder.rglob("*")) == before
