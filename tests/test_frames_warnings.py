"""Warnings name the user's own line, not one of the library's."""

from pathlib import Path

import pytest
import videos
from PIL import Image

import longsam._warn
from longsam import LongVideoPredictor
from longsam.frames import open_source


def line_of(word: str) -> int:
    """Where this file has a comment with a word."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {word}")]
    return number


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = videos.write_folder(tmp_path / "images", 3)
    Image.new("L", (160, 120)).save(folder / "0.png")
    return folder


def test_from_a_function_of_the_library(mixed: Path) -> None:
    with pytest.warns(UserWarning, match="3 JPEGs and 1 other") as warned:
        open_source(mixed, 64)  # direct
    assert [(w.filename, w.lineno) for w in warned] == [(__file__, line_of("direct"))]


def test_through_upstream_and_torch(ours: LongVideoPredictor, mixed: Path) -> None:
    """`init_state` is decorated by torch, and calls upstream."""
    with pytest.warns(UserWarning, match="3 JPEGs and 1 other") as warned:
        ours.init_state(mixed)  # deep
    assert [(w.filename, w.lineno) for w in warned] == [(__file__, line_of("deep"))]


def test_in_a_thread_of_the_library_there_is_no_line(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with pytest.warns(UserWarning, match="^Careful$") as warned, ThreadPoolExecutor(1) as threads:
        threads.submit(longsam._warn.warn, "Careful").result()
    assert [w.filename for w in warned] == ["sys"]
