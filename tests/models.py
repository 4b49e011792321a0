"""Small models of upstream's architecture with seeded weights, for tests of exactness.

The weights are random, so the masks mean nothing. What parity needs is that they are of both signs,
that objects count as present, and that memory matters; `test_exact.py` checks all three.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

from longsam import LongVideoPredictor, build_long_video_predictor

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
IMAGE_SIZE = 128

SMALL = (
    f"++model.image_size={IMAGE_SIZE}",
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,2,3,1]",
    "++model.image_encoder.trunk.global_att_blocks=[4,5]",
    "++model.image_encoder.trunk.window_spec=[8,4,8,4]",
    "++model.image_encoder.neck.d_model=64",
    "++model.image_encoder.neck.position_encoding.num_pos_feats=64",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "++model.memory_attention.d_model=64",
    "++model.memory_attention.num_layers=2",
    "++model.memory_attention.layer.d_model=64",
    "++model.memory_attention.layer.dim_feedforward=128",
    "++model.memory_attention.layer.self_attention.embedding_dim=64",
    "++model.memory_attention.layer.cross_attention.embedding_dim=64",
    "++model.memory_attention.layer.cross_attention.kv_in_dim=32",
    "++model.memory_encoder.in_dim=64",
    "++model.memory_encoder.mask_downsampler.embed_dim=64",
    "++model.memory_encoder.out_dim=32",
    "++model.memory_encoder.position_encoding.num_pos_feats=32",
    "++model.memory_encoder.fuser.layer.dim=64",
    "++model.memory_encoder.fuser.layer.layer_scale_init_value=0.1",
)


def save_checkpoint(path: Path, seed: int = 0, overrides: Sequence[str] = SMALL) -> Path:
    """Write seeded weights in the format of upstream's checkpoints."""
    torch.manual_seed(seed)
    model = build_sam2_video_predictor(
        CONFIG, None, device="cpu", hydra_overrides_extra=list(overrides)
    )
    with torch.no_grad():
        # As drawn, tokens are so large that the image hardly matters, and scores are about 0.
        head = model.sam_mask_decoder.pred_obj_score_head
        head.layers[-1].bias.fill_(3.0)
        for name, parameter in model.named_parameters():
            if "obj_ptr_tpos_proj" in name or "maskmem_tpos_enc" in name:
                parameter.mul_(20.0)
    torch.save({"model": model.state_dict()}, path)
    return path


def build_upstream(checkpoint: Path | None, *options: str, **kwargs: Any) -> SAM2VideoPredictor:
    overrides = kwargs.pop("overrides", SMALL)
    return build_sam2_video_predictor(
        CONFIG,
        checkpoint and str(checkpoint),
        device="cpu",
        hydra_overrides_extra=[*overrides, *options],
        **kwargs,
    )


def build_ours(checkpoint: Path | None, *options: str, **kwargs: Any) -> LongVideoPredictor:
    overrides = kwargs.pop("overrides", SMALL)
    return build_long_video_predictor(
        CONFIG,
        checkpoint and str(checkpoint),
        device="cpu",
        hydra_overrides_extra=[*overrides, *options],
        **kwargs,
    )
