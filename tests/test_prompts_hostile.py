"""Prompts and masks from somebody else: a clear error that names the file, and nothing is run."""

import os
import struct
import zlib
from pathlib import Path

import pytest

from longsam import prompts
from longsam.cli import prompt_flags
from longsam.fleet import Job


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[" + b"9" * 9000 + b"]", "is not JSON"),
        (
            b'[{"frame": 1e999, "object": 1, "points": [[1, 2]]}]',
            'prompt 0: "frame" is inf; it must be a whole number',
        ),
        (b'[{"object": 1, "points": [[1, 1' + b"0" * 400 + b"]]}]", 'prompt 0: "points" has'),
        (b'[{"object": 1, "points": 5}]', "prompt 0: "),
        (b'[{"frame": 2.7, "object": 1, "points": [[1, 2]]}]', 'prompt 0: "frame" is 2.7'),
        (b'[{"object": 1, "points": [[1, 2]], "labels": [2]}]', r'prompt 0: "labels" is \[2\]'),
        (b'[{"object": 1, "points": [[1, NaN]]}]', 'prompt 0: "points" has'),
        (b'[{"object": 1, "points": ["12"]}]', 'prompt 0: "points" has'),
        (b'[{"object": 1, "points": "12"}]', 'prompt 0: "points" is'),
        (b'[{"object": 1, "box": "1234"}]', 'prompt 0: "box" has'),
        (b'[{"object": 1, "box": [true, 1, 2, 3]}]', 'prompt 0: "box" has'),
        (b'["object"]', "prompt 0: the prompt 'object' is not an object in braces"),
        (b'[{"object": 1, "mask": 5}]', "prompt 0: "),
    ],
)
def test_json_that_is_no_list_of_prompts(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"prompts\.json.* {why}"):
        prompt_flags.from_json(path)


def test_numbers_as_tables_have_them(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('[{"frame": 3.0, "object": 1, "box": [1, 2, 3, 4], "labels": []}]')
    assert prompt_flags.from_json(path) == [prompts.Prompt("box", (1, 2, 3, 4), 3, 1)]


@pytest.mark.parametrize("obj_id", ["a" * 3000, 2**77])
def test_an_id_that_cannot_be_written(obj_id: int | str) -> None:
    for given in (
        lambda: prompts.numbered([prompts.Prompt("point", (1, 2), 0, obj_id)]),
        lambda: Job("a.mp4", ({"object": obj_id, "points": [[1, 2]]},)),
    ):
        with pytest.raises(ValueError, match="at most"):
            given()


def png(width: int, height: int) -> bytes:
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10))),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [9000, 100_000])
def test_a_mask_that_unpacks_to_gigabytes(side: int, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(side, side))
    with pytest.raises(ValueError, match=r"mask\.png cannot be read as an image \(.*pixels"):
        prompts.numbered([prompt_flags.mask(str(path))])


def test_a_mask_of_postscript_runs_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "mask.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match=r"mask\.png cannot be read as an image"):
        prompts.numbered([prompt_flags.mask(str(path))])
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png is not a file"):
        prompts.numbered([prompt_flags.mask(str(tmp_path / "mask.png"))])
    os.mkfifo(tmp_path / "prompts.json")
    with pytest.raises(ValueError, match=r"prompts\.json is not a file"):
        prompt_flags.from_json(tmp_path / "prompts.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_job_of_a_fleet_reads_masks_in_the_same_way(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "huge.png").write_bytes(png(9000, 9000))
    for name, why in (("pipe", r"is not a file"), ("huge", r"cannot be read.*pixels")):
        entry = {"object": 1, "mask": str(tmp_path / f"{name}.png")}
        grouped = Job("a.mp4", (entry,)).grouped_prompts()
        with pytest.raises(ValueError, match=rf"{name}\.png {why}"):
            prompts.check_inside(grouped, 90, 120)
