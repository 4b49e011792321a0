"""Memory of the readers when frames are used more slowly than they could be decoded.

    python tests/benchmarks/slow_consumer.py         # about 10 minutes

A 720p H.264 file of 200 s with a keyframe every 250 frames is read at 1024 x 1024 by a consumer
that takes 30 ms a frame, and by one that takes no time, each in a process of its own: with our
readers ("av", "decord") and, as upstream's loader does it, with decord iterated. Peak resident
memory is counted from the level after opening; a process that exceeds it by 8 GB stops. Writes
results/slow_consumer.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

SIZE = 1024
RUNS = (
    ("av", 0.03, 6000),
    ("decord iterated", 0.03, 6000),
    ("decord", 0.03, 1500),
    ("av", 0.0, 1500),
    ("decord iterated", 0.0, 1500),
    ("decord", 0.0, 1500),
)
"""(reader, seconds a frame takes its consumer, frames read)"""


def read(reader: str, video: str) -> Iterator[Any]:
    """The frames, one at a time; the first is there when the level is taken."""
    import torch

    if reader == "decord iterated":
        import decord

        yield from decord.VideoReader(video, width=SIZE, height=SIZE)
        return
    from longsam.frames import FrameBuffer, open_source

    source = open_source(video, SIZE, reader=reader, frames_per_chunk=32)  # type: ignore[arg-type]
    buffer = FrameBuffer(source, SIZE, 32, torch.device("cpu"))
    yield buffer[0]
    for frame_idx in range(len(buffer)):
        with buffer.reading_ahead(1):
            frame = buffer[frame_idx]
        yield frame


def consume(
    reader: str, video: str, num_frames: int, seconds_per_frame: float, limit: float
) -> Any:
    """The measured process."""
    import torch  # noqa: F401 (before the level is taken: decord imports it)

    process = psutil.Process()
    frames = read(reader, video)
    next(frames)
    level = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    consumed, started = 0, time.perf_counter()
    for _ in frames:
        consumed += 1
        time.sleep(seconds_per_frame)
        if consumed == num_frames or peak - level > limit:
            break
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {
        "reader": reader,
        "milliseconds_slept_per_frame": 1000 * seconds_per_frame,
        "frames_read": consumed,
        "stopped_above_the_limit": peak - level > limit,
        "peak_mb_above_the_level_after_opening": round((peak - level) / 1e6, 1),
        "level_mb": round(level / 1e6, 1),
        "frames_per_second": round(consumed / seconds, 1),
    }


def measure(reader: str, video: Path, num_frames: int, sleep: float, limit_gb: float = 8) -> Any:
    """Run `consume` in a process of its own."""
    arguments = [reader, str(video), str(num_frames), str(sleep), str(limit_gb)]
    command = [sys.executable, __file__, "--consume", *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def long_video(folder: Path, seconds: int) -> Path:
    """720p, 30 frames a second, a keyframe every 250 frames."""
    import videos

    options = {"g": "250", "preset": "ultrafast", "crf": "30", "x264-params": "scenecut=0"}
    return videos.write_video(folder / "long.mp4", 30 * seconds, 720, 1280, options=options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--consume", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.consume:
        reader, video, num_frames, sleep, limit_gb = options.consume
        numbers = consume(reader, video, int(num_frames), float(sleep), float(limit_gb) * 1e9)
        sys.stdout.write(json.dumps(numbers))
        return
    import report

    runs = []
    with tempfile.TemporaryDirectory() as folder:
        video = long_video(Path(folder), 200)
        for reader, sleep, num_frames in RUNS:
            runs.append(measure(reader, video, num_frames, sleep))
            print(json.dumps(runs[-1]), flush=True)
    print(report.write("slow_consumer", runs))


if __name__ == "__main__":
    main()
