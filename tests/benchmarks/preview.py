"""How long `longsam preview` takes on a file of two hours, beside loading the model.

    python tests/benchmarks/preview.py

A clip of 250 frames (1080p, H.264, one keyframe) is looped to two hours without
encoding it again. The command gets points on frames 0 and 150,000, with the testing model, in a
process of its own; loading is measured in the same process. Writes results/preview.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import report

from longsam.testing import SyntheticVideo

NUM_IN_CLIP = 250  # x264's distance of keyframes
NUM_FRAMES = 2 * 3600 * 30 // NUM_IN_CLIP * NUM_IN_CLIP
RATE = 30

CHILD = """
import sys, time
from longsam.cli import main, model
began = time.perf_counter()
load = model.load
def timed(*given, **named):
    before = time.perf_counter()
    predictor = load(*given, **named)
    print("loading", time.perf_counter() - before)
    return predictor
model.load = timed
code = main(["preview", sys.argv[1], "--testing-model", "--device", "cpu", "--quiet", "--point",
             "900,500", "--point", "900,500@150000", "--out", sys.argv[2]])
print("whole", time.perf_counter() - began)
sys.exit(code)
"""


def write_two_hours(folder: Path) -> Path:
    """A short clip, looped by copying its packets."""
    clip = folder / "clip.mp4"
    SyntheticVideo(2, NUM_IN_CLIP, (1080, 1920)).write(clip, crf=30)
    path = folder / "two_hours.mp4"
    with av.open(clip) as source:
        stream = source.streams.video[0]
        tick = stream.time_base
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(stream) if p.size]
        frame = round(Fraction(1, RATE) / tick)
        with av.open(path, "w") as output:
            copy = output.add_stream_from_template(stream)
            for turn in range(NUM_FRAMES // len(packets)):
                for data, pts, dts, is_keyframe in packets:
                    packet = av.Packet(data)
                    offset = turn * len(packets) * frame
                    packet.pts, packet.dts = pts + offset, dts + offset
                    packet.stream, packet.time_base = copy, tick
                    packet.is_keyframe = is_keyframe
                    output.mux(packet)
    return path


def measure(video: Path, out: Path) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(video), str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = {
        word: float(line.split()[1])
        for line in child.stdout.splitlines()
        for word in ("loading", "whole")
        if line.startswith(word + " ")
    }
    return {
        "seconds_to_load_the_model": round(seconds["loading"], 2),
        "seconds_besides": round(seconds["whole"] - seconds["loading"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = write_two_hours(folder)
        turns = [measure(video, folder / "preview.png") for _ in range(options.turns)]
        numbers = {
            "frames": NUM_FRAMES,
            "bytes": video.stat().st_size,
            "turns": turns,
        }
    print(json.dumps(numbers, indent=1))
    report.write("preview", numbers)


if __name__ == "__main__":
    main()
