"""Where to look: each sign on masks made for it, and how it is told and drawn."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longsam.cli import main
from longsam.masks import MaskFolder, MaskWriter, Span, review
from longsam.masks.reviews.spans import WEIGHTS

SIZE = (120, 160)
SURE = (6.0, 0.9)


def square(row: int, column: int, side: int = 20) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[max(0, row) : row + side, max(0, column) : column + side] = True
    return mask


EMPTY = np.zeros(SIZE, bool)


def write(folder: Path, frames: list[dict[Any, Any]], *, scored: bool = True) -> Path:
    """Each frame has by object a mask, or a mask and its scores."""
    with MaskWriter(folder) as writer:
        for i, objects in enumerate(frames):
            found = {k: v if isinstance(v, tuple) else (v, SURE) for k, v in objects.items()}
            masks = torch.from_numpy(np.stack([mask for mask, _ in found.values()]))
            scores = {k: score for k, (_, score) in found.items()} if scored else None
            writer.write(i, list(found), masks, scores=scores, time=i / 10)
    return folder


def steady(num_frames: int = 40) -> list[dict[Any, Any]]:
    return [{"bee": square(40, 20 + i)} for i in range(num_frames)]


def the_span(folder: Path) -> Span:
    (span,) = review(folder)
    return span


def test_what_is_steady_is_not_flagged(tmp_path: Path) -> None:
    assert review(write(tmp_path / "a", steady())) == []
    assert review(write(tmp_path / "b", steady(), scored=False)) == []


def test_a_mask_that_grows_with_a_low_score(tmp_path: Path) -> None:
    frames = steady()
    for i in range(20, 26):
        frames[i] = {"bee": (square(30, 20 + i, 40), (0.5, 0.2))}
    span = the_span(write(tmp_path, frames))
    assert (span.obj_id, span.start, span.stop) == ("bee", 20, 25)
    assert set(span.reasons) >= {"larger", "low predicted IoU"}
    assert span.sure > 0.6
    assert span.times == (2.0, 2.5)


def test_scores_are_held_against_the_objects_own(tmp_path: Path) -> None:
    """What is low for one is usual for another."""
    low = [{1: (square(40, 20 + i), (0.8, 0.3))} for i in range(40)]
    assert review(write(tmp_path, low)) == []


def test_parts_far_apart(tmp_path: Path) -> None:
    frames = steady()
    for i in range(20, 26):
        frames[i] = {"bee": (square(40, 20 + i) | square(0, 130, 12), (2.0, 0.2))}
    span = the_span(write(tmp_path, frames))
    assert (span.start, span.stop) == (20, 25)
    assert "scattered" in span.reasons


def test_two_objects_with_one_mask(tmp_path: Path) -> None:
    """It is held against the one that has another size now."""
    frames: list[dict[Any, Any]] = [
        {1: square(40, 20 + i), 2: square(20, 90, 30)} for i in range(40)
    ]
    for i in range(20, 40):
        frames[i][1] = square(20, 90, 30)
    spans = review(write(tmp_path, frames))
    assert [(span.obj_id, span.start) for span in spans] == [(1, 20)]
    assert spans[0].reasons[0] == "same mask as object 2"
    assert "jumped" in spans[0].reasons


def test_empty_inside_the_frame_with_a_score_near_zero(tmp_path: Path) -> None:
    frames = steady()
    for i in range(20, 26):
        frames[i] = {"bee": (EMPTY, (-0.1, 0.1))}
    span = the_span(write(tmp_path / "a", frames))
    assert (span.start, span.stop) == (20, 25)
    assert set(span.reasons) >= {"empty though score high"}
    leaving = [{"bee": square(40, 140 + min(i, 19))} for i in range(20)]
    leaving += [{"bee": (EMPTY, (-8.0, 0.0))} for _ in range(20)]
    found = review(write(tmp_path / "b", leaving))
    assert all(span.stop < 20 for span in found)  # gone over the border: nothing to look at


def test_least_sure_and_what_is_wrong(tmp_path: Path) -> None:
    frames = steady()
    frames[20] = {"bee": (square(30, 20, 40), (0.5, 0.2))}
    folder = write(tmp_path / "m", frames)
    assert review(folder, least_sure=0.99) == []
    assert review(MaskFolder(folder), least_sure=0.2)
    with pytest.raises(ValueError, match="least_sure is 1"):
        review(folder, least_sure=1)
    with pytest.raises(FileNotFoundError):
        review(tmp_path / "none")
    lines = (folder / "frames.jsonl").read_bytes().split(b"\n")
    lines[5] = lines[5].replace(b'"areas":[400]', b'"areas":[-1]')
    (folder / "frames.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match="line 6"):
        review(folder)


def test_every_sign_is_documented_and_weighed() -> None:
    assert review.__doc__ is not None
    for name in WEIGHTS:
        told = {"another fits it better", "fits better than another", "same mask as another"}
        assert name in told or name in review.__doc__


def test_the_command_and_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = steady()
    for i in range(20, 26):
        frames[i] = {"bee": (square(30, 20 + i, 40), (0.5, 0.2))}
    frames[33] = {"bee": (square(30, 40, 60), (0.5, 0.2))}
    folder = write(tmp_path / "m", frames)
    assert main(["review", str(folder), "--json", str(tmp_path / "r.json")]) == 0
    said = capsys.readouterr().out
    assert "object bee, frames 20-25 (0:00:02.0 to 0:00:02.5): " in said
    assert "2 span(s) to look at, 7 frames" in said
    spans = json.loads((tmp_path / "r.json").read_text())
    assert [span["start"] for span in spans] == [20, 33]
    assert main(["show", str(folder)]) == 0
    assert "2 span(s) to look at, 2 of them shown first" in capsys.readouterr().out
    with Image.open(folder / "contact_sheet.png") as sheet:
        red = (0xB0, 0, 0)
        assert any(
            sum(abs(a - b) for a, b in zip(colour, red, strict=True)) < 60
            for _, colour in sheet.convert("RGB").getcolors(2**24) or []
        )


def test_a_folder_without_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a run that found nothing leaves it."""
    with MaskWriter(tmp_path / "m") as writer:
        for i in range(5):
            writer.write(i, [], torch.zeros(0, *SIZE, dtype=torch.bool))
    assert main(["review", str(tmp_path / "m")]) == 0
    assert main(["show", str(tmp_path / "m")]) == 0
    said = capsys.readouterr()
    assert "0 object(s)" in said.out
    assert said.err == ""


@pytest.mark.slow
def test_a_sheet_of_200_000_frames_in_30_seconds(tmp_path: Path) -> None:
    """Seconds of this process, since machines that run tests are busy."""
    with MaskWriter(tmp_path) as writer:
        masks = torch.from_numpy(np.stack([square(40, 20), square(70, 90)]))
        writer.write(0, [1, "bee"], masks, scores={1: SURE, "bee": SURE}, time=0.0)
    index, rle = tmp_path / "frames.jsonl", tmp_path / "masks.jsonl"
    header, line = index.read_bytes().split(b"\n")[:2]
    content, rest = json.loads(line), rle.read_bytes().split(b",", 1)[1]
    at = 0
    with index.open("wb") as lines, rle.open("wb") as records:
        lines.write(header + b"\n")
        for i in range(200_000):
            record = b'{"frame":%d,' % i + rest
            records.write(record)
            more = {"rle": [at, len(record)], "time": i / 30, "areas": [400 - i % 200, 400]}
            text = json.dumps(content | more | {"frame": i}, separators=(",", ":"))
            lines.write(text.encode() + b"\n")
            at += len(record)
    started = time.process_time()
    assert main(["show", str(tmp_path)]) == 0
    assert time.process_time() - started < 30
