"""Training clips: a few frames of generated videos, in batches."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from longsam.testing import SyntheticVideo

FIRST_TRAINING_SEED = 1_000_000  # evaluation uses lower seeds
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]  # upstream's normalization
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True)
class Batch:
    """Clips and what is asked about them; objects = clips * objects_per_clip.

    Args:
        images: normalized, num_frames x clips x 3 x size x size.
        masks: bool, num_frames x objects x size x size; on frame 0 none is empty.
        labels: which object is visible where, -1 for none: int8, num_frames x clips x size x size.
        clip_of_object: (objects,).
        indices: the frame indices that the model is told, (num_frames,).
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    clip_of_object: Tensor
    indices: list[int]
    reverse: bool


def make_batch(
    rng: np.random.Generator,
    *,
    clips: int,
    objects_per_clip: int,
    num_frames: int,
    size: int,
    hard: float,
) -> Batch:
    """Draw a batch.

    Args:
        hard: the share of hard clips.
    """
    # A third of the batches jump after the prompt, as if that many frames had passed.
    gap = int(rng.integers(1, 6000)) if rng.random() < 0.35 else 0
    images, labels, chosen = [], [], []
    for _ in range(clips):
        frames, clip_labels, objects = _make_clip(
            rng, objects_per_clip, num_frames, size, rng.random() < hard, gap > 0
        )
        images.append(frames)
        labels.append(clip_labels)
        chosen.append(objects)
    pixels = torch.from_numpy(np.stack(images, 1)).permute(0, 1, 4, 2, 3).float() / 255
    label_maps = torch.from_numpy(np.stack(labels, 1))
    clip_of_object = torch.arange(clips).repeat_interleave(objects_per_clip)
    objects = torch.from_numpy(np.concatenate(chosen))
    masks = label_maps[:, clip_of_object] == objects[None, :, None, None]
    indices = [0, *range(1 + gap, num_frames + gap)]
    reverse = bool(rng.random() < 0.15)
    if reverse:
        indices = [10_000 - i for i in indices]
    return Batch((pixels - MEAN) / STD, masks, label_maps, clip_of_object, indices, reverse)


def _make_clip(
    rng: np.random.Generator, num_chosen: int, num_frames: int, size: int, hard: bool, gap: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Returns frames, label maps and which objects are prompted on the first frame."""
    seed = FIRST_TRAINING_SEED + int(rng.integers(2**40))
    frame_size = (size, size)
    if rng.random() < 0.4:  # squeezed into a square by the predictor, as any video is
        long = 1 + 0.8 * rng.random()
        short_side = int(size / long**0.5)
        frame_size = (short_side, int(short_side * long))
    video = SyntheticVideo(seed, 10**6, frame_size, "hard" if hard else "easy")
    step = int(rng.integers(1, 4))
    least = 0.004 * frame_size[0] * frame_size[1]
    while True:
        first = int(rng.integers(10**6 - 5000))
        prompted = np.flatnonzero(video.masks(first).sum(axis=(1, 2)) > least)
        if len(prompted):
            break
    rng.shuffle(prompted)
    chosen = np.resize(prompted, num_chosen).astype(np.int8)
    start = first + step
    if gap:
        start = first + int(rng.integers(1, 3000))
    if num_frames > 1 and rng.random() < 0.4:  # follow the object to where it is hidden
        for i in range(start, start + 600, 12):
            if not video.visible(i)[chosen[0]]:
                start = i - step * int(rng.integers(0, num_frames - 1))
                break
    indices = [first] + [max(first + 1, start + step * i) for i in range(num_frames - 1)]
    frames, labels = [], []
    quality = int(rng.integers(30, 95)) if rng.random() < 0.5 else None
    for i in indices:
        image = Image.fromarray(video.frame(i))
        numbers = np.arange(video.num_objects, dtype=np.int8)[:, None, None] + 1
        label = Image.fromarray((video.masks(i) * numbers).sum(axis=0).astype(np.uint8))
        if frame_size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
            label = label.resize((size, size), Image.Resampling.NEAREST)
        if quality is not None:  # artefacts of lossy coding
            data = io.BytesIO()
            image.save(data, "JPEG", quality=quality)
            image = Image.open(data)
        frames.append(np.asarray(image))
        labels.append(np.asarray(label).astype(np.int8) - 1)
    return np.stack(frames), np.stack(labels), chosen
