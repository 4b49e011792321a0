"""A shorter form of tests/benchmarks/kill_matrix.py."""

import random
import sys
from pathlib import Path

import pytest
from benchmarks import kill_matrix

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


@pytest.mark.parametrize("way", ["api", "cli"])
def test_killed_and_resumed_the_files_are_those_of_one_run(way: str, tmp_path: Path) -> None:
    video = kill_matrix.make_video(tmp_path)
    cell = kill_matrix.kill_and_resume(way, "all", video, tmp_path, 4, random.Random(way))
    assert cell["kills"] == 4
    assert cell["after_a_save"] == 1
    assert cell["different"] == []
    assert cell["least_psnr"] >= 35
