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
    work = Work(jobs, settings, out, scratch, max_deaths)
    if work.left:
        with Cluster(workers or Workers()) as cluster:
            _Fleet(cluster, load, work).run(on_progress)
    return work.result()


class Work:
    """Which videos are done, and which are left.

    Args:
        jobs: The videos.
        settings: How each is tracked; None is `Settings()`.
        out: Where masks go.
        scratch: Where videos are tracked; None is the store's own.
        max_deaths: As in `track_videos`.

    Attributes:
        rows: Of the videos that are done or given up, by name.
        left: The videos that an earlier run has not done.
        known: The progress of each video, by name.

    Raises:
        ValueError: As `track_videos`.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        settings: Settings | None,
        out: str | os.PathLike[str],
        scratch: str | os.PathLike[str] | None,
        max_deaths: int,
    ):
        self._jobs, self.settings, self._max_deaths = list(jobs), settings or Settings(), max_deaths
        check_names(self._jobs)
        if max_deaths < 1:
            raise ValueError(f"max_deaths is {max_deaths}; it must be 1 or more.")
        self.store = Store(out)
        self.scratch = self.store.scratch() if scratch is None else Path(scratch).absolute()
        digests = {job.name: self.settings.digest(job) for job in self._jobs}
        self.rows: dict[str, Row] = {
            name: row_of({**row, "status": "was done"})
            for name, row in self.store.all_finished(digests).items()
        }
        self.left = [job for job in self._jobs if job.name not in self.rows]
        self.known = {
            row.name: Progress(row.name, row.frames, row.frames) for row in self.rows.values()
        }
        for job in self.left:
            self.known[job.name] = Progress(job.name, 0, num_frames_by_header(job.video))
        self._saved: dict[str, list[int]] = {job.name: [] for job in self.left}

    def num_deaths(self, job: Job) -> int:
        """How many workers died with a video."""
        return len(self._saved[job.name])

    def note_death(self, job: Job, error: WorkerDiedError) -> bool:
        """Note that a worker died with a video.

        Returns:
            Whether the video is given up: the last `max_deaths` workers added no save.
        """
        saved = self._saved[job.name]
        saved.append(self.known[job.name].num_saved)
        last = saved[-self._max_deaths :]
        if len(last) < self._max_deaths or len(set(last)) > 1:
            return False
        text = f"{self._max_deaths} workers died with it; the last: {error}"
        self.rows[job.name] = Row(job.name, job.video, "skipped", deaths=len(saved), error=text)
        return True

    def fail(self, job: Job, error: Exception) -> None:
        """Note that a video cannot be tracked."""
        self.rows[job.name] = Row(
            job.name, job.video, "failed", deaths=self.num_deaths(job), error=str(error)
        )

    def finish(self, job: Job, told: dict[str, Any]) -> None:
        """Note the row of a video that is done."""
        row = row_of({**told, "deaths": self.num_deaths(job)})
        self.rows[job.name] = row
        self.known[job.name] = Progress(job.name, row.frames, row.frames)

    def result(self) -> list[Row]:
        """A row for each video, in the order in which they were given."""
        return [self.rows[job.name] for job in self._jobs]


class _Fleet:
    """The waiting videos, and the workers."""

    def __init__(self, cluster: Cluster, load: Load, work: Work):
        self._cluster, self._load, self._work = cluster, load, work
        self._queue: deque[Job] = deque()
        self._starting: dict[Any, Any] = {}  # each worker's answer once it has the model
        self._busy: dict[Any, tuple[Any, Job]] = {}  # the row it will return
        self._num_failed_starts = 0

    def run(self, on_progress: OnProgress | None) -> None:
        """Track all videos that are left."""
        ray, known = self._cluster.ray, self._work.known
        self._queue.extend(
            sorted(self._work.left, key=lambda job: known[job.name].num_frames, reverse=True)
        )
        count = self._cluster.count(len(self._queue))
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
            known.update(self._cluster.watch([actor for actor, _ in self._busy.values()]))
            if on_progress is not None:
                on_progress(dict(known))
        for actor in self._starting.values():
            ray.kill(actor)

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
        work = self._work
        reference = actor.track.remote(job, work.settings, work.store.url, work.scratch)
        self._busy[reference] = actor, job

    def _ended(self, reference: Any) -> None:
        actor, job = self._busy.pop(reference)
        try:
            told = self._cluster.result(reference)
        except WorkerError as error:
            self._work.fail(job, error)
        except WorkerDiedError as error:
            if not self._work.note_death(job, error):
                self._queue.appendleft(job)
            self._cluster.ray.kill(actor)  # it may only be unreachable
            return
        else:
            self._work.finish(job, told)
        self._give(actor)


def row_of(told: dict[str, Any]) -> Row:
    """A row of a worker, or of a file that a later version may have written."""
    return Row(**{name: told[name] for name in Row.__dataclass_fields__ if name in told})
