"""Image features, sent from the worker that encodes a frame to those that track on it."""

from typing import Any

import numpy as np
import torch

from longsam import LongVideoPredictor
from longsam.frames import FrameBuffer, open_source

Features = dict[str, Any]
"""What upstream's `forward_image` returns for a frame."""

Packed = list[tuple[Any, tuple[int, ...], tuple[int, ...], str]]
"""For each level its bytes, shape, strides and dtype."""

FRAMES_AHEAD = 8
"""Frames that an encoder decodes ahead; uint8, 3 MiB each at 1024 x 1024."""


class Encoder:
    """Encodes frames of one video as the predictor itself would; fastest in ascending order."""

    def __init__(self, predictor: LongVideoPredictor, video: str):
        self._predictor = predictor
        size = predictor.image_size
        self._images = FrameBuffer(
            open_source(video, size), size, FRAMES_AHEAD, torch.device(predictor.device)
        )

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._images.close()

    def encode(self, frame_idx: int) -> tuple[Features, float | None]:
        """A frame's features and its time stamp.

        Raises:
            EndOfVideoError: There is no such frame: the header's count is too high.
            RuntimeError: It cannot be read.
        """
        with self._images.reading_ahead(1):
            image = self._images[frame_idx]
        with torch.inference_mode():
            features: Features = self._predictor.forward_image(image.float().unsqueeze(0))
        return features, self._images.source.time(frame_idx)


def pack(features: Features) -> Packed:
    """The levels that tracking reads, for Ray's object store, without positional encodings.

    The memory layout is kept: it can decide which kernel runs, and so how numbers are rounded.
    """
    packed: Packed = []
    for level in features["backbone_fpn"]:
        reach = sum((n - 1) * step for n, step in zip(level.shape, level.stride(), strict=True))
        if reach + 1 != level.numel():  # a view with gaps
            level = level.contiguous()
        flat = level.as_strided((level.numel(),), (1,)).cpu().view(torch.uint8).numpy()
        packed.append((flat, tuple(level.shape), level.stride(), str(level.dtype).split(".")[1]))
    return packed


def unpack(packed: Packed, encodings: list[torch.Tensor], device: torch.device) -> Features:
    """Features as `forward_image` made them.

    Args:
        packed: From `pack`.
        encodings: The positional encodings of the levels, which are the same for all frames.
        device: The model's.
    """
    levels = []
    for flat, shape, strides, dtype in packed:
        # A copy: the object store's is read-only, and is freed when nothing refers to it.
        raw = torch.empty(flat.size, dtype=torch.uint8)
        np.copyto(raw.numpy(), flat)
        levels.append(raw.view(getattr(torch, dtype)).to(device).as_strided(shape, strides))
    return {"backbone_fpn": levels, "vision_pos_enc": list(encodings)}
