"""Videos one after another, each by all workers together: encode once, track anywhere."""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from longsam.fleet.desk import Desk
from longsam.fleet.engine import (
    Cluster,
    ModelError,
    OnProgress,
    WorkerDiedError,
    WorkerError,
    Workers,
)
from longsam.fleet.jobs import Job, Load, Settings
from longsam.fleet.parts import PartWorker, merge, parts_of
from longsam.fleet.run import Row, Work
from longsam.fleet.video import MASKS, Progress, clear, locked


def track_together(
    jobs: Iterable[Job],
    load: Load,
    out: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    workers: Workers | None = None,
    scratch: str | os.PathLike[str] | None = None,
    max_deaths: int = 3,
    num_ahead: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[Row]:
    """Track each video on all workers of a Ray cluster at once.

    Each frame is encoded once, by a free worker; the objects are split among at most as many
    workers as there are objects, which track on the features and encode while they wait for more.
    Masks are those of one process with the same devices and number of threads, bit for bit. If a
    worker dies, all are replaced, and the video is resumed from its saves.

    With at least as many videos as workers use `track_videos`, which wastes nothing. For few videos
    with few objects this is faster: with one object up to (encoder + rest) / rest times, from the
    parts of a frame's time.

    Args:
        jobs: The videos.
        load: As in `track_videos`.
        out: As there.
        settings: As there; not `batch_objects`, and not the format "png" if objects are split.
        workers: As there.
        scratch: As there; this process and all workers must see it.
        max_deaths: As there.
        num_ahead: At most this many frames are encoded ahead, 16 MiB each with the released models
            at 1024 x 1024 in float32, half of it in bfloat16. None is 2 for each worker, plus 2.
        on_progress: As there.

    Returns:
        A row for each job, in their order.

    Raises:
        ValueError: As `track_videos`, or a setting is one of those above, or `num_ahead` is below
            1.
        RuntimeError: The model cannot be built.
        ImportError: Ray or fsspec is not installed.
    """
    if num_ahead is not None and num_ahead < 1:
        raise ValueError(f"num_ahead is {num_ahead}; it must be 1 or more.")
    if settings is not None and settings.batch_objects:
        raise ValueError("batch_objects: objects are split among workers; leave it out.")
    work = Work(jobs, settings, out, scratch, max_deaths)
    if work.left:
        with Cluster(workers or Workers()) as cluster:
            team = _Team(cluster, load, work, num_ahead)
            for job in work.left:
                team.track(job, on_progress)
            team.end()
    return work.result()


class _Team:
    """All workers, which share one video at a time."""

    def __init__(self, cluster: Cluster, load: Load, work: Work, num_ahead: int | None):
        self._cluster, self._load, self._work = cluster, load, work
        self._settings = work.settings
        self._count = cluster.count(10**6)
        self._num_ahead = 2 * self._count + 2 if num_ahead is None else num_ahead
        self._actors: list[Any] = []

    def track(self, job: Job, on_progress: OnProgress | None) -> None:
        """One video; any error is in its row."""
        began, work = time.perf_counter(), self._work
        try:
            with locked(work.scratch / job.name) as folder:
                parts = parts_of(job, self._count)
                if len(parts) > 1 and "png" in self._settings.formats:
                    raise ValueError(
                        'the format "png" needs the logits of all objects in one worker; use '
                        '"object_png" or "rle".'
                    )
                while True:
                    try:
                        told = self._attempt(job, parts, folder, on_progress)
                        break
                    except WorkerDiedError as error:
                        self.end()
                        if work.note_death(job, error):
                            return
                row = {"name": job.name, "video": job.video, "status": "done", **told}
                masks = self._merged(job, parts, folder)
                row["seconds"] = round(time.perf_counter() - began, 3)
                work.store.upload(masks, job.name, self._settings.digest(job), row)
                clear(folder)
                work.finish(job, row)
        except ModelError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            self.end()  # the others wait for features that will not come
            work.fail(job, error)

    def end(self) -> None:
        """End all workers; the next video starts new ones."""
        for actor in self._actors:
            self._cluster.ray.kill(actor)
        self._actors = []

    def _attempt(
        self, job: Job, parts: list[Job], folder: Path, on_progress: OnProgress | None
    ) -> dict[str, Any]:
        """Track until the end, or until a worker dies; returns the row's content."""
        ray = self._cluster.ray
        self._start()
        desk = ray.remote(num_cpus=0)(Desk).remote(len(parts), self._num_ahead)
        start = min(prompt["frame"] for prompt in job.prompts)
        settings, trackers = self._part_settings(parts), self._actors[: len(parts)]
        tracking = [
            actor.track_part.remote(desk, part, i, start, settings, folder / f"part_{i}")
            for i, (actor, part) in enumerate(zip(trackers, parts, strict=True))
        ]
        encoders = self._actors[len(parts) :]
        running = [*tracking, *(actor.encode.remote(desk, job, settings) for actor in encoders)]
        while running:
            ended, running = ray.wait(running, timeout=1.0)
            for reference in ended:
                self._cluster.result(reference)
            seen = list(self._cluster.watch(trackers).values())
            if len(seen) == len(trackers):
                self._work.known[job.name] = Progress(
                    job.name,
                    min(each.num_done for each in seen),
                    seen[0].num_frames,
                    min(each.num_saved for each in seen),
                )
            if on_progress is not None:
                on_progress(dict(self._work.known))
        ray.kill(desk)
        rows = [self._cluster.result(reference) for reference in tracking]
        resumed = [row["resumed_at"] for row in rows if row["resumed_at"] is not None]
        tracked = max(row["tracked_seconds"] for row in rows)
        return {**rows[0], "resumed_at": min(resumed, default=None), "tracked_seconds": tracked}

    def _start(self) -> None:
        """Start the workers, unless they run since the previous video."""
        if self._actors:
            return
        self._actors = [self._cluster.start(PartWorker) for _ in range(self._count)]
        for reference in [self._cluster.load(actor, self._load) for actor in self._actors]:
            try:
                self._cluster.result(reference)
            except WorkerError as error:
                raise ModelError(error) from error.__cause__

    def _part_settings(self, parts: list[Job]) -> Settings:
        if len(parts) == 1:
            return self._settings
        return replace(self._settings, formats=("rle",))

    def _merged(self, job: Job, parts: list[Job], folder: Path) -> Path:
        if len(parts) == 1:
            return folder / "part_0" / MASKS
        merged = folder / "merged"
        shutil.rmtree(merged, ignore_errors=True)
        merge([folder / f"part_{i}" for i in range(len(parts))], job, self._settings, merged)
        return merged
