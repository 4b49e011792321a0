"""The testing model: upstream's architecture, smaller, with trained weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longsam import LongVideoPredictor, build_long_video_predictor

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
"""Upstream's config, which the testing model scales down."""

CHECKPOINT = Path(__file__).parent / "weights" / "testing_model.pt"
"""The shipped weights, in upstream's checkpoint format, as float16."""

IMAGE_SIZE = 192
_WIDTH = 64
_MEMORY_WIDTH = 32
_TRUNK_WIDTH = 32

OVERRIDES: Sequence[str] = (
    f"++model.image_size={IMAGE_SIZE}",
    f"++model.image_encoder.trunk.embed_dim={_TRUNK_WIDTH}",
    "++model.image_encoder.trunk.stages=[1,2,3,1]",
    "++model.image_encoder.trunk.global_att_blocks=[4,5]",
    "++model.image_encoder.trunk.window_spec=[8,4,8,4]",
    f"++model.image_encoder.neck.d_model={_WIDTH}",
    f"++model.image_encoder.neck.position_encoding.num_pos_feats={_WIDTH}",
    "++model.image_encoder.neck.backbone_channel_list="
    f"[{8 * _TRUNK_WIDTH},{4 * _TRUNK_WIDTH},{2 * _TRUNK_WIDTH},{_TRUNK_WIDTH}]",
    f"++model.memory_attention.d_model={_WIDTH}",
    "++model.memory_attention.num_layers=2",
    f"++model.memory_attention.layer.d_model={_WIDTH}",
    f"++model.memory_attention.layer.dim_feedforward={4 * _WIDTH}",
    "++model.memory_attention.layer.dropout=0.0",
    f"++model.memory_attention.layer.self_attention.embedding_dim={_WIDTH}",
    "++model.memory_attention.layer.self_attention.dropout=0.0",
    f"++model.memory_attention.layer.cross_attention.embedding_dim={_WIDTH}",
    f"++model.memory_attention.layer.cross_attention.kv_in_dim={_MEMORY_WIDTH}",
    "++model.memory_attention.layer.cross_attention.dropout=0.0",
    f"++model.memory_encoder.in_dim={_WIDTH}",
    f"++model.memory_encoder.mask_downsampler.embed_dim={_WIDTH}",
    f"++model.memory_encoder.out_dim={_MEMORY_WIDTH}",
    f"++model.memory_encoder.position_encoding.num_pos_feats={_MEMORY_WIDTH}",
    f"++model.memory_encoder.fuser.layer.dim={_WIDTH}",
    "++model.memory_encoder.fuser.layer.layer_scale_init_value=0.1",
)
"""What the testing model changes in `CONFIG`, for `hydra_overrides_extra` of upstream's builder."""


def load_predictor(device: str = "cpu", **options: Any) -> LongVideoPredictor:
    """Build a `LongVideoPredictor` with the weights that come with longsam.

    Upstream's own predictor with the same weights is
    `build_sam2_video_predictor(CONFIG, str(CHECKPOINT), hydra_overrides_extra=list(OVERRIDES))`.

    Args:
        device: "cpu", or "cuda" where there is a GPU.
        **options: Passed to `build_long_video_predictor`; `hydra_overrides_extra` is added to the
            overrides that make the model small.
    """
    overrides = [*OVERRIDES, *options.pop("hydra_overrides_extra", [])]
    return build_long_video_predictor(
        CONFIG, str(CHECKPOINT), device=device, hydra_overrides_extra=overrides, **options
    )
