"""What tells one video from another without decoding it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import videos

from longsam.frames import LiveVideo, open_source


def fingerprint(video: Any, **options: Any) -> str:
    source = open_source(video, 64, **options)
    found = source.fingerprint()
    source.close()
    assert len(found) == 32
    int(found, 16)
    return found


def test_of_a_file(mp4: Path, tmp_path: Path) -> None:
    expected = fingerprint(mp4)
    copy = Path(shutil.copy(mp4, tmp_path / "copy.mp4"))
    assert fingerprint(copy) == fingerprint(copy, reader="decord") == expected
    for at in (0, -1):  # both ends are in it
        data = bytearray(mp4.read_bytes())
        source = open_source(copy, 64)
        data[at] ^= 1
        copy.write_bytes(data)
        assert source.fingerprint() != expected
        copy.write_bytes(mp4.read_bytes())
        assert source.fingerprint() == expected, "it is made at each call"
    longer = tmp_path / "longer.mp4"
    longer.write_bytes(mp4.read_bytes() + b"\0")
    assert fingerprint(longer) != expected


def test_of_a_large_file_few_blocks_are_read(mp4: Path, tmp_path: Path) -> None:
    """Zeros behind the video; 16 blocks of 64 KiB tell where they are not zeros."""
    large = Path(shutil.copy(mp4, tmp_path / "large.mp4"))
    with large.open("r+b") as file:
        file.truncate(1 << 30)
    source = open_source(large, 64)
    expected = source.fingerprint()
    step = ((1 << 30) - (64 << 10)) // 15
    for at, is_seen in ((5 * step + 100, True), (5 * step + (1 << 20), False), (-1, True)):
        with large.open("r+b") as file:
            file.seek(at, 2 if at < 0 else 0)
            file.write(b"x")
        assert (source.fingerprint() != expected) == is_seen
        with large.open("r+b") as file:
            file.seek(at, 2 if at < 0 else 0)
            file.write(b"\0")


def test_of_image_files(jpegs: Path, tmp_path: Path) -> None:
    expected = fingerprint(jpegs)
    copy = Path(shutil.copytree(jpegs, tmp_path / "copy"))
    paths = [copy / f"{i}.jpg" for i in range(100)]
    assert fingerprint(copy) == fingerprint(paths) == expected
    assert fingerprint(paths[:-1]) != expected
    paths[99].write_bytes(paths[98].read_bytes())
    assert fingerprint(copy) != expected
    paths[99].write_bytes((jpegs / "99.jpg").read_bytes())
    paths[0].rename(copy / "00.jpg")
    assert fingerprint(copy) != expected, "names count"


def test_of_frames() -> None:
    frames = np.stack(list(videos.frames(40, 24, 32)))
    expected = fingerprint(frames)
    assert fingerprint(torch.from_numpy(frames)) == fingerprint(list(frames)) == expected
    changed = frames.copy()
    changed[39, 0, 0, 0] ^= 1
    assert fingerprint(changed) != expected
    assert fingerprint(frames[:39]) != expected
    assert fingerprint(frames.reshape(40, 32, 24, 3)) != expected
    assert fingerprint(frames[:1]) != expected


def test_a_live_source_has_none() -> None:
    with (
        LiveVideo(iter(videos.frames(3))) as live,
        pytest.raises(ValueError, match=r"generator of frames is live"),
    ):
        live.fingerprint()
