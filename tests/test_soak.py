"""A shorter form of tests/benchmarks/soak.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import videos
from benchmarks import soak


@pytest.mark.slow
def test_nothing_grows_over_8000_frames(tmp_path: Path) -> None:
    video = videos.write_video(tmp_path / "video.mp4", 8000, soak.SIDE, soak.SIDE)
    command = [sys.executable, "-W", "ignore", soak.__file__, "--save-every", "1000"]
    child = subprocess.run([*command, "--track", str(video)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    samples = [json.loads(line) for line in child.stdout.splitlines()]
    numbers = soak.summary(samples)
    assert numbers["frames"] == 8000
    assert 0 < numbers["mean_area"] < soak.SIDE**2
    late = samples[4:]
    assert len({sample["state"] for sample in late}) == 1
    resident = [sample["resident"] for sample in late]
    assert max(resident[6:]) - max(resident[:6]) < 3_000_000
    # A reader comes and goes.
    assert max(sample["threads"] for sample in late) - min(s["threads"] for s in late) <= 1
    assert max(sample["files"] for sample in late) - min(s["files"] for s in late) <= 1
