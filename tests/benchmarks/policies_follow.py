"""One memory policy on one generated video: what policies.py measures."""

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from policies_methods import METHODS

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


def follow(method: str, seed: int, num_frames: int, num_objects: int | None) -> dict[str, Any]:
    """Track a video's objects and count.

    Args:
        method: Of `METHODS`.
        seed: The video's.
        num_frames: Its length.
        num_objects: 1 follows the object `seed % num_objects` alone; None follows all.

    Returns:
        "objects": counts of each, by its index; "state_bytes" at the end, without features and
        frames, and of these "policy_bytes".
    """
    video = SyntheticVideo(seed, num_frames, SIZE, "hard")
    target = seed % video.num_objects
    which = list(range(video.num_objects)) if num_objects is None else [target]
    starts = {obj: first_shown(video, obj) for obj in which}
    counts = {obj: Count() for obj, start in starts.items() if start is not None}
    order = sorted({start for start in starts.values() if start is not None})
    with PREDICTOR.init_state(video, memory_policy=METHODS[method]) as state:
        for start, after in pairwise([*order, num_frames]):
            for obj in counts:
                if starts[obj] == start:
                    PREDICTOR.add_new_mask(state, start, obj, video.masks(start)[obj])
            steps = PREDICTOR.propagate_in_video(
                state, start, max_frame_num_to_track=after - 1 - start, progress_bar=False
            )
            for frame_idx, obj_ids, mask_logits in steps:
                truth = video.masks(frame_idx)
                for obj, logits in zip(obj_ids, mask_logits, strict=True):
                    if frame_idx > starts[obj]:
                        counts[obj].add((logits[0] > 0).numpy(), truth[obj])
        usage = PREDICTOR.memory_usage(state)
    held = [usage[kind].get("cpu", 0) for kind in usage
            if kind not in ("cached_features", "frame_buffer", "total")]  # fmt: skip
    return {
        "target": target,
        "objects": {str(obj): count.result() for obj, count in counts.items()},
        "state_bytes": sum(held),
        "policy_bytes": usage.get("policy", {}).get("cpu", 0),
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
