"""Promise 2: nothing grows with the number of frames."""

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import videos
from benchmarks import slow_consumer

from longsam import LongVideoPredictor
from longsam.frames import FrameBuffer, open_source


def read_ahead_threads() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith("longsam-read-ahead")
    ]


def everything_in(value: Any) -> tuple[int, int]:
    """(objects, bytes) of all containers and tensors below a value, each counted once."""
    seen: set[int] = set()
    count, size = 0, 0
    pending = [value]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        count += not isinstance(item, int)  # Python shares small ones
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            size += 0 if storage.data_ptr() in seen else storage.nbytes()
            seen.add(storage.data_ptr())
        elif isinstance(item, np.ndarray):
            size += item.nbytes
        elif isinstance(item, dict):
            pending += list(item.keys()) + list(item.values())
        elif isinstance(item, (list, tuple, set)):
            pending += item
        elif type(item).__module__.startswith("longsam"):
            pending += list(vars(item).values())
    return count, size


@pytest.mark.parametrize("reader", ["av", pytest.param("decord", marks=pytest.mark.slow)])
def test_state_after_10_n_frames_equals_that_after_n(
    reader: Any, ours: LongVideoPredictor, tmp_path: Path
) -> None:
    n = 60
    path = videos.write_video(tmp_path / "long.mp4", 10 * n + 1, options={"g": "50"})
    state = ours.init_state(path, reader=reader, frames_per_chunk=8)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.add_new_points_or_box(state, 0, 2, box=[30, 20, 110, 90])
    after = {}
    for frame_idx, _, _ in ours.propagate_in_video(state):
        if frame_idx in (n, 10 * n):
            after[frame_idx] = ours.memory_usage(state)
            entries = {
                obj_idx: {kind: len(frames) for kind, frames in outputs.items()}
                for obj_idx, outputs in state["output_dict_per_obj"].items()
            }
            assert entries == {
                i: {"cond_frame_outputs": 1, "non_cond_frame_outputs": 31} for i in (0, 1)
            }
            assert [len(v) for v in state["frames_tracked_per_obj"].values()] == [32, 32]
            assert list(state["cached_features"]) == [frame_idx]
            after[frame_idx, "own count"] = everything_in(
                {k: v for k, v in state.items() if k not in ("images", "device", "storage_device")}
            )
    assert after[n] == after[10 * n]
    assert after[n, "own count"] == after[10 * n, "own count"]
    own_bytes = after[n, "own count"][1] + after[n]["frame_buffer"]["cpu"]
    assert after[n]["total"] == {"cpu": own_bytes}


def test_memory_usage_names_kinds_and_devices(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    usage = ours.memory_usage(state)
    assert set(usage) == {
        "memory_features",
        "masks",
        "object_pointers",
        "prompts",
        "cached_features",
        "frame_buffer",
        "total",
    }
    assert usage["frame_buffer"] == {"cpu": 33 * 128 * 128 * 3}
    assert usage["prompts"] == {"cpu": 2 * 4 + 4}
    assert usage["masks"] == {"cpu": 32 * 32 * 4}
    assert (
        sum(usage[kind].get("cpu", 0) for kind in usage if kind != "total")
        == (usage["total"]["cpu"])
    )


@pytest.mark.filterwarnings("ignore:.*the correction is replaced")
def test_neighbourhood_of_the_start_and_prompts_are_kept(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 30, 1, points=[[60, 50]], labels=[1])
    list(ours.propagate_in_video(state, max_frame_num_to_track=10))
    ours.add_new_points_or_box(state, 40, 1, points=[[60, 50]], labels=[1])
    list(ours.propagate_in_video(state, start_frame_idx=35))
    tracked = set(state["output_dict_per_obj"][0]["non_cond_frame_outputs"])
    around_the_starts = {*range(31, 46), *range(31, 51)}  # 30 is conditioning, 40 a correction
    assert tracked == {*around_the_starts, *range(69, 100)}
    list(ours.propagate_in_video(state, start_frame_idx=99))
    tracked = set(state["output_dict_per_obj"][0]["non_cond_frame_outputs"])
    assert tracked == {*range(31, 46), *range(69, 100)}
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])  # a new first one
    list(ours.propagate_in_video(state, start_frame_idx=1))
    tracked = set(state["output_dict_per_obj"][0]["non_cond_frame_outputs"])
    assert tracked == {*range(1, 17), 40, *range(69, 100)}


# The frame buffer ---------------------------------------------------------------------------------


@pytest.fixture
def buffer(mp4: Path) -> FrameBuffer:
    return FrameBuffer(open_source(mp4, 64, frames_per_chunk=8), 64, 8, torch.device("cpu"))


def passes(buffer: FrameBuffer, frames: range) -> Iterator[int]:
    """What a pass does, as far as frames are concerned."""
    try:
        for frame_idx in frames:
            with buffer.reading_ahead(1 if frames.step > 0 else -1):
                assert buffer[frame_idx].shape == (3, 64, 64)
            yield frame_idx
    finally:
        buffer.pause()


@pytest.mark.parametrize(
    "frames", [range(100), range(99, -1, -1), range(20, 60), range(60, 20, -1)]
)
@pytest.mark.parametrize("consumer", ["slow", "fast"])
def test_reads_ahead_within_bounds_and_leaves_no_thread(
    frames: range, consumer: str, buffer: FrameBuffer
) -> None:
    most_ahead = 0
    for frame_idx in passes(buffer, frames):
        if consumer == "slow" and frame_idx % 10 == 0:
            for thread in read_ahead_threads():
                thread.join()  # all that may be decoded ahead is
        ahead = [held for held in list(buffer._frames) if held != frame_idx]
        assert all((held - frame_idx) * frames.step > 0 for held in ahead)
        assert len(ahead) <= 8
        assert len(read_ahead_threads()) <= 1
        most_ahead = max(most_ahead, len(ahead))
    assert not read_ahead_threads()
    assert most_ahead > 0 or consumer == "fast"
    assert buffer.num_bytes == 9 * 64 * 64 * 3


def test_frames_are_those_of_the_video_in_both_directions(buffer: FrameBuffer, mp4: Path) -> None:
    expected = [buffer[i] for i in range(len(buffer))]
    for frames in (range(100), range(99, -1, -1), range(50, 70, 3), range(70, 50, -3)):
        for frame_idx in frames:
            with buffer.reading_ahead(1 if frames.step > 0 else -1):
                assert torch.equal(buffer[frame_idx], expected[frame_idx])
            far = (frame_idx + 37) % 100
            assert torch.equal(buffer[far], expected[far])  # between two steps, any frame


def test_abandoned_passes_leave_no_thread(buffer: FrameBuffer) -> None:
    for _ in passes(buffer, range(100)):
        break
    gc.collect()
    assert not read_ahead_threads()

    kept = passes(buffer, range(100))
    next(kept)
    for thread in read_ahead_threads():
        thread.join()  # it ends by itself when the buffer is full
    assert len(buffer._frames) <= 9
    kept.close()
    assert not read_ahead_threads()


def test_a_consumer_that_fails_leaves_no_thread(buffer: FrameBuffer) -> None:
    def fails() -> None:
        for frame_idx in passes(buffer, range(100)):
            if frame_idx == 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    gc.collect()
    assert not read_ahead_threads()


def test_threads_and_files_are_gone_with_the_state(ours: LongVideoPredictor, mp4: Path) -> None:
    def open_files() -> int:
        return sum(file.path == str(mp4) for file in psutil.Process().open_files())

    gc.collect()
    before = open_files()
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 50, 1, points=[[60, 50]], labels=[1])
    for _ in ours.propagate_in_video(state):
        break
    del state
    gc.collect()
    assert not read_ahead_threads()
    assert open_files() == before


# Resident memory, in a process of its own ---------------------------------------------------------


def test_peak_memory_with_a_slow_consumer(tmp_path: Path) -> None:
    """Iterated with decord it might hold all 600 frames (1.9 GB)."""
    video = slow_consumer.long_video(tmp_path, seconds=20)
    numbers = slow_consumer.measure("av", video, num_frames=300, sleep=0.03)
    assert numbers["frames_read"] == 300
    assert numbers["peak_mb_above_the_level_after_opening"] < 300


@pytest.mark.slow
def test_peak_memory_with_a_slow_consumer_over_200_seconds(tmp_path: Path) -> None:
    video = slow_consumer.long_video(tmp_path, seconds=200)
    numbers = slow_consumer.measure("av", video, num_frames=6000, sleep=0.03)
    assert numbers["frames_read"] == 6000
    assert numbers["peak_mb_above_the_level_after_opening"] < 300


@pytest.mark.skipif(sys.platform != "linux", reason="counts bytes with /proc/self/io")
def test_opening_does_not_depend_on_the_length(tmp_path: Path) -> None:
    """An MP4 states its frame count; here the bytes that opening reads are counted."""

    def bytes_read(num_frames: int) -> int:
        path = videos.write_video(tmp_path / f"{num_frames}.mp4", num_frames, options={"g": "10"})
        before = int(Path("/proc/self/io").read_text().split()[1])
        assert open_source(path, 64, frames_per_chunk=8).num_frames == num_frames
        return int(Path("/proc/self/io").read_text().split()[1]) - before

    short, long = bytes_read(100), bytes_read(3000)
    # What grows is the header's table of frames, about 16 bytes each.
    assert long - short < 3000 * 40


def test_time_is_not_spent_waiting_when_frames_are_ready(buffer: FrameBuffer) -> None:
    """While a step computes, the next frames are decoded; a step then finds them there."""
    waited = 0
    for frame_idx in passes(buffer, range(60)):
        for thread in read_ahead_threads():
            thread.join()
        waited += frame_idx + 1 not in buffer._frames
    assert waited == 0
