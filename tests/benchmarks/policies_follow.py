"""Memory policies on one generated video: what policies.py measures."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from policies_methods import METHODS

from longsam.frames import FrameBuffer, open_source
from longsam.testing import SyntheticVideo, iou, load_predictor

FIRST_SEED = 3000
SIZE = (192, 192)
FEWEST_PIXELS = 16
GONE = 5
"""An object has come back that was absent for so many frames."""

SOON = 15
"""It is found again if a mask overlaps it within so many."""

BLOCK = 500


PREDICTOR: Any = None


def set_up() -> None:
    """Of a process."""
    global PREDICTOR
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    PREDICTOR = load_predictor()


def follow(
    methods: Sequence[str], seed: int, num_frames: int, num_objects: int | None
) -> dict[str, dict[str, Any]]:
    """Track a video's objects with several policies, frame by frame, and count.

    A frame is encoded once for all of them; the masks are those of a run of each by itself
    (`State.put_image_features`).

    Args:
        methods: Of `METHODS`.
        seed: The video's.
        num_frames: Its length.
        num_objects: 1 follows the object `seed % num_objects` alone; None follows all.

    Returns:
        For each method "objects": counts of each, by its index; "state_bytes" at the end, without
        features and frames, and of these "policy_bytes".
    """
    video = SyntheticVideo(seed, num_frames, SIZE, "hard")
    target = seed % video.num_objects
    which = list(range(video.num_objects)) if num_objects is None else [target]
    starts = {obj: first_shown(video, obj) for obj in which}
    seen = [obj for obj, start in starts.items() if start is not None]
    counts = {method: {obj: Count() for obj in seen} for method in methods}
    order = sorted({start for start in starts.values() if start is not None})
    size = PREDICTOR.image_size
    with ExitStack() as at_end:
        images = FrameBuffer(open_source(video, size), size, 8, torch.device("cpu"))
        at_end.callback(images.close)
        states = {
            method: at_end.enter_context(PREDICTOR.init_state(video, memory_policy=METHODS[method]))
            for method in methods
        }

        def encode(frame_idx: int) -> None:
            with torch.inference_mode():
                features = PREDICTOR.forward_image(images[frame_idx].float().unsqueeze(0))
            for state in states.values():
                state.put_image_features(frame_idx, features)

        for start, after in pairwise([*order, num_frames]):
            encode(start)
            passes = {}
            for method, state in states.items():
                for obj in seen:
                    if starts[obj] == start:
                        PREDICTOR.add_new_mask(state, start, obj, video.masks(start)[obj])
                passes[method] = PREDICTOR.propagate_in_video(
                    state, start, max_frame_num_to_track=after - 1 - start, progress_bar=False
                )
            for frame_idx in range(start, after):
                if frame_idx > start:
                    encode(frame_idx)
                truth = video.masks(frame_idx)
                for method, steps in passes.items():
                    tracked, obj_ids, mask_logits = next(steps)
                    assert tracked == frame_idx
                    for obj, logits in zip(obj_ids, mask_logits, strict=True):
                        if frame_idx > starts[obj]:
                            counts[method][obj].add((logits[0] > 0).numpy(), truth[obj])
            for steps in passes.values():
                assert next(steps, None) is None
        usages = {method: PREDICTOR.memory_usage(state) for method, state in states.items()}
    return {
        method: {
            "target": target,
            "objects": {str(obj): count.result() for obj, count in counts[method].items()},
            "state_bytes": sum(
                of.get("cpu", 0)
                for kind, of in usage.items()
                if kind not in ("cached_features", "frame_buffer", "total")
            ),
            "policy_bytes": usage.get("policy", {}).get("cpu", 0),
        }
        for method, usage in usages.items()
    }


def first_shown(video: SyntheticVideo, obj: int) -> int | None:
    """The first frame that shows an object; None if none but the last does."""
    return next((i for i in range(len(video) - 1) if video.visible(i)[obj]), None)


class Count:
    """How one object was followed, frame by frame."""

    def __init__(self) -> None:
        self.overlaps: list[float] = []
        self.pixels: list[int] = []
        self.shown: list[bool] = []

    def add(self, mask: Any, truth: Any) -> None:
        self.overlaps.append(float(iou(mask, truth)))
        self.pixels.append(int(truth.sum()))
        self.shown.append(bool(mask.any()))

    def result(self) -> dict[str, Any]:
        pixels, overlap = np.array(self.pixels), np.array(self.overlaps)
        visible, absent, empty = pixels >= FEWEST_PIXELS, pixels == 0, ~np.array(self.shown)
        counted = visible | absent
        quality = np.where(visible, overlap, empty)
        num_returns, num_found = came_back(visible, absent, overlap)
        blocks = [
            slice(at, at + BLOCK) for at in range(0, len(pixels), BLOCK) if len(pixels) > BLOCK
        ]
        return {
            "J": mean(overlap[visible]),
            "Q": mean(quality[counted]),
            "Q_of_nothing": mean(absent[counted]),
            "num_visible": int(visible.sum()),
            "num_absent": int(absent.sum()),
            "num_absent_called_absent": int((absent & empty).sum()),
            "num_returns": num_returns,
            "num_found": num_found,
            "Q_by_block": [mean(quality[block][counted[block]]) for block in blocks],
        }


def mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 5) if len(values) else None


def came_back(visible: Any, absent: Any, overlap: Any) -> tuple[int, int]:
    """How often the object came back after it was gone, and was found again."""
    returns = found = gone = 0
    for i in range(len(visible)):
        if absent[i]:
            gone += 1
        elif visible[i]:
            if gone >= GONE:
                returns += 1
                found += bool((overlap[i : i + SOON] > 0.5).any())
            gone = 0
    return returns, found
