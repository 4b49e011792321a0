"""The timeline's reading of a mask folder that grows, beside a plain reading line by line."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longsam.app.tracked import Tracked
from longsam.masks import index
from longsam.masks.lines import INDEX, FrameLine, Header

NUM_FRAMES, SIZE = 60, (48, 64)


def line(frame_idx: int, objects: dict[Any, tuple[int, float | None]]) -> FrameLine:
    areas = [area for area, _ in objects.values()]
    scores = [score for _, score in objects.values()]
    boxes: Any = [(0, 0, 64, 48) if area else None for area in areas]
    return FrameLine(
        frame_idx, list(objects), areas, boxes, scores, [None] * len(areas), None, (0, 2)
    )


def passes(rng: random.Random) -> list[list[FrameLine]]:
    """Forward and reverse passes over each other's frames, with objects that come and go."""
    made = []
    for _ in range(6):
        begin, step = rng.randrange(NUM_FRAMES), rng.choice((1, -1))
        ids = rng.sample([1, 2, "three", 4], rng.randint(1, 4))
        lines = []
        for frame_idx in range(begin, begin + step * rng.randint(1, 25), step):
            if 0 <= frame_idx < NUM_FRAMES:
                there = {
                    obj_id: (
                        rng.choice((0, 1, 2, 500, 3072)),
                        rng.choice((None, -30.0, -10.0, 0.03, 9.9, 10.0, 500.0)),
                    )
                    for obj_id in ids
                }
                lines.append(line(frame_idx, there))
        made.append(lines)
    return made


def read_plainly(lines: list[FrameLine]) -> dict[int, tuple[FrameLine, bool]]:
    """Of each frame the line that counts, and whether a pass towards frame 0 wrote it."""
    found: dict[int, tuple[FrameLine, bool]] = {}
    for number, one in enumerate(lines):
        before = lines[number - 1].frame_idx if number else -2
        after = lines[number + 1].frame_idx if number + 1 < len(lines) else -2
        is_begin = abs(one.frame_idx - before) != 1
        is_reverse = one.frame_idx == before - 1 or (is_begin and after == one.frame_idx - 1)
        found[one.frame_idx] = one, is_reverse
    return found


@pytest.mark.parametrize("block", [400, 1 << 20])
@pytest.mark.parametrize("seed", range(20))
def test_reading_on_equals_reading_line_by_line(
    seed: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_BLOCK_BYTES", block)
    tracked = Tracked(tmp_path, NUM_FRAMES)
    assert tracked.refresh() == []
    (tmp_path / INDEX).write_bytes(Header(("rle",), SIZE).to_line())
    lines: list[FrameLine] = []
    for some in passes(random.Random(seed)):
        with open(tmp_path / INDEX, "ab") as file:
            file.write(b"".join(one.to_line(("rle",)) for one in some))
        lines += some
        assert tracked.refresh() == [one.frame_idx for one in some]
        expected = read_plainly(lines)
        assert [i for i in range(NUM_FRAMES) if i in tracked] == sorted(expected)
        for frame_idx, (one, is_reverse) in expected.items():
            assert tracked.is_reverse(frame_idx) == is_reverse, frame_idx
            codes = {
                obj_id: [
                    int(part[frame_idx])
                    for part in np.frombuffer(tracked.tile(0, 0, [obj_id])[8:], np.uint8).reshape(
                        3, -1
                    )
                ]
                for obj_id in tracked.obj_ids
            }
            there = dict(zip(one.obj_ids, zip(one.areas, one.scores, strict=True), strict=True))
            for obj_id, (least, most, score) in codes.items():
                assert least == most
                assert (least, score) == (
                    expected_codes(*there[obj_id]) if obj_id in there else (0, 0)
                )


def expected_codes(area: int, score: float | None) -> tuple[int, int]:
    of_area = 1 if area == 0 else 2 + round(253 * math.log(area) / math.log(48 * 64))
    of_score = 0 if score is None else 1 + round(254 * min(max((score + 10) / 20, 0), 1))
    return of_area, of_score


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"frame": NUM_FRAMES}, f"frame {NUM_FRAMES}, but the video has {NUM_FRAMES} frames"),
        ('"frame":3,"frame":5', '"frame" is there twice: 3, 5'),
        ('"frame":3,"frame":-5', '"frame" is there twice: 3, -5'),
    ],
)
def test_a_line_that_is_damaged_is_named(content: Any, message: str, tmp_path: Path) -> None:
    rest = '"ids":[],"areas":[],"boxes":[],"rle":[0,2]}'
    start = content if isinstance(content, str) else json.dumps(content)[1:-1].replace(" ", "")
    good = line(1, {1: (5, None)}).to_line(("rle",))
    (tmp_path / INDEX).write_bytes(
        Header(("rle",), SIZE).to_line() + good + b"{" + f"{start},{rest}\n".encode()
    )
    tracked = Tracked(tmp_path, NUM_FRAMES)
    with pytest.raises(ValueError, match=f"line 3: .*{message}"):
        tracked.refresh()
