"""Builders: upstream's own, told to make our class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from longsam._installed_sam2 import build_sam
from longsam.predictor import LongVideoPredictor, best_device


def build_long_video_predictor(
    config_file: str,
    ckpt_path: str | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> LongVideoPredictor:
    """Build a LongVideoPredictor with upstream's `build_sam2_video_predictor`.

    Args:
        config_file: Upstream's name of a config, such as "configs/sam2.1/sam2.1_hiera_l.yaml".
        ckpt_path: A checkpoint in upstream's format; None leaves the weights random.
        device: Where the model runs; None is "cuda" where there is a GPU, else "cpu".
        mode: "eval" to track.
        hydra_overrides_extra: Changes to the config, such as "++model.image_size=512".
        apply_postprocessing: Upstream's settings for tracking (fills small holes, and others).
        vos_optimized: Compile the model's parts; the first frames then take minutes.
        **kwargs: Passed on to upstream, which ignores them.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        RuntimeError: The checkpoint does not fit the config.
    """
    if ckpt_path is not None and not Path(ckpt_path).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint at {ckpt_path}. Meta's are listed at "
            "https://github.com/facebookresearch/sam2#download-checkpoints."
        )
    predictor: LongVideoPredictor = build_sam.build_sam2_video_predictor(
        config_file,
        ckpt_path,
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
    predictor.name = f"{config_file} with {ckpt_path or 'random weights'}"
    return predictor
