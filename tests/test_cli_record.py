"""A run's folder from somebody else: what its `run.json` says is checked before it is used."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from longsam.cli import main, record
from longsam.testing import SyntheticVideo

VIDEO = SyntheticVideo(2, 12, (96, 128))

FOUND = {
    "detect_every": 30,
    "min_area": 9,
    "max_area": None,
    "min_hits": 1,
    "retire_after": 100,
    "max_objects": None,
    "points_per_side": 32,
    "points_per_batch": 64,
    "pred_iou_thresh": 0.8,
    "stability_score_thresh": 0.95,
}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    VIDEO.write(folder / "video.mp4")
    words = ("--testing-model", "--device", "cpu", "--quiet", "--point", "60,50")
    assert main(["track", str(folder / "video.mp4"), "--out", str(folder / "out"), *words]) == 0
    return folder / "out"


@pytest.fixture
def out(tracked: Path, tmp_path: Path) -> Path:
    """A copy, to be spoiled."""
    for path in tracked.rglob("*"):
        if path.is_file():
            target = tmp_path / "out" / path.relative_to(tracked)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "out"


def correct(out: Path, *words: str) -> int:
    return main(["correct", str(out), "--quiet", "--point", "60,50@6:1", *words])


def spoil(out: Path, **values: Any) -> None:
    content = json.loads((out / record.RECORD).read_text())
    (out / record.RECORD).write_text(json.dumps({**content, **values}))


def test_a_run_says_what_is_needed_to_correct_it(out: Path) -> None:
    assert correct(out) == 0
    noted = record.read(out)
    assert noted is not None
    assert len(noted.corrections) == 1
    assert noted.corrections[0][0]["frame"] == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video": "http://127.0.0.1:9/video.mp4"}, "which is not there; give it with --video"),
        ({"video": "/dev/zero"}, "which is not there; give it with --video"),
        ({"config": "evil.yaml"}, "give it with --config"),
        ({"config": "configs/../../../tmp/evil"}, "give it with --config"),
        ({"device": "nowhere"}, "--device is 'nowhere'"),
        ({"dtype": "int8"}, "is damaged"),
        ({"frames": [0, 5]}, "is damaged"),
        ({"frames": [0, -5, 1]}, "is damaged"),
        ({"prompts": []}, "is damaged"),
        ({"prompts": [{"frame": 0}]}, "is damaged"),
        ({"formats": ["rle", "gif"]}, "is damaged"),
        ({"direction": "sideways"}, "is damaged"),
        ({"memory_window": "many"}, "is damaged"),
        ({"checkpoint": "a\0b"}, "is damaged"),
        ({"everything": {}}, "is damaged"),
        ({"everything": FOUND}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "min_hits": 0}}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "min_area": "9"}}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "points_per_side": 10**6}}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "points_per_batch": 10**6}}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "pred_iou_thresh": 2}}, "is damaged"),
        ({"prompts": [], "everything": {**FOUND, "output_mode": "coco_rle"}}, "is damaged"),
        ({"prompts": [], "everything": [1]}, "is damaged"),
        ({"prompts": [], "everything": FOUND, "direction": "both"}, "is damaged"),
        ({"prompts": [], "everything": FOUND}, "is one of --everything"),
    ],
)
def test_what_is_wrong_in_it_is_refused(
    values: dict[str, Any], message: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(out, **values)
    before = sorted(out.rglob("*"))
    assert correct(out) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(out.rglob("*")) == before


def test_a_run_of_before_has_no_word_of_everything(out: Path) -> None:
    content = json.loads((out / record.RECORD).read_text())
    del content["everything"]
    (out / record.RECORD).write_text(json.dumps(content))
    assert correct(out) == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"video": null}'])
def test_damage_names_the_file(
    content: bytes, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / record.RECORD).write_bytes(content)
    assert correct(out) == 1
    assert f"{record.RECORD} is damaged" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_nothing_is_written_through_links_and_no_pipe_is_read(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "correction").symlink_to(elsewhere)
    assert correct(out, "--overwrite") == 1
    assert "is a link to" in capsys.readouterr().err
    (out / "correction").unlink()
    (out / "corrected").symlink_to(elsewhere)  # as if a correction were whole
    (elsewhere / "frames.jsonl").write_text("no masks")
    assert correct(out) == 1
    (out / "corrected").unlink()
    assert sorted(elsewhere.iterdir()) == [elsewhere / "frames.jsonl"]
    (out / record.RECORD).unlink()
    os.mkfifo(out / record.RECORD)
    assert correct(out) == 1
    assert "holds no run that can be corrected" in capsys.readouterr().err
