"""Training clips: a few frames of generated videos, in batches, and long ones bit by bit."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from longsam.testing import SyntheticVideo

FIRST_TRAINING_SEED = 1_000_000  # evaluation uses seeds below
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]  # upstream's normalization
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True)
class Batch:
    """Clips and what is asked about them; objects = clips * objects_per_clip.

    Args:
        images: normalized, num_frames x clips x 3 x size x size.
        masks: bool, num_frames x objects x size x size; on frame 0 none is empty.
        labels: which object shows where, -1 for none: int8, num_frames x clips x size x size.
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
    indices = [0, *range(1 + gap, num_frames + gap)]
    reverse = bool(rng.random() < 0.15)
    if reverse:
        indices = [10_000 - i for i in indices]
    return _batch(np.stack(images, 1), np.stack(labels, 1), chosen, indices, reverse)


def _batch(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int8],
    chosen: list[npt.NDArray[np.int8]],
    indices: list[int],
    reverse: bool,
) -> Batch:
    """From frames and label maps, each num_frames x clips x ..., and each clip's objects."""
    pixels = torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255
    label_maps = torch.from_numpy(labels)
    clip_of_object = torch.arange(len(chosen)).repeat_interleave(len(chosen[0]))
    objects = torch.from_numpy(np.concatenate(chosen))
    masks = label_maps[:, clip_of_object] == objects[None, :, None, None]
    return Batch((pixels - MEAN) / STD, masks, label_maps, clip_of_object, indices, reverse)


class Rollout:
    """Long clips that the model tracks by itself, a few frames at a time.

    Every batch is the prompted frame and the next few frames; what the model made of the frames
    before them it finds in `memory`, so that it learns what to do behind its own mistakes. An
    object is lost when it has been another thing for longer than memory reaches; no loss is taken
    of it then, as nothing but luck brings it back.

    Args:
        seed: Everything is drawn from it.
        hard: the share of hard clips.
    """

    def __init__(
        self, seed: Sequence[int], *, clips: int, objects_per_clip: int, size: int, hard: float
    ):
        rng = np.random.default_rng(seed)
        self.seed = list(seed)
        self.position = 0  # frames after the prompt so far
        self.length = int(np.clip(rng.geometric(1 / 60), 8, 200))
        self.memory: dict[int, dict[str, Any]] = {}
        """By frame index, what upstream's output_dict holds of the last frames."""
        self.frames_wrong = torch.zeros(clips * objects_per_clip, dtype=torch.long)
        """For how many frames on end each object has been another thing."""
        self._gap = int(rng.integers(1, 6000)) if rng.random() < 0.5 else 0
        self._clips = [
            _LongClip(rng, objects_per_clip, size, rng.random() < hard, self._gap > 0)
            for _ in range(clips)
        ]

    @property
    def over(self) -> bool:
        return self.position >= self.length or bool(self.not_lost.float().mean() < 0.5)

    @property
    def not_lost(self) -> Tensor:
        return self.frames_wrong <= 8

    def note(self, masks: Tensor, truth: Tensor) -> None:
        """Take note of which objects are right on a frame; masks are objects x height x width."""
        both, size = (masks & truth).sum((1, 2)), masks.sum((1, 2))
        is_wrong = (size > 0) & (both < 0.2 * (size + truth.sum((1, 2)) - both))
        wrong = self.frames_wrong.to(masks.device)
        self.frames_wrong = torch.where(is_wrong, wrong + 1, 0)

    def next(self, num_frames: int) -> Batch:
        """The prompted frame and the next `num_frames - 1`."""
        times = range(self.position, self.position + num_frames - 1)
        self.position += num_frames - 1
        drawn = [
            [clip.look(clip.first), *(clip.look(clip.start + clip.step * t) for t in times)]
            for clip in self._clips
        ]
        frames = np.stack([[frame for frame, _ in clip] for clip in drawn], 1)
        labels = np.stack([[label for _, label in clip] for clip in drawn], 1)
        indices = [0, *(1 + self._gap + t for t in times)]
        return _batch(frames, labels, [clip.chosen for clip in self._clips], indices, False)

    def remember(self, outputs: dict[int, dict[str, Any]], *, most: int = 16) -> None:
        """Keep the last outputs, without their history."""
        for index, out in outputs.items():
            self.memory[index] = {
                "maskmem_features": out["maskmem_features"].detach(),
                "maskmem_pos_enc": [p.detach() for p in out["maskmem_pos_enc"]],
                "obj_ptr": out["obj_ptr"].detach(),
            }
        for index in sorted(self.memory)[:-most]:
            del self.memory[index]


class _LongClip:
    """A video, the frame on which it is prompted, and where it goes on from there."""

    def __init__(self, rng: np.random.Generator, num_chosen: int, size: int, hard: bool, gap: bool):
        self._size = size
        self.video = _video(rng, size, hard)
        self._quality = _quality(rng)
        self.step = 1 if rng.random() < 0.6 else 2
        wanted: Sequence[int] = ()
        if self.video.lookalikes and num_chosen > 1 and rng.random() < 0.7:
            wanted = rng.permutation(self.video.lookalikes[0])
        self.first, self.chosen = _prompted(rng, self.video, num_chosen, wanted)
        self.start = self.first + self.step
        if gap:
            self.start = self.first + int(rng.integers(1, 3000))
        follows = rng.random() < 0.7  # an object to where it is hidden
        hidden = _hidden(self.video, int(self.chosen[0]), self.start) if follows else None
        if hidden is not None:
            before = hidden - self.step * int(rng.integers(5, 30))
            if gap:
                self.start = max(self.start, before)
            elif before > self.first and self.video.visible(before)[self.chosen].all():
                self.first, self.start = before, before + self.step

    def look(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
        return _look(self.video, index, self._size, self._quality)


def _make_clip(
    rng: np.random.Generator, num_chosen: int, num_frames: int, size: int, hard: bool, gap: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Returns frames, label maps and which objects are prompted on the first frame."""
    video = _video(rng, size, hard)
    step = int(rng.integers(1, 4))
    first, chosen = _prompted(rng, video, num_chosen)
    start = first + step
    if gap:
        start = first + int(rng.integers(1, 3000))
    if num_frames > 1 and rng.random() < 0.4:  # follow the object to where it is hidden
        hidden = _hidden(video, int(chosen[0]), start)
        if hidden is not None:
            start = hidden - step * int(rng.integers(0, num_frames - 1))
    indices = [first] + [max(first + 1, start + step * i) for i in range(num_frames - 1)]
    quality = _quality(rng)
    frames, labels = zip(*(_look(video, i, size, quality) for i in indices), strict=True)
    return np.stack(frames), np.stack(labels), chosen


def _video(rng: np.random.Generator, size: int, hard: bool) -> SyntheticVideo:
    seed = FIRST_TRAINING_SEED + int(rng.integers(2**40))
    frame_size = (size, size)
    if rng.random() < 0.4:  # squeezed into a square by the predictor, as any video is
        long = 1 + 0.8 * rng.random()
        short_side = int(size / long**0.5)
        frame_size = (short_side, int(short_side * long))
    return SyntheticVideo(seed, 10**6, frame_size, "hard" if hard else "easy")


def _quality(rng: np.random.Generator) -> int | None:
    """JPEG's, or None for no compression."""
    return int(rng.integers(30, 95)) if rng.random() < 0.5 else None


def _prompted(
    rng: np.random.Generator, video: SyntheticVideo, num_chosen: int, wanted: Sequence[int] = ()
) -> tuple[int, npt.NDArray[np.int8]]:
    """A frame, and objects that show on it, those wanted before others."""
    least = 0.004 * video.frame_size[0] * video.frame_size[1]
    while True:
        first = int(rng.integers(10**6 - 5000))
        prompted = np.flatnonzero(video.masks(first).sum(axis=(1, 2)) > least)
        if len(prompted) and np.isin(wanted, prompted).all():
            break
    rng.shuffle(prompted)
    prompted = np.array([*wanted, *np.setdiff1d(prompted, wanted, assume_unique=True)])
    return first, np.resize(prompted, num_chosen).astype(np.int8)


def _hidden(video: SyntheticVideo, chosen: int, start: int) -> int | None:
    """The next frame (of every twelfth) on which an object does not show."""
    for i in range(start, start + 600, 12):
        if not video.visible(i)[chosen]:
            return i
    return None


def _look(
    video: SyntheticVideo, index: int, size: int, quality: int | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
    """A frame and its label map, squeezed into a square."""
    image = Image.fromarray(video.frame(index))
    numbers = np.arange(video.num_objects, dtype=np.int8)[:, None, None] + 1
    label = Image.fromarray((video.masks(index) * numbers).sum(axis=0).astype(np.uint8))
    if video.frame_size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        label = label.resize((size, size), Image.Resampling.NEAREST)
    if quality is not None:  # the marks that lossy coding leaves
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        image = Image.open(data)
    return np.asarray(image), np.asarray(label).astype(np.int8) - 1
