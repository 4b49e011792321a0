"""Image features of several frames at once (`frames_per_encode`)."""

from collections.abc import Callable
from typing import Any

import torch

from longsam import _upstream
from longsam._upstream import InferenceState


def encode_ahead(
    state: InferenceState,
    frame_idx: int,
    at_once: int,
    forward_image: Callable[[torch.Tensor], Any],
) -> None:
    """Encode a frame together with those that are encoded with it, unless its features are there.

    Which frames these are depends on the frame alone, inside a pass or not, so a session that is
    resumed encodes the same ones together.

    Args:
        state: The session.
        frame_idx: The frame that is asked for.
        at_once: How many frames are encoded at once: 0 to n-1, n to 2n-1, ...
        forward_image: Upstream's encoder, of a batch of normalized frames.
    """
    if at_once == 1 or _upstream.has_features(state, frame_idx):
        return
    images = _upstream.images(state)
    first = frame_idx // at_once * at_once
    frames = range(first, min(first + at_once, len(images)))
    read: dict[int, torch.Tensor] = {}
    for one in frames[::-1] if images.direction < 0 else frames:
        try:
            read[one] = images[one]
        except Exception:  # the pass raises it when it comes to that frame
            break
    if read:
        _upstream.encode(state, read, forward_image)
