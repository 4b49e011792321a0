"""The time stamps of frames, where a source knows them."""

from pathlib import Path

import numpy as np
import pytest
import videos

from longsam.frames import open_source, video_file
from longsam.frames.sliced import SlicedSource
from longsam.masks import MaskFolder, MaskWriter

TIMES = [0, 40, 50, 200, 210, 300, 1000, 1001, 1100, 2000]
"""In milliseconds."""


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a variable frame rate."""
    path = tmp_path_factory.mktemp("times") / "video.mkv"
    return videos.write_video(path, len(TIMES), times=TIMES, options={"g": "3", "bf": "2"})


def test_variable_frame_rates(uneven: Path) -> None:
    source = open_source(uneven, 64)
    assert source.time(5) is None  # not decoded yet
    for frame_idx in (8, 0, 1, 2, 9, 5):
        list(source.read(frame_idx, frame_idx + 1))
        assert source.time(frame_idx) == pytest.approx(TIMES[frame_idx] / 1000)
    assert source.time(99) is None
    some = SlicedSource(source, slice(3, None, 2))
    list(some.read(0, 3))
    assert [some.time(i) for i in range(3)] == pytest.approx([0.2, 0.3, 1.001])


def test_they_are_counted_from_the_first_frame(tmp_path: Path) -> None:
    """As FFmpeg and players do; MPEG-TS starts at 1.4 s or anywhere."""
    source = open_source(videos.write_video(tmp_path / "video.ts", 10, options={"bf": "0"}), 64)
    list(source.read(0, 10))
    assert [source.time(i) for i in range(10)] == pytest.approx([i / 30 for i in range(10)])


def test_few_are_remembered(uneven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "MAX_TIMES", 4)
    source = open_source(uneven, 64)
    list(source.read(0, 10))
    assert [source.time(i) is None for i in range(10)] == [True] * 6 + [False] * 4


def test_sources_without_time() -> None:
    source = open_source(np.zeros((3, 20, 30, 3), np.uint8), 64)
    list(source.read(0, 3))
    assert source.time(1) is None


def test_an_overlay_tells_them_to_the_folder(uneven: Path, tmp_path: Path) -> None:
    source = open_source(uneven, None)
    masks = np.ones((1, *source.frame_size), bool)
    with MaskWriter(tmp_path, ["rle", "overlay"], video=uneven) as writer:
        for frame_idx in range(10):
            writer.write(frame_idx, [1], masks)
    folder = MaskFolder(tmp_path)
    assert [folder.time(i) for i in range(10)] == pytest.approx([time / 1000 for time in TIMES])
