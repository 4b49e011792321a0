"""Many videos, each in one worker: assigning videos to workers, and replacing dead workers."""

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longsam.fleet.engine import (
    Cluster,
    ModelError,
    OnProgress,
    WorkerDiedError,
    WorkerError,
    Workers,
)
from longsam.fleet.jobs import Job, Load, Settings, check_names, num_frames_by_header
from longsam.fleet.store import Store
from longsam.fleet.video import Progress

MAX_STARTS = 3
"""At most this many workers in a row may die while loading the model."""


@dataclass(frozen=True)
class Row:
    """The result of one video.

    Args:
        name: The job's name.
        video: Its path.
        status: "done"; "was done" by an earlier run; "failed" with an error; or "skipped" because
            its workers died.
        frames: How many frames have masks.
        resumed_at: The frame after the save it was resumed from; None if it was tracked in one go.
        seconds: From the start of the last attempt to the end of the upload; for videos tracked
            together, from the start of the first attempt, including the start of workers.
        deaths: How many workers died with it in this run.
        error: What went wrong.
        device: The device it was tracked on.
        dtype: The number format.
        threads: The number of threads.
        tracked_seconds: The part of `seconds` from opening the video to its last mask, by the last
            worker.
    """

    name: str
    video: str
    status: str
    frames: int = 0
    resumed_at: int | None = None
    seconds: float = 0.0
    deaths: int = 0
    error: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    tracked_seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether its masks are complete."""
        return self.status in ("done", "was done")


def track_videos(
    jobs: Iterable[Job],
    load: Load,
    out: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    workers: Workers | None = None,
    scratch: str | os.PathLike[str] | None = None,
    max_deaths: int = 3,
    on_progress: OnProgress | None = None,
) -> list[Row]:
    """Track videos on the workers of a Ray cluster, longest first.

    Each worker is a process that builds the model once and tracks one video after another. If a
    worker dies, another resumes its video from the last save, with the masks it would have had.
    Workers end with this process; the same call again continues where they stopped.

    Args:
        jobs: The videos.
        load: Builds the predictor of a worker, for instance
            `functools.partial(build_long_video_predictor, config, checkpoint, device="cuda")`.
        out: A folder or an fsspec URL. The masks of a job are in `out/NAME` once they are complete,
            with a file `fleet.json` that says so.
        settings: How each is tracked.
        workers: How many workers, and the resources of each.
        scratch: The folder in which videos are tracked and saved. If a node is lost, its video is
            resumed if other nodes see this folder, and otherwise starts again. None is
            `out/unfinished`, or a folder in the user's cache if `out` is a URL.
        max_deaths: A video is skipped when this many workers have died with it in a row without a
            new save in between.
        on_progress: Called about once a second with each video's progress, by name.

    Returns:
        A row for each job, in their order.

    Raises:
        ValueError: Two jobs have the same name, `out` holds other masks under one, or the cluster
            has no room for a worker.
        RuntimeError: The model cannot be built.
        ImportError: Ray or fsspec is not installed.
    """
    jobs, settings, workers = list(jobs), settings or Settings(), workers or Workers()
    check_names(jobs)
    if max_deaths < 1:
        raise ValueError(f"max_deaths is {max_deaths}; it must be 1 or more.")
    store = Store(out)
    where = store.scratch() if scratch is None else Path(scratch).absolute()
    rows = finished_rows(store, jobs, settings)
    left = [job for job in jobs if job.name not in rows]
    if left:
        with Cluster(workers) as cluster:
            fleet = _Fleet(cluster, load, settings, store, where, max_deaths)
            fleet.known = {
                row.name: Progress(row.name, row.frames, row.frames) for row in rows.values()
            }
            rows.update(fleet.run(left, on_progress))
    return [rows[job.name] for job in jobs]


def finished_rows(store: Store, jobs: Iterable[Job], settings: Settings) -> dict[str, Row]:
    """The rows of jobs whose masks an earlier run made."""
    finished = store.all_finished({job.name: settings.digest(job) for job in jobs})
    return {name: row_of({**row, "status": "was done"}) for name, row in finished.items()}


class _Fleet:
    """The waiting videos, and the workers."""

    def __init__(
        self,
        cluster: Cluster,
        load: Load,
        settings: Settings,
        store: Store,
        scratch: Path,
        max_deaths: int,
    ):
        self._cluster, self._load, self._settings = cluster, load, settings
        self._store, self._scratch, self._max_deaths = store, scratch, max_deaths
        self._queue: deque[Job] = deque()
        self._starting: dict[Any, Any] = {}  # each worker's answer once it has the model
        self._busy: dict[Any, tuple[Any, Job]] = {}  # the row it will return
        self._num_failed_starts = 0
        self._deaths: dict[str, list[int]] = {}  # for each job, what was saved at each death
        self.known: dict[str, Progress] = {}
        self._rows: dict[str, Row] = {}

    def run(self, jobs: list[Job], on_progress: OnProgress | None) -> dict[str, Row]:
        """Track all videos; returns a row for each, by name."""
        ray = self._cluster.ray
        for job in jobs:
            self.known[job.name] = Progress(job.name, 0, num_frames_by_header(job.video))
        self._queue.extend(
            sorted(jobs, key=lambda job: self.known[job.name].num_frames, reverse=True)
        )
        count = self._cluster.count(len(jobs))
        while self._queue or self._busy:
            while self._queue and len(self._starting) < min(
                count - len(self._busy), len(self._queue)
            ):
                self._start()
            ended, _ = ray.wait([*self._starting, *self._busy], timeout=1.0)
            for reference in ended:
                if reference in self._starting:
                    self._started(reference)
                else:
                    self._ended(reference)
            self.known.update(self._cluster.watch([actor for actor, _ in self._busy.values()]))
            if on_progress is not None:
                on_progress(dict(self.known))
        for actor in self._starting.values():
            ray.kill(actor)
        return self._rows

    def _start(self) -> None:
        actor = self._cluster.start()
        self._starting[self._cluster.load(actor, self._load)] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._cluster.result(reference)
        except WorkerError as error:
            raise ModelError(error) from error.__cause__
        except WorkerDiedError as error:
            self._num_failed_starts += 1
            if self._num_failed_starts >= MAX_STARTS:
                raise ModelError(f"{MAX_STARTS} died of it; the last: {error}") from error
            return
        self._num_failed_starts = 0
        self._give(actor)

    def _give(self, actor: Any) -> None:
        """The next video, or the end."""
        if not self._queue:
            self._cluster.ray.kill(actor)
            return
        job = self._queue.popleft()
        reference = actor.track.remote(job, self._settings, self._store.url, self._scratch)
        self._busy[reference] = actor, job

    def _ended(self, reference: Any) -> None:
        actor, job = self._busy.pop(reference)
        num_deaths = len(self._deaths.get(job.name, []))
        try:
            row = self._cluster.result(reference)
        except WorkerError as error:
            self._rows[job.name] = Row(
                job.name, job.video, "failed", deaths=num_deaths, error=str(error)
            )
        except WorkerDiedError as error:
            self._died(job, error)
            self._cluster.ray.kill(actor)  # it may only be unreachable
            return
        else:
            self._rows[job.name] = row_of({**row, "deaths": num_deaths})
            self.known[job.name] = Progress(job.name, row["frames"], row["frames"])
        self._give(actor)

    def _died(self, job: Job, error: WorkerDiedError) -> None:
        saved = self._deaths.setdefault(job.name, [])
        saved.append(self.known[job.name].num_saved)
        if len(saved) >= self._max_deaths and len(set(saved[-self._max_deaths :])) == 1:
            self._rows[job.name] = Row(
                job.name,
                job.video,
                "skipped",
                deaths=len(saved),
                error=f"{self._max_deaths} workers died with it; the last: {error}",
            )
            return
        self._queue.appendleft(job)


def row_of(told: dict[str, Any]) -> Row:
    """A row of a worker, or of a file that a later version may have written."""
    return Row(**{name: told[name] for name in Row.__dataclass_fields__ if name in told})
