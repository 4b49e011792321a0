"""Scores, boxes and time stamps in the index of a mask folder."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longsam.masks import MaskFolder, MaskWriter

IDS: list[int | str] = [4, "bee"]
SIZE = (20, 30)


def masks(frame_idx: int) -> torch.Tensor:
    """A block that moves, and a mask that is empty on odd frames."""
    found = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    found[0, 0, 3:9, frame_idx : frame_idx + 5] = True
    found[1, 0, -1, -1] = frame_idx % 2 == 0
    return found


def scores(frame_idx: int) -> dict[Any, tuple[float, float]]:
    return {"bee": (-1.25, 0.123456789), np.int64(4): (7.5 + frame_idx, 1.0), "other": (1.0, 1.0)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        for i in range(6):
            writer.write(i, IDS, masks(i), scores=scores(i), time=Fraction(i, 3))
    folder = MaskFolder(tmp_path)
    for i in range(6):
        assert folder.boxes(i) == [(i, 3, i + 5, 9), (29, 19, 30, 20) if i % 2 == 0 else None]
        assert folder.scores(i) == [7.5 + i, -1.25]
        assert folder.ious(i) == [1.0, 0.12346]
        assert folder.time(i) == pytest.approx(i / 3, abs=1e-6)
    lines = (tmp_path / "frames.jsonl").read_bytes().splitlines()
    assert json.loads(lines[2]) == {
        "frame": 1,
        "ids": [4, "bee"],
        "areas": [30, 0],
        "boxes": [[1, 3, 6, 9], None],
        "scores": [8.5, -1.25],
        "ious": [1.0, 0.12346],
        "time": 0.333333,
        "rle": json.loads(lines[2])["rle"],
    }
    assert len(lines[2]) < 180


def test_what_nobody_told_is_none(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    given = [None, {}, {4: None}, {4: (nan, inf)}, {4: (1.0, None)}, {4: (1e-9, 0.5)}]
    with MaskWriter(tmp_path) as writer:
        for i, some in enumerate(given):
            writer.write(i, IDS, masks(i), scores=some)  # type: ignore[arg-type]
        writer.write(6, [], torch.zeros(0, *SIZE), scores={}, time=0)
    folder = MaskFolder(tmp_path)
    assert [folder.scores(i) for i in range(7)] == [*[[None] * 2] * 4, [1, None], [1e-9, None], []]
    assert [folder.ious(i) for i in range(7)] == [*[[None] * 2] * 5, [0.5, None], []]
    assert [folder.time(i) for i in range(7)] == [None] * 6 + [0.0]
    assert b"scores" not in (tmp_path / "frames.jsonl").read_bytes().splitlines()[1]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"scores": {4: 7.5}}, "scores of object 4 cannot be read"),
        ({"scores": {4: ("high", 1)}}, "scores of object 4 cannot be read"),
        ({"scores": [1, 2]}, "scores of object 4 cannot be read"),
        ({"time": "now"}, "time is 'now'"),
        ({"time": float("nan")}, "time is nan"),
        ({"time": 1e300}, "time is 1e"),
    ],
)
def test_wrong_scores_are_refused_at_once(wrong: dict[str, Any], why: str, tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match=why):
            writer.write(0, IDS, masks(0), **wrong)
        writer.write(0, IDS, masks(0))
    assert len(MaskFolder(tmp_path)) == 1


def test_what_is_kept_aside_has_its_scores(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        for i in range(6):
            writer.write(i, IDS, masks(i), scores=scores(i), time=i / 4)
    with MaskWriter(tmp_path, resume=True) as writer:
        aside = writer.drop_after(2, keep_aside=True)
        writer.write(3, IDS, masks(3))
    assert aside is not None
    dropped, kept = MaskFolder(aside), MaskFolder(tmp_path)
    assert [dropped.time(i) for i in (3, 4, 5)] == [0.75, 1.0, 1.25]
    assert dropped.scores(4) == [11.5, -1.25]
    assert dropped.ious(4) == [1.0, 0.12346]
    assert dropped.boxes(4) == [(4, 3, 9, 9), (29, 19, 30, 20)]
    assert (kept.scores(2), kept.scores(3)) == ([9.5, -1.25], [None, None])
