"""One video of a fleet, from its last save to its uploaded masks."""

import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longsam import Autosave, LongVideoPredictor, State, prompts
from longsam.fleet.jobs import Job, Settings
from longsam.fleet.precision import computing_in, dtype_on
from longsam.fleet.store import Store
from longsam.masks import MaskWriter
from longsam.masks.lock import FolderLock

SAVE = "state.pt"
MASKS = "masks"

LOCK_SECONDS = 120
"""How long to wait for another worker's lock. A worker that lost its driver ends within seconds; a
file server drops the locks of a lost machine after 90 s (NFSv4)."""


@dataclass
class Progress:
    """A worker's progress with a video.

    Attributes:
        name: The job's name.
        num_done: How many frames are tracked.
        num_frames: How many there are to track.
        num_saved: How many frames a save holds.
        pid: The worker's process.
    """

    name: str = ""
    num_done: int = 0
    num_frames: int = 0
    num_saved: int = 0
    pid: int = 0


def track_video(
    predictor: LongVideoPredictor,
    job: Job,
    settings: Settings,
    store: Store,
    scratch: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Track one video, from its last save if there is one, and upload its masks.

    Returns:
        The row of the report.

    Raises:
        RuntimeError: Another process tracks it, or a frame cannot be read.
        ValueError: The video or a prompt cannot be used, or the save is of another model.
        OSError: Masks cannot be written or uploaded.
    """
    progress = progress or Progress()
    progress.name, progress.pid = job.name, os.getpid()
    digest, began = settings.digest(job), time.perf_counter()
    with locked(scratch / job.name) as folder:
        row = store.finished(job.name, digest)  # by another worker that seemed dead
        if row is None:
            remove_of_another_job(folder, digest)
            row = _track(predictor, job, settings, folder, progress)
            row["seconds"] = round(time.perf_counter() - began, 3)
            store.upload(folder / MASKS, job.name, digest, row)
        clear(folder)
    return row


def opened(
    predictor: LongVideoPredictor, job: Job, settings: Settings, folder: Path
) -> tuple[State, MaskWriter, bool]:
    """The state of a video, from its save if there is one, and the writer of its masks.

    Returns:
        (state, writer, whether it is resumed).
    """
    save = folder / SAVE
    if save.exists():
        state = predictor.load_state(save, job.video)
    else:
        state = predictor.init_state(
            job.video,
            batch_objects=settings.batch_objects,
            memory_window=settings.memory_window,
        )
    try:
        is_resumed = save.exists()
        if not is_resumed:
            shutil.rmtree(folder / MASKS, ignore_errors=True)  # masks from before the first save
            grouped = job.grouped_prompts()
            prompts.check(grouped, state.source)
            for _ in prompts.add(predictor, state, grouped):
                pass
        writer = MaskWriter(
            folder / MASKS,
            settings.formats,
            video=job.video if "overlay" in settings.formats else None,
            resume=state if is_resumed else False,
        )
    except BaseException:
        state.close()
        raise
    return state, writer, is_resumed


def autosave_of(
    settings: Settings, folder: Path, writer: MaskWriter, progress: Progress
) -> Autosave:
    """Saves of a state, each made after the masks that it relies on."""

    def before_save() -> None:
        writer.flush()
        progress.num_saved = progress.num_done

    return Autosave(folder / SAVE, every=settings.save_every, before_save=before_save)


def _track(
    predictor: LongVideoPredictor, job: Job, settings: Settings, folder: Path, progress: Progress
) -> dict[str, Any]:
    began = time.perf_counter()
    dtype = dtype_on(settings.dtype, predictor.device)
    with computing_in(dtype, predictor.device):
        state, writer, is_resumed = opened(predictor, job, settings, folder)
        with state, writer:
            first = min(prompt["frame"] for prompt in job.prompts)
            num_frames = state.source.num_frames - first
            num_before = state.last_frame_idx + 1 - first if is_resumed else 0
            progress.num_frames = num_frames
            progress.num_done = progress.num_saved = num_before
            autosave = autosave_of(settings, folder, writer, progress)
            steps = _steps(predictor, state, is_resumed, autosave)
            with closing(steps):
                for frame_idx, obj_ids, mask_logits in steps:
                    writer.write(
                        frame_idx,
                        obj_ids,
                        mask_logits,
                        scores=predictor.scores(state, frame_idx),
                        time=state.source.time(frame_idx),
                    )
                    progress.num_done += 1
    return {
        "name": job.name,
        "video": job.video,
        "status": "done",
        "frames": progress.num_done,
        "resumed_at": first + num_before if is_resumed else None,
        "tracked_seconds": round(time.perf_counter() - began, 3),
        "device": str(predictor.device),
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }


def _steps(
    predictor: LongVideoPredictor, state: State, is_resumed: bool, autosave: Autosave
) -> Generator[Any, None, None]:
    if is_resumed:
        return predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
    return predictor.propagate_in_video(state, autosave=autosave, progress_bar=False)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Lock a folder; an orphan of a dead driver may still hold it for a moment."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder)
            break
        except FileNotFoundError:  # its holder just removed it
            continue
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    try:
        yield folder
    finally:
        if not any(folder.rglob(SAVE)):  # nothing to resume from
            clear(folder)
        lock.release()
        with suppress(OSError):
            folder.rmdir()  # if nothing is left in it


def remove_of_another_job(folder: Path, digest: str) -> None:
    """Work begun with other prompts or another model cannot be resumed."""
    told = folder / "job"
    if not told.exists() or told.read_text() != digest:
        clear(folder)
        told.write_text(digest)


def clear(folder: Path) -> None:
    """Remove everything from a folder except its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "writer.lock":
            path.unlink()
