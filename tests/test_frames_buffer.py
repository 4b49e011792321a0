"""The frame buffer: exact whoever reads in whatever order, bounded, and nothing left running."""

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import videos

from longsam.frames import FrameBuffer, LiveBuffer, LiveVideo, open_source
from longsam.frames.buffer import MAX_DIGESTS

SIZE = 64
CPU = torch.device("cpu")


def read_ahead_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("longsam-read-ahead")]


def open_buffer(video: Any, frames_per_chunk: int = 8) -> FrameBuffer:
    source = open_source(video, SIZE, frames_per_chunk=frames_per_chunk)
    return FrameBuffer(source, SIZE, frames_per_chunk, CPU)


@pytest.fixture(scope="module")
def expected(mp4: Path) -> list[torch.Tensor]:
    buffer = open_buffer(mp4)
    return [buffer[frame_idx] for frame_idx in range(100)]


def read(buffer: FrameBuffer, frame_idx: int, direction: int) -> torch.Tensor:
    with buffer.reading_ahead(direction):
        return buffer[frame_idx]


@pytest.mark.parametrize("frames_per_chunk", [1, 2, 7, 8, 32, 500])
def test_passes_in_both_directions(
    frames_per_chunk: int, mp4: Path, expected: list[torch.Tensor]
) -> None:
    buffer = open_buffer(mp4, frames_per_chunk)
    for frames in (range(100), range(99, -1, -1), range(13, 60), range(61, 5, -1)):
        for frame_idx in frames:
            assert torch.equal(read(buffer, frame_idx, frames.step), expected[frame_idx])
            assert len(buffer._frames) <= min(frames_per_chunk, 100) + 1
    buffer.pause()
    assert not read_ahead_threads()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (range(100), range(99, -1, -1)),
        (range(100), range(3, 100)),
        (range(60, 20, -1), range(99, 59, -1)),
        (range(20, 60), range(25, 65)),
    ],
)
def test_two_passes_that_alternate(
    first: range, second: range, mp4: Path, expected: list[torch.Tensor]
) -> None:
    buffer = open_buffer(mp4)
    for one, two in zip(first, second, strict=False):
        assert torch.equal(read(buffer, one, first.step), expected[one])
        assert torch.equal(read(buffer, two, second.step), expected[two])
        assert len(read_ahead_threads()) <= 1
    buffer.close()
    assert not read_ahead_threads()


def test_reads_in_random_order_inside_and_outside_passes(
    mp4: Path, expected: list[torch.Tensor]
) -> None:
    buffer = open_buffer(mp4)
    order = random.Random(5)
    frame_idx, step = 0, 1
    for _ in range(400):
        chance = order.random()
        if chance < 0.1:
            frame_idx, step = order.randrange(100), order.choice([-1, 1])
        if chance > 0.9:
            far = order.randrange(100)
            assert torch.equal(buffer[far], expected[far])
        if chance > 0.97:
            buffer.pause()
        assert torch.equal(read(buffer, frame_idx, step), expected[frame_idx])
        frame_idx = (frame_idx + step) % 100
    buffer.pause()


def test_threads_that_read_one_buffer(mp4: Path, expected: list[torch.Tensor]) -> None:
    buffer = open_buffer(mp4)
    wrong: list[int] = []
    direction_elsewhere: list[int] = []

    def run(frames: range, direction: int) -> None:
        for frame_idx in frames:
            frame = read(buffer, frame_idx, direction) if direction else buffer[frame_idx]
            direction_elsewhere.append(buffer.direction)
            if not torch.equal(frame, expected[frame_idx]):
                wrong.append(frame_idx)

    runs = [(range(100), 1), (range(99, 40, -1), -1), (range(0, 100, 7), 0)]
    threads = [threading.Thread(target=run, args=arguments) for arguments in runs]
    with buffer.reading_ahead(1):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert buffer.direction == 1
    assert len(direction_elsewhere) == 100 + 59 + 15
    assert not wrong
    assert not any(direction_elsewhere)  # `reading_ahead` is a thread's own
    buffer.close()
    assert not read_ahead_threads()


def test_reading_outside_a_pass_keeps_what_was_decoded_ahead(mp4: Path) -> None:
    buffer = open_buffer(mp4)
    for frame_idx in (0, 1):
        read(buffer, frame_idx, 1)
        for thread in read_ahead_threads():
            thread.join()
    held = set(buffer._frames)
    assert held == set(range(1, 8))
    for frame_idx in (80, 3, 50):
        _ = buffer[frame_idx]
        assert set(buffer._frames) == held
    buffer.pause()
    assert set(buffer._frames) == held


class Indexable:
    """Frames by index, of which some cannot be read."""

    def __init__(self, bad: set[int]):
        self.bad = bad
        self.frames = list(videos.frames(40))

    def __len__(self) -> int:
        return 40

    def __getitem__(self, frame_idx: int) -> Any:
        if frame_idx in self.bad:
            raise OSError(f"frame {frame_idx} is on a lost disk")
        return self.frames[frame_idx]


@pytest.mark.parametrize("frames", [range(40), range(39, -1, -1), range(17, 40), range(22, 0, -1)])
@pytest.mark.parametrize("frames_per_chunk", [1, 8, 9, 32])
def test_the_error_of_a_frame_is_raised_when_it_is_asked_for(
    frames: range, frames_per_chunk: int
) -> None:
    bad = {18, 21}
    video = Indexable(bad)
    buffer = open_buffer(video, frames_per_chunk)
    good = open_buffer(video.frames)
    for frame_idx in frames:
        if frame_idx in bad:
            for _ in range(2):  # and again when it is asked for again
                with pytest.raises(OSError, match=f"frame {frame_idx} is on a lost disk"):
                    read(buffer, frame_idx, frames.step)
        else:
            assert torch.equal(read(buffer, frame_idx, frames.step), good[frame_idx])
    video.bad = set()
    assert torch.equal(read(buffer, 18, 1), good[18]), "an error is not remembered"
    buffer.pause()
    assert not read_ahead_threads()


def test_a_closed_buffer_says_so(mp4: Path) -> None:
    buffer = open_buffer(mp4)
    read(buffer, 0, 1)
    buffer.close()
    assert not read_ahead_threads()
    for direction in (0, 1):
        with pytest.raises(RuntimeError, match=r"video\.mp4 is closed.*init_state"):
            read(buffer, 1, direction)
    buffer.close()
    live = LiveBuffer(LiveVideo(iter(Indexable(set()).frames)), SIZE, 4, CPU)
    _ = live[0]
    live.close()
    with pytest.raises(RuntimeError, match=r"list_iterator of frames is closed"):
        _ = live[0]


def digest(frame: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("step", [1, -1])
def test_digests_are_few_and_spread(step: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (300, SIZE, SIZE, 3), dtype=np.uint8)
    buffer = open_buffer(frames)
    assert buffer.digests == {}
    for frame_idx in range(300)[::step]:
        read(buffer, frame_idx, step)
        assert len(buffer.digests) <= MAX_DIGESTS + 1
    buffer.pause()
    assert buffer.digests[0] == digest(frames[0])
    assert all(buffer.digests[i] == digest(frames[i]) for i in buffer.digests)
    noted = sorted(buffer.digests)
    assert len(noted) > MAX_DIGESTS / 2
    assert set(np.diff(noted)) == {16}


def test_digests_of_frames_read_anywhere(mp4: Path) -> None:
    buffer = open_buffer(mp4)
    frames: Iterator[Any] = open_source(mp4, SIZE).read(0, 100)
    _ = buffer[70]
    read(buffer, np.int64(30), -1)  # type: ignore[arg-type]
    buffer.pause()
    expected = [digest(frame) for frame in frames]
    assert buffer.digests == {70: expected[70], 30: expected[30]}
    assert all(type(frame_idx) is int for frame_idx in buffer.digests)
