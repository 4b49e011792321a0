"""Checkpoints and configs that are not right: one line says what the file is and what to do."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from sam2.build_sam import build_sam2_video_predictor

from longsam import build_long_video_predictor, checkpoints
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES


class Anything:
    """Something that is not weights."""


def weights() -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(CHECKPOINT, weights_only=True)["model"]
    return loaded


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "html": (lambda path: path.write_text("\n<!DOCTYPE html><html>"), "is a web page"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "safetensors": (
        lambda path: path.write_bytes((64).to_bytes(8, "little") + b'{"a": 1}' + bytes(99)),
        "is a safetensors file",
    ),
    "text": (lambda path: path.write_text("weights"), "is not a PyTorch checkpoint"),
    "cut": (
        lambda path: path.write_bytes(CHECKPOINT.read_bytes()[:100_000]),
        "is cut off or damaged",
    ),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "bare": (lambda path: torch.save(weights(), path), "is a bare state dict"),
    "lightning": (
        lambda path: torch.save(
            {"state_dict": {f"model.{n}": w for n, w in weights().items()}, "epoch": 3}, path
        ),
        "PyTorch Lightning",
    ),
    "other_model": (
        lambda path: torch.save({"conv1.weight": torch.ones(3)}, path),
        "weights of another model",
    ),
    "other_keys": (lambda path: torch.save({"epoch": 1, "net": {}}, path), "a dict of epoch, net"),
    "tensor": (lambda path: torch.save(torch.ones(3), path), "holds a Tensor"),
    "objects": (lambda path: torch.save({"model": Anything()}, path), "test_cli_checkpoints.Any"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Anything())), "holds Python objects"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_checkpoint(kind: str, tmp_path: Path) -> None:
    write, message = WRONG[kind]
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    write(path)
    with pytest.raises(ValueError, match=r"sam2\.1_hiera_tiny\.pt") as error:
        build_long_video_predictor("tiny", path, device="cpu")
    said = str(error.value)
    assert message in said
    assert "\n" not in said
    assert len(said) - len(str(path)) < 250


def test_weights_of_another_config_name_the_layer_and_the_config(tmp_path: Path) -> None:
    small = build_sam2_video_predictor("configs/sam2/sam2_hiera_t.yaml", None, device="cpu")
    path = tmp_path / "renamed.pt"
    torch.save({"model": small.state_dict()}, path)
    with pytest.raises(ValueError, match=r"renamed\.pt") as error:
        build_long_video_predictor("tiny", path, device="cpu")
    said = str(error.value)
    assert "no_obj_embed_spatial is missing in the file and 1x64 in the model" in said
    assert "It fits the config sam2_hiera_t" in said
    predictor = build_long_video_predictor(None, path, device="cpu")
    for name, weight in small.state_dict().items():
        assert torch.equal(predictor.state_dict()[name], weight)
    with pytest.raises(ValueError, match=r"shapes of no released model"):
        build_long_video_predictor(None, CHECKPOINT, device="cpu")


def test_the_released_configs_are_told_apart_by_shapes() -> None:
    for version in ("sam2", "sam2.1"):
        for size in checkpoints.SIZES.values():
            name = f"configs/{version}/{version}_hiera_{size}.yaml"
            trunk = compose(config_name=name).model.image_encoder.trunk
            blocks = sum(trunk.get("stages", (2, 3, 16, 3)))
            shapes = {"image_encoder.trunk.patch_embed.proj.weight": torch.ones(trunk.embed_dim)}
            shapes |= {f"image_encoder.trunk.blocks.{n}.norm": torch.ones(1) for n in range(blocks)}
            if version == "sam2.1":
                shapes["no_obj_embed_spatial"] = torch.ones(1)
            assert checkpoints.released_config(shapes) == name
            assert checkpoints.config_name(f"{version}_hiera_{size}") == name
    assert checkpoints.config_name("tiny") == CONFIG
    assert checkpoints.config_name(CONFIG) == CONFIG


@pytest.fixture
def own_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "my model.yaml"
    config = compose(config_name=CONFIG, overrides=list(OVERRIDES))
    path.write_text(OmegaConf.to_yaml(config))
    return path


def test_a_config_of_ones_own(own_yaml: Path, tmp_path: Path) -> None:
    path = shutil.copy(CHECKPOINT, tmp_path / "mine.pt")
    predictor = build_long_video_predictor(own_yaml, path, device="cpu")
    assert predictor.image_size == 192
    build_long_video_predictor("tiny", device="cpu")  # upstream's are found as before
    with pytest.raises(ValueError, match=r"There is no config .*Give tiny, small"):
        build_long_video_predictor(tmp_path / "none.yaml", device="cpu")
    with pytest.raises(ValueError, match=r"configs/none\.yaml cannot be used"):
        build_long_video_predictor("configs/none.yaml", device="cpu")
    own_yaml.write_text("trainer: {}\n")
    with pytest.raises(ValueError, match=r"cannot be used"):
        build_long_video_predictor(own_yaml, device="cpu")
    own_yaml.write_text("model: [1\n")
    with pytest.raises(ValueError, match=r"cannot be used"):
        build_long_video_predictor(own_yaml, device="cpu")
