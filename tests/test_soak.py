"""A shorter form of tests/benchmarks/soak.py."""

from pathlib import Path

import videos
from benchmarks import soak


def test_nothing_grows_over_8000_frames(tmp_path: Path) -> None:
    video = videos.write_video(tmp_path / "video.mp4", 8000, soak.SIDE, soak.SIDE)
    samples = list(soak.track(video, tmp_path, save_every=1000))
    numbers = soak.summary(samples)
    assert numbers["frames"] == 8000
    assert 0 < numbers["mean_area"] < soak.SIDE**2
    late = samples[4:]
    assert len({sample["state"] for sample in late}) == 1
    resident = [sample["resident"] for sample in late]
    assert max(resident[6:]) - max(resident[:6]) < 3_000_000
    # One reader and one writer come and go.
    assert max(sample["threads"] for sample in late) - min(s["threads"] for s in late) <= 1
    assert max(sample["files"] for sample in late) - min(s["files"] for s in late) <= 1
