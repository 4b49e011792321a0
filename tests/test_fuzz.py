"""A shorter form of tests/benchmarks/fuzz.py."""

from pathlib import Path

from benchmarks import fuzz


def test_damaged_files_give_frames_or_clear_errors(tmp_path: Path) -> None:
    fuzz.make_files(tmp_path)
    ends, bad = fuzz.run(first=0, count=300, files=tmp_path)
    assert not bad
    assert sum(ends.values()) == 300
    assert min(ends[end] for end in ("frames", "tracked", "ValueError", "RuntimeError")) > 0
