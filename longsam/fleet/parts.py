"""One video on several workers: objects are split among trackers, and frames among encoders."""

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longsam import LongVideoPredictor
from longsam.fleet.engine import Worker, import_ray
from longsam.fleet.features import Encoder, Features, pack, unpack
from longsam.fleet.jobs import Job, Settings
from longsam.fleet.precision import computing_in, dtype_on
from longsam.fleet.video import (
    MASKS,
    Progress,
    autosave_of,
    locked,
    opened,
    remove_of_another_job,
)
from longsam.frames import EndOfVideoError
from longsam.masks import MaskFolder, MaskWriter


class PartWorker(Worker):
    """A worker that tracks some objects of a video, or encodes frames for those that do."""

    def encode(self, desk: Any, job: Job, settings: Settings) -> None:
        """Encode frames until none are left."""
        torch.set_num_threads(self._num_threads)
        predictor, ray = self._predictor, import_ray()
        dtype = dtype_on(settings.dtype, predictor.device)
        with computing_in(dtype, predictor.device), Encoder(predictor, job.video) as own:
            while (frame_idx := ray.get(desk.work.remote())) is not None:
                _encode_for_all(desk, own, frame_idx)

    def track_part(
        self,
        desk: Any,
        part: Job,
        number: int,
        start: int,
        settings: Settings,
        folder: Path,
    ) -> dict[str, Any]:
        """Track the objects of a part, and encode while there are no features to track on.

        Args:
            desk: The desk of this video.
            part: The video with the prompts of these objects.
            number: The tracker's.
            start: The first frame of the pass.
            settings: How it is tracked.
            folder: Where its masks and its save go.
        """
        torch.set_num_threads(self._num_threads)
        began = clock.perf_counter()
        self._progress = progress = Progress(f"{part.name}/{number}")
        predictor = self._predictor
        if predictor.non_overlap_masks:
            raise ValueError(
                "this model has non_overlap_masks, with which masks of objects depend on each "
                "other: track the video in one worker."
            )
        dtype = dtype_on(settings.dtype, predictor.device)
        with locked(folder), computing_in(dtype, predictor.device):
            remove_of_another_job(folder, settings.digest(part))
            state, writer, is_resumed = opened(predictor, part, settings, folder)
            with state, writer, Encoder(predictor, part.video) as own:
                num_frames = state.source.num_frames
                next_idx = state.last_frame_idx + 1 if is_resumed else start
                progress.num_done = progress.num_saved = next_idx - start
                progress.num_frames = num_frames - start
                autosave = autosave_of(settings, folder, writer, progress)
                steps = (
                    predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
                    if is_resumed
                    else predictor.propagate_in_video(
                        state, start, autosave=autosave, progress_bar=False
                    )
                )
                source = _Source(desk, number, own, predictor)
                for frame_idx, given, time in source.frames(next_idx, num_frames):
                    state.put_image_features(frame_idx, given)
                    step = next(steps)
                    assert step[0] == frame_idx
                    writer.write(*step, scores=predictor.scores(state, frame_idx), time=time)
                    progress.num_done += 1
                writer.flush()
                if progress.num_done > progress.num_saved:
                    predictor.save_state(state, Path(autosave.path))
                steps.close()
        return {
            "frames": progress.num_done,
            "resumed_at": next_idx if is_resumed else None,
            "device": str(predictor.device),
            "dtype": dtype,
            "threads": torch.get_num_threads(),
            "tracked_seconds": round(clock.perf_counter() - began, 3),
        }


class _Source:
    """Features, frame after frame, for one tracker."""

    def __init__(self, desk: Any, number: int, own: Encoder, predictor: LongVideoPredictor):
        self._desk, self._number, self._own = desk, number, own
        self._predictor = predictor

    def frames(self, first: int, stop: int) -> Iterator[tuple[int, Features, float | None]]:
        """Yield (frame, its features, its time stamp), in order."""
        ray, desk = import_ray(), self._desk
        ray.get(desk.join.remote(self._number, min(first + 1, stop), stop))
        if first >= stop:
            return
        try:  # from a frame encoded here; other frames come without them
            mine = self._own.encode(first)
        except EndOfVideoError:
            ray.get(desk.ended.remote(first))
            return
        encodings = mine[0]["vision_pos_enc"]
        yield first, *mine
        device = self._predictor.device
        for frame_idx in range(first + 1, stop):
            packed = None
            while packed is None:
                packed, work = ray.get(desk.features_or_work.remote(self._number, frame_idx))
                if packed is None and work is None:
                    ray.get(desk.features_or_work.remote(self._number, stop))
                    return
                if work is not None:
                    _encode_for_all(desk, self._own, work)
            reference, time = packed
            yield frame_idx, unpack(ray.get(reference), encodings, device), time
        ray.get(desk.features_or_work.remote(self._number, stop))  # it needs no more frames


def _encode_for_all(desk: Any, own: Encoder, frame_idx: int) -> None:
    ray = import_ray()
    try:
        features, time = own.encode(frame_idx)
    except EndOfVideoError:
        ray.get(desk.ended.remote(frame_idx))
        return
    ray.get(desk.put.remote(frame_idx, [ray.put(pack(features)), time]))


def parts_of(job: Job, count: int) -> list[Job]:
    """The objects of a job, split among at most this many trackers."""
    objects = list(dict.fromkeys(prompt["object"] for prompt in job.prompts))
    count = min(count, len(objects))
    return [
        replace(job, prompts=tuple(p for p in job.prompts if p["object"] in objects[i::count]))
        for i in range(count)
    ]


def merge(parts: Sequence[Path], job: Job, settings: Settings, out: Path) -> None:
    """Merge the masks of all parts into those of one run.

    Args:
        parts: The folder of each part.
        job: The whole job.
        settings: Its formats are those of the merged masks.
        out: The folder to write.
    """
    order = list(dict.fromkeys(prompt["object"] for prompt in job.prompts))
    folders = [MaskFolder(part / MASKS, "rle") for part in parts]
    video = job.video if "overlay" in settings.formats else None
    with MaskWriter(out, settings.formats, video=video) as writer:
        for lines in zip(*(folder.lines() for folder in folders), strict=True):
            frame_idx = lines[0].frame_idx
            read = [folder.read(frame_idx) for folder in folders]
            ids = list(chain.from_iterable(frame.obj_ids for frame in read))
            masks = np.concatenate([frame.masks for frame in read])
            scores: dict[Any, tuple[float | None, float | None]] = {}
            for line in lines:
                for obj_id, score, iou in zip(line.obj_ids, line.scores, line.ious, strict=True):
                    scores[obj_id] = score, iou
            rows = [ids.index(obj_id) for obj_id in order]
            writer.write(
                frame_idx,
                order,
                torch.from_numpy(masks[rows]),
                scores=scores,
                time=lines[0].time,
            )
