"""The Python of docs/, run as it stands."""

import json
import re
from pathlib import Path

import pytest

from longsam.masks import MaskFolder
from longsam.masks.lines import Header, parse_frame
from longsam.testing import SyntheticVideo, load_predictor

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the blocks of a page define; the video that they name is short."""
    monkeypatch.chdir(folder)
    SyntheticVideo(2, 5, (300, 400)).write(folder / "bees.mp4")
    names: dict[str, object] = {"predictor": load_predictor()}
    for block in blocks(name, "python"):
        exec(compile(block, name, "exec"), names)
    return names


def test_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("scores.md", tmp_path, monkeypatch)
    line = names["line"]
    assert line.obj_ids == ["bee"]  # type: ignore[attr-defined]
    assert line.scores != [None]  # type: ignore[attr-defined]
    assert line.time == pytest.approx(4 / 30, abs=1e-6)  # type: ignore[attr-defined]
    (shown,) = blocks("scores.md", "json")
    written = (tmp_path / "scored" / "frames.jsonl").read_text().splitlines()[2]
    assert json.loads(shown).keys() == json.loads(written).keys()
    assert parse_frame(shown.strip().encode(), Header(("rle",), (240, 320))).time == 0.4


def test_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("everything.md", tmp_path, monkeypatch)
    assert names["frame_idx"] == 4
    assert MaskFolder(tmp_path / "found").frames == list(range(5))


def test_every_page_with_python_is_run() -> None:
    pages = {path.name for path in DOCS.glob("*.md") if blocks(path.name, "python")}
    assert pages == {"scores.md", "everything.md"}
