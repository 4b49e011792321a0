"""The training of the testing model, as far as a few steps show it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longsam import build_long_video_predictor
from longsam.testing import CONFIG, OVERRIDES

SCRIPT = Path(__file__).parents[1] / "examples" / "train_testing_model" / "train.py"


def train(out: Path, until_step: int) -> dict[str, torch.Tensor]:
    words = ["--out", out, "--processes", 1, "--until-step", until_step]
    command = [sys.executable, "-W", "error", SCRIPT, *words]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    saved = torch.load(out / "training.pt", weights_only=True)
    assert saved["step"] == until_step
    weights: dict[str, torch.Tensor] = torch.load(out / "testing_model.pt", weights_only=True)[
        "model"
    ]
    return weights


@pytest.mark.slow
def test_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """With the weights of a training that was not, in a checkpoint that upstream loads."""
    train(tmp_path / "stopped", 2)
    stopped, whole = train(tmp_path / "stopped", 3), train(tmp_path / "whole", 3)
    assert stopped.keys() == whole.keys()
    assert all(torch.equal(stopped[name], whole[name]) for name in whole)
    build_long_video_predictor(
        CONFIG,
        str(tmp_path / "whole" / "testing_model.pt"),
        device="cpu",
        hydra_overrides_extra=list(OVERRIDES),
    )
