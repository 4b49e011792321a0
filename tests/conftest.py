"""Fixtures that many tests share: videos and models, made once a run."""

import os
from pathlib import Path

import models
import pytest
import torch
import videos
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LongVideoPredictor

torch.set_num_threads(1)  # one process a core (pytest-xdist), and the same sums in each
os.environ["OMP_NUM_THREADS"] = "1"  # so too in processes that tests start


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def checkpoint(data: Path) -> Path:
    return models.save_checkpoint(data / "small.pt")


@pytest.fixture(scope="session")
def upstream(checkpoint: Path) -> SAM2VideoPredictor:
    return models.build_upstream(checkpoint)


@pytest.fixture(scope="session")
def ours(checkpoint: Path) -> LongVideoPredictor:
    return models.build_ours(checkpoint)


@pytest.fixture(scope="session")
def mp4(data: Path) -> Path:
    """100 frames of H.264 with B-frames, a keyframe every 24 frames."""
    return videos.write_video(data / "video.mp4", 100, options={"g": "24", "bf": "2"})


@pytest.fixture(scope="session")
def jpegs(data: Path) -> Path:
    """The same 100 frames as a folder of JPEGs."""
    return videos.write_folder(data / "jpegs", 100)
