"""Prompts and masks from somebody else: a clear error that names the file, and nothing is run."""

import os
import struct
import zlib
from pathlib import Path

import pytest

from longsam.cli import prompts


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[" + b"9" * 9000 + b"]", "is not JSON"),
        (b'[{"frame": 1e999, "object": 1, "points": [[1, 2]]}]', "prompt 0: cannot convert"),
        (b'[{"object": 1, "points": [[1, 1' + b"0" * 400 + b"]]}]", "prompt 0: int too large"),
        (b'[{"object": 1, "points": 5}]', "prompt 0: "),
        (b'[{"object": 1, "mask": 5}]', "prompt 0: "),
    ],
)
def test_json_that_is_no_list_of_prompts(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"prompts\.json.* {why}"):
        prompts.from_json(path)


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
        prompts.numbered([prompts.mask(str(path))])


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
        prompts.numbered([prompts.mask(str(path))])
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png is not a file"):
        prompts.numbered([prompts.mask(str(tmp_path / "mask.png"))])
    os.mkfifo(tmp_path / "prompts.json")
    with pytest.raises(ValueError, match=r"prompts\.json is not a file"):
        prompts.from_json(tmp_path / "prompts.json")
