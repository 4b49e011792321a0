"""Checkpoints and configs: what a file is, which config it fits, and what to do if none fits."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

DOWNLOAD = "https://github.com/facebookresearch/sam2#download-checkpoints"

Weights = dict[str, torch.Tensor]

SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
"""Meta's names of the sizes in checkpoints, and in configs."""

_RELEASED = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}
"""The config's size by the trunk's width (channels) and its number of blocks."""

_WIDTH = "image_encoder.trunk.patch_embed.proj.weight"
_BLOCK = "image_encoder.trunk.blocks."
_ONLY_IN_2_1 = "no_obj_embed_spatial"


def config_name(config: str | os.PathLike[str]) -> str:
    """What upstream calls a config.

    Args:
        config: Upstream's own name, its last part ("sam2.1_hiera_t"), or a size of SAM 2.1
            ("tiny", "small", "base_plus", "large").

    Raises:
        ValueError: There is no config of this name.
    """
    name = os.fspath(config).removesuffix(".yaml")
    name = f"sam2.1_hiera_{SIZES[name]}" if name in SIZES else name
    known = {f"{v}_hiera_{size}": v for v in ("sam2.1", "sam2") for size in SIZES.values()}
    if name in known:
        return f"configs/{known[name]}/{name}.yaml"
    if name.startswith("configs/"):
        return f"{name}.yaml"
    raise ValueError(
        f"There is no config {os.fspath(config)!r}. Give {', '.join(SIZES)}, a name of upstream's "
        "such as sam2.1_hiera_t, or the path of a YAML file of your own."
    )


def released_config(weights: Weights) -> str | None:
    """The released config whose weights have these shapes; None if there is none."""
    if _WIDTH not in weights:
        return None
    blocks = {name.split(".")[3] for name in weights if name.startswith(_BLOCK)}
    size = _RELEASED.get((len(weights[_WIDTH]), len(blocks)))
    version = "sam2.1" if _ONLY_IN_2_1 in weights else "sam2"
    return None if size is None else f"configs/{version}/{version}_hiera_{size}.yaml"


def read(path: str | os.PathLike[str]) -> Weights:
    """The weights of a checkpoint in upstream's format; no code in the file is run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is something else; the message says what, and what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the checkpoint file in it.")
    if not path.exists():
        raise FileNotFoundError(
            f"There is no checkpoint at {path}. Meta's are listed at {DOWNLOAD}."
        )
    with open(path, "rb") as file:
        start = file.read(512)
    _check_start(path, start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol; errors say more
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not start.startswith((b"PK", b"\x80")):
            raise ValueError(f"{path} is not a PyTorch checkpoint. Meta's: {DOWNLOAD}.") from error
        raise ValueError(
            f"{path} holds Python objects{_named(error)}, not only weights; it is refused, since "
            "loading them can run code. Where you trust it, save its weights alone: "
            'torch.save({"model": model.state_dict()}, "new.pt").'
        ) from error
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        size = path.stat().st_size / 1e6
        raise ValueError(
            f"{path} ({size:.1f} MB) is cut off or damaged, and cannot be read as a PyTorch "
            f"checkpoint. Copy it, or download it again: {DOWNLOAD}."
        ) from error
    return _weights_in(path, content)


def check_fit(path: str | os.PathLike[str], weights: Weights, model: Weights, config: str) -> None:
    """Refuse weights of another model.

    Args:
        path: The checkpoint, for the message.
        weights: Its weights.
        model: The weights of the model that the config makes.
        config: The config's name.

    Raises:
        ValueError: They differ; the message names the first layer that does, and the config that
            fits.
    """
    differing = next(
        (n for n in [*model, *weights] if _shape(weights, n) != _shape(model, n)), None
    )
    if differing is None:
        return
    fits = released_config(weights)
    advice = "Give the config that it was trained with."
    if fits is not None and fits != config:
        advice = f"It fits the config {Path(fits).stem}: give that one."
    raise ValueError(
        f"{path} does not fit the config {config}: {differing} is {_shape(weights, differing)} in "
        f"the file and {_shape(model, differing)} in the model. {advice}"
    )


def _shape(weights: Weights, name: str) -> str:
    return "x".join(map(str, weights[name].shape)) or "1" if name in weights else "missing"


def _check_start(path: Path, start: bytes) -> None:
    """Refuse what the first bytes of a file give away."""
    what = ""
    if not start:
        what = "is empty (0 bytes): a download that failed?"
    elif start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "is a web page, not a checkpoint: a link to a page was downloaded."
    elif start.startswith(b"version https://git-lfs"):
        what = "is a pointer of Git LFS, not the file: run `git lfs pull`, or use Meta's file."
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        what = "is a safetensors file; longsam reads Meta's checkpoints (.pt)."
    if what:
        raise ValueError(f"{path} {what} Download it again: {DOWNLOAD}.")


def _weights_in(path: Path, content: Any) -> Weights:
    if isinstance(content, dict):
        if _are_weights(content.get("model")):
            weights: Weights = content["model"]
            return weights
        how = 'torch.save({"model": weights}, "new.pt")'
        if _are_weights(content.get("state_dict")):
            raise ValueError(
                f'{path} is a checkpoint of PyTorch Lightning or the like ("state_dict" instead of '
                f'"model"). Take its "state_dict", strip what your module puts before the names, '
                f"and save it: {how}."
            )
        if _are_weights(content):
            is_sam2 = any(name.startswith("image_encoder.trunk.") for name in content)
            raise ValueError(
                f'{path} is a bare state dict, without upstream\'s "model" around it. Wrap it: '
                f"weights = torch.load(file, weights_only=True); {how}."
                if is_sam2
                else f"{path} holds weights of another model, not SAM 2's (no "
                f"image_encoder.trunk). SAM 2's are listed at {DOWNLOAD}."
            )
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        found = f"a dict of {keys}"
    else:
        found = f"a {type(content).__name__}"
    raise ValueError(
        f'{path} holds {found}; a checkpoint of SAM 2 holds {{"model": weights}}. Meta\'s are '
        f"listed at {DOWNLOAD}."
    )


def _are_weights(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(n, str) and isinstance(w, torch.Tensor) for n, w in value.items())
    )


def _named(error: Exception) -> str:
    """The class that torch refused, as " (module.Class)"."""
    words = str(error).replace("`", " ").split()
    found = next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "GLOBAL"), None)
    return f" ({found})" if found else ""
