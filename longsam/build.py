"""Builders: upstream's own, made to build our class."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from longsam import checkpoints
from longsam._installed_sam2 import build_sam
from longsam.predictor import LongVideoPredictor, best_device


def build_long_video_predictor(
    config_file: str | os.PathLike[str] | None,
    ckpt_path: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> LongVideoPredictor:
    """Build a LongVideoPredictor with upstream's `build_sam2_video_predictor`.

    Args:
        config_file: Upstream's name of a config, such as "configs/sam2.1/sam2.1_hiera_l.yaml", its
            last part, "sam2.1_hiera_l", or a size of SAM 2.1: "tiny", "small", "base_plus",
            "large"; or the path of your own YAML file. None is the released config whose weights
            have the checkpoint's shapes.
        ckpt_path: A checkpoint in upstream's format; None leaves the weights random.
        device: Where the model runs; None is "cuda" where there is a GPU, else "cpu".
        mode: "eval" to track.
        hydra_overrides_extra: Changes to the config, such as "++model.image_size=512".
        apply_postprocessing: Upstream's settings for tracking (fills small holes, and others).
        vos_optimized: Compile the model's parts; the first frames then take minutes.
        **kwargs: Passed on to upstream, which ignores them.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The file is not a checkpoint, holds more than weights, or does not fit the
            config; or there is no such config.
    """
    weights = None if ckpt_path is None else checkpoints.read(ckpt_path)
    if config_file is None:
        config_file = None if weights is None else checkpoints.released_config(weights)
    if config_file is None:
        raise ValueError(
            f"{ckpt_path} has the shapes of no released model, so its config is not known; give "
            "the YAML file that it was trained with."
            if weights
            else "Neither a config nor a checkpoint is given; give a checkpoint, or a config for "
            'random weights, for instance "tiny".'
        )
    with _found(config_file) as name:
        # Without the checkpoint: upstream's messages name neither the file nor the config.
        predictor: LongVideoPredictor = build_sam.build_sam2_video_predictor(
            name,
            None,
            device=device or best_device(),
            mode=mode,
            hydra_overrides_extra=[
                LongVideoPredictor.as_target(vos_optimized),
                *hydra_overrides_extra,
            ],
            apply_postprocessing=apply_postprocessing,
            vos_optimized=vos_optimized,
            **kwargs,
        )
    if weights is not None and ckpt_path is not None:
        checkpoints.check_fit(ckpt_path, weights, predictor.state_dict(), name)
        predictor.load_state_dict(weights)
    predictor.name = f"{config_file} with {ckpt_path or 'random weights'}"
    return predictor


@contextmanager
def _found(config: str | os.PathLike[str]) -> Iterator[str]:
    """Let upstream's builder find a config by the name it yields.

    Raises:
        ValueError: There is no such config, or the file cannot be read as one.
    """
    path = Path(config)
    try:
        if path.suffix in {".yaml", ".yml"} and path.is_file():
            with _searched_in(path.parent):
                yield path.name
        else:
            yield checkpoints.config_name(config)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        why = " ".join(str(error).split())[:100]
        raise ValueError(f"The config {os.fspath(config)} cannot be used: {why}.") from error


@contextmanager
def _searched_in(folder: Path) -> Iterator[None]:
    """Let hydra look for configs in a folder, and then where upstream has told it to look."""
    of_upstream = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.2"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if of_upstream is not None:
            GlobalHydra.instance().initialize(of_upstream)
