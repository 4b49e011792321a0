"""Tracks a DAVIS video's objects from their first masks, and writes masks like the truth."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longsam import LongVideoPredictor
from longsam.policies import MemoryPolicy
from longsam.testing.davis import DavisVideo, mask_path


def track(
    predictor: LongVideoPredictor, video: DavisVideo, policy: MemoryPolicy | None, masks: Path
) -> Iterator[int]:
    """Track a video and write its masks; the folder appears complete or not at all."""
    first, annotated = video.first_frames(), set(video.annotated)
    if not first:
        raise ValueError(
            f"No object of {video.name} shows on its annotated frames. 0 is background and "
            "255 is void."
        )
    partial = masks.with_name(f"{masks.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    writer = _Writer(video, partial)
    starts, last = sorted(set(first.values())), max(annotated)
    with predictor.init_state(list(video.images), memory_policy=policy) as state:
        for frame_idx in range(starts[0]):
            if frame_idx in annotated:
                writer.write(frame_idx, [], torch.zeros(0, 1, *state.source.frame_size))
            yield frame_idx
        for start, after in pairwise([*starts, last + 1]):
            truth, _ = video.masks(start)
            for obj_id, begins in first.items():
                if begins == start:
                    _check_size(video, truth[obj_id].shape, state.source.frame_size)
                    predictor.add_new_mask(state, start, obj_id, truth[obj_id])
            steps = predictor.propagate_in_video(
                state, start, max_frame_num_to_track=after - 1 - start, progress_bar=False
            )
            with closing(steps):
                for frame_idx, obj_ids, mask_logits in steps:
                    if frame_idx in annotated:
                        writer.write(frame_idx, obj_ids, mask_logits)
                    yield frame_idx
    yield from range(last + 1, len(video.images))
    os.replace(partial, masks)


def _check_size(video: DavisVideo, truth: tuple[int, ...], frame_size: tuple[int, int]) -> None:
    if truth != frame_size:
        raise ValueError(
            f"Masks of {video.name} have {truth[1]}x{truth[0]} pixels, its frames "
            f"{frame_size[1]}x{frame_size[0]}; give the annotations of this resolution."
        )


class _Writer:
    """Writes masks in the form of the truth."""

    def __init__(self, video: DavisVideo, folder: Path):
        self.video = video
        self.folder = folder
        self._palette: list[int] | None = None
        if video.is_per_object:
            for obj_id in video.annotations:
                (folder / obj_id).mkdir()
        else:
            with Image.open(video.annotations[""][video.annotated[0]]) as image:
                palette = image.getpalette() if image.mode == "P" else None
            if palette is not None:  # with fewer colours Pillow writes fewer bits per pixel
                self._palette = palette + [0] * (3 * 256 - len(palette))

    def write(self, frame_idx: int, obj_ids: Sequence[Any], mask_logits: torch.Tensor) -> None:
        logits = mask_logits[:, 0]
        if not self.video.is_per_object:
            self._save(_labels(obj_ids, logits), mask_path(self.video, self.folder, "", frame_idx))
            return
        known = dict(zip(obj_ids, logits > 0, strict=True))
        empty = torch.zeros(logits.shape[-2:], dtype=torch.bool)
        for obj_id, files in self.video.annotations.items():
            if frame_idx in files:
                path = mask_path(self.video, self.folder, obj_id, frame_idx)
                self._save(known.get(obj_id, empty).cpu().numpy(), path)

    def _save(self, pixels: Any, path: Path) -> None:
        image = Image.fromarray(pixels)
        if self._palette is not None:
            image.putpalette(self._palette)
        image.save(path)


def _labels(obj_ids: Sequence[Any], logits: torch.Tensor) -> Any:
    """The object of each pixel: the one with the highest logit."""
    if not len(obj_ids):
        return np.zeros(logits.shape[-2:], np.uint8)
    best = logits.max(dim=0)
    numbers = torch.tensor([int(obj_id) for obj_id in obj_ids], device=logits.device)
    labels = torch.where(best.values > 0, numbers[best.indices], 0)
    return labels.to(torch.uint8).cpu().numpy()
