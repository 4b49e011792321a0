"""J&F of a predictor on real videos with known masks, for each memory policy."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from longsam import LongVideoPredictor
from longsam.policies import MemoryPolicy, named
from longsam.testing.davis import DavisVideo, davis_videos, mask_path, read_png
from longsam.testing.davis_tracking import track
from longsam.testing.results import MASKS, ObjectScore, Results, about
from longsam.testing.scores import boundary_f, iou

Memory = Mapping[str, MemoryPolicy | str | None] | Sequence[str]


def evaluate(
    predictor: LongVideoPredictor,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    memory: Memory = ("none",),
    videos: Sequence[str] | None = None,
    images: str | None = None,
    annotations: str | None = None,
    progress: Callable[[str, str, int], None] | None = None,
) -> dict[str, list[ObjectScore]]:
    """Track the objects of real videos from their first mask, and compare with the truth.

    Each object is prompted with its mask on the first annotated frame that shows it; the pass ends
    with the last annotated frame. Masks are kept in `out/masks/MEMORY/VIDEO` in the form of the
    truth, one image per frame (where masks overlap, the higher logit wins) or one per object and
    frame, so that other evaluations can read them; `out/results.json` has the scores and the
    settings behind them. The same call again tracks only what is missing. One process at a time may
    write to `out`.

    Args:
        predictor: The model; call this within `torch.autocast` for bfloat16.
        folder: As `davis_videos` takes it.
        out: A folder, created if it does not exist.
        memory: Memory policies by name, as `init_state` takes them; "none" is upstream's rule.
            Given a sequence, each is its own name.
        videos: As `davis_videos` takes it.
        images: As `davis_videos` takes it.
        annotations: As `davis_videos` takes it.
        progress: Called as frames are done, with memory, video and how many; for a video tracked by
            an earlier call, once with all its frames.

    Returns:
        For each memory policy, the objects of all videos. DAVIS's means are over objects:
        `np.mean([one.j_and_f for one in scores["none"]])`.

    Raises:
        ValueError: `out` was made with another model, folder, number format or policy; a policy is
            unknown; a video has no object; or as `davis_videos` and `score_masks`.
        FileNotFoundError: As `davis_videos`.
    """
    policies = _named(memory)
    found = davis_videos(folder, videos, images=images, annotations=annotations)
    results = Results(Path(out), about(predictor, found))
    for name, policy in policies.items():
        results.check_policy(name, policy)
    scores: dict[str, list[ObjectScore]] = {}
    for name, policy in policies.items():
        scores[name] = []
        for video in found:
            known = results.known(name, video)
            masks = Path(out) / MASKS / name / video.name
            seconds = None
            if known is None and not masks.is_dir():
                began = time.perf_counter()
                for _ in track(predictor, video, policy, masks):
                    if progress is not None:
                        progress(name, video.name, 1)
                seconds = time.perf_counter() - began
            elif progress is not None:
                progress(name, video.name, len(video.images))
            if known is None:
                known = _scored(video, masks)
                results.add(name, policy, video, known, seconds)
            scores[name] += known
    return scores


def score_masks(video: DavisVideo, masks: str | os.PathLike[str]) -> list[ObjectScore]:
    """J and F of masks on disk, made by any tool.

    As DAVIS computes them: the first and the last annotated frame do not count, nor do void pixels.
    For an object that appears later, the frame of its prompt and those before it do not count;
    other evaluations count that frame, with a J near 1. An object without any frame that counts is
    left out.

    Args:
        video: The truth.
        masks: A folder of PNGs with the truth's names, all objects in one image or each in its own
            folder, like the truth.

    Raises:
        ValueError: A mask is missing, damaged, or of another size than the truth.
    """
    folder = Path(masks)
    found: dict[str, list[tuple[float, float]]] = {}
    first = video.first_frames()
    files = {obj_id: video.annotations[obj_id if video.is_per_object else ""] for obj_id in first}
    last = {obj_id: max(of_one) for obj_id, of_one in files.items()}
    for frame_idx in video.annotated:
        truths, void = video.masks(frame_idx)
        counted = [
            obj_id
            for obj_id, start in first.items()
            if start < frame_idx < last[obj_id] and frame_idx in files[obj_id]
        ]
        for obj_id in counted:
            path = mask_path(video, folder, obj_id, frame_idx)
            mask = read_png(path)
            mask = mask != 0 if video.is_per_object else mask == int(obj_id)
            truth = truths.get(obj_id)
            if truth is None:  # the image does not show it
                truth = np.zeros_like(mask if void is None else void)
            if mask.shape != truth.shape:
                raise ValueError(f"{path} is {mask.shape}, and the truth {truth.shape}.")
            pair = float(iou(mask, truth, void)), float(boundary_f(mask, truth, void))
            found.setdefault(obj_id, []).append(pair)
    return [
        ObjectScore(video.name, obj_id, len(pairs), *map(float, np.mean(pairs, axis=0)))
        for obj_id, pairs in sorted(found.items())
    ]


def _scored(video: DavisVideo, masks: Path) -> list[ObjectScore]:
    try:
        return score_masks(video, masks)
    except ValueError as error:
        raise ValueError(f"{error} Remove {masks} to track the video again.") from error


def _named(memory: Memory) -> dict[str, MemoryPolicy | None]:
    given = memory if isinstance(memory, Mapping) else {name: name for name in memory}
    if not given:
        raise ValueError('memory is empty; give at least "none".')
    for name in given:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(f"memory {name!r} names a folder; use letters, digits, _ . + or -.")
    return {name: named(None if one == "none" else one) for name, one in given.items()}
