"""Videos as the rows of a Ray Dataset."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from longsam.fleet.jobs import Job, Load, Settings
from longsam.fleet.store import Store
from longsam.fleet.video import track_video


class TrackVideos:
    """Tracks the videos of a `ray.data.Dataset`, one per row, for `map_batches`.

        videos = ray.data.read_json("jobs.jsonl")
        videos.map_batches(
            TrackVideos,
            fn_constructor_kwargs={"load": load, "out": "masks"},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=8),
            num_gpus=1,
        ).write_parquet("tracked")

    Each actor of the pool builds the model once. A row that is tracked again, in a task that Ray
    retries or in a later run, is resumed from its save, or skipped if its masks are complete. Needs
    Ray Data (`pip install "ray[data]"`), which the extra `fleet` leaves out for its size.

    Args:
        load: Builds the predictor, as in `track_videos`.
        out: Where masks go, as in `track_videos`.
        settings: How each video is tracked.
        scratch: As in `track_videos`.

    Input columns are those of `Job`: "video", "prompts" (a list of dicts, or the same as JSON),
    and optionally "name". Output columns are the input's, and "masks" (where they are), "frames",
    "seconds" and "error" ("" if all went well: a row that cannot be tracked does not stop the
    others).
    """

    def __init__(
        self,
        load: Load,
        out: str | os.PathLike[str],
        settings: Settings | None = None,
        scratch: str | os.PathLike[str] | None = None,
    ):
        self._settings = settings or Settings()
        self._store = Store(out)
        self._scratch = self._store.scratch() if scratch is None else Path(scratch).absolute()
        self._predictor = load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Track the videos of a batch.

        Args:
            batch: For each column an array or list of values.

        Raises:
            ValueError: A column is missing.
        """
        for name in ("video", "prompts"):
            if name not in batch:
                raise ValueError(f"the rows have no column {name!r}; they have {sorted(batch)}.")
        rows = [self._track(i, batch) for i in range(len(batch["video"]))]
        new = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
        return {**batch, **new}

    def _track(self, i: int, batch: dict[str, Any]) -> dict[str, Any]:
        blank = {"masks": "", "frames": 0, "seconds": 0.0, "error": ""}
        try:
            prompts = batch["prompts"][i]
            prompts = json.loads(prompts) if isinstance(prompts, str) else _plain(prompts)
            name = batch["name"][i] if "name" in batch else ""
            job = Job(str(batch["video"][i]), prompts, str(name or ""))
            row = track_video(self._predictor, job, self._settings, self._store, self._scratch)
        except (ValueError, RuntimeError, OSError) as error:
            return {**blank, "error": f"{type(error).__name__}: {error}"}
        where = f"{self._store.url}/{job.name}"
        return {**blank, "masks": where, "frames": row["frames"], "seconds": row["seconds"]}


def _plain(value: Any) -> Any:
    """Python's lists and numbers for numpy's, without the fill values of a table."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    return value
