"""The folder of a run: what it may replace, its corrections, and a summary of its masks."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longsam.cli.record import RECORD, Record
from longsam.frames import open_source
from longsam.masks import MaskFolder, render_overlay
from longsam.masks.aside import FILES_BESIDE_RLE

STATE = "state.pt"
SNAPSHOTS = "snapshots"
CORRECTION = "correction"
"""The folder of an unfinished correction, within the run's."""

CORRECTED = "corrected"
"""Its name once it is complete."""

INDEX = "frames.jsonl"

OURS = (
    INDEX,
    "masks.jsonl",
    *FILES_BESIDE_RLE,
    "writer.lock",
    STATE,
    RECORD,
)
"""The files of a run; --overwrite removes nothing else."""

MOST_OBJECTS = 20
"""At most this many objects are summarized: without prompts there may be hundreds."""

MOST_SPANS = 5
"""At most this many lost spans are listed for each object."""


def check_folder(out: Path, may_hold_masks: bool) -> None:
    """Refuse a folder that cannot be written to, before a model is loaded.

    Raises:
        ValueError: It is a file, cannot be written, or holds masks.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, which is a file; give a folder.")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"--out is {out}, but nothing can be written to {there}.")
    if not may_hold_masks and ((out / INDEX).exists() or (out / STATE).exists()):
        raise ValueError(
            f"{out} holds the masks of an earlier run: --resume continues it, --overwrite replaces "
            "it; or choose another folder."
        )


def remove(out: Path, *, keep_snapshots: bool = False) -> None:
    """Remove what an earlier run wrote.

    Args:
        out: Its folder.
        keep_snapshots: Leave the folder of snapshots: the new run uses it, and removes what the
            earlier one left.
    """
    if not ((out / INDEX).exists() or (out / STATE).exists()):
        return
    for name in (*OURS, CORRECTION, CORRECTED, *([] if keep_snapshots else [SNAPSHOTS])):
        _remove(out / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def formats_while_tracking(recorded: Record) -> list[str]:
    """The writer's formats: with passes in reverse, the overlay is drawn after they end."""
    if recorded.direction == "forward" or "overlay" not in recorded.formats:
        return recorded.formats
    return [name for name in recorded.formats if name != "overlay"] or ["rle"]


def draw_overlay(out: Path, video: str, frames: range, *, is_quiet: bool) -> None:
    """Draw the overlay of existing masks.

    Args:
        out: The folder of the masks.
        video: The video.
        frames: The tracked frames; with every k-th frame, each is shown k times as long.
        is_quiet: Draw no progress bar.
    """
    with closing(open_source(video, None)) as source:
        rate = source.frame_rate and source.frame_rate / frames.step
    with tqdm(desc="overlay", total=len(MaskFolder(out)), unit=" frames", disable=is_quiet) as bar:
        render_overlay(out, video, frame_rate=rate, progress=lambda _: bar.update())


def check_snapshots(out: Path) -> None:
    """Refuse a run that cannot be corrected.

    Raises:
        ValueError: It kept no snapshots.
    """
    if not (out / SNAPSHOTS).is_dir():
        raise ValueError(
            f"The run in {out} kept no snapshots (--snapshot-every 0), so it cannot be corrected; "
            "track again with --overwrite."
        )


def link_snapshots(out: Path, work: Path) -> None:
    """Give a correction separate snapshots: until it is complete, the run's stay valid."""
    (work / SNAPSHOTS).mkdir(parents=True)
    for path in (out / SNAPSHOTS).iterdir():
        if path.is_file() and not path.is_symlink():
            try:
                os.link(path, work / SNAPSHOTS / path.name)
            except OSError:  # a file system without hard links
                shutil.copy2(path, work / SNAPSHOTS / path.name)


def finish_correction(out: Path) -> None:
    """Replace masks with those of a complete correction.

    If killed, calling it again continues.
    """
    whole = out / CORRECTED
    if whole.is_symlink() or not whole.is_dir():
        return
    for name in (*OURS, SNAPSHOTS):
        new, old = whole / name, out / name
        if not new.exists():
            continue
        if name == "overlay.mp4":  # what it was writing
            for other in ("overlay.ts", "overlay.ends"):
                (out / other).unlink(missing_ok=True)
        if old.is_dir():
            _remove(whole / "before")
            old.rename(whole / "before")
        os.replace(new, old)
    shutil.rmtree(whole)


def summary(out: Path) -> Iterator[str]:
    """A line for each of the first objects: how many frames show it, and where it is missing.

    Nothing for a folder that holds only an overlay.
    """
    try:
        folder = MaskFolder(out)
    except (ValueError, OSError):
        return
    seen: dict[Any, int] = {}
    empty: dict[Any, list[int]] = {}
    for frame_idx in folder.frames:
        areas = folder.areas(frame_idx)
        for obj_id, area in zip(folder.obj_ids(frame_idx), areas, strict=True):
            seen[obj_id] = seen.get(obj_id, 0) + (area > 0)
            empty.setdefault(obj_id, [])
            if not area:
                empty[obj_id].append(frame_idx)
    for obj_id, frames in islice(empty.items(), MOST_OBJECTS):
        spans = list(_spans(frames))
        more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
        lost = f": {', '.join(spans[:MOST_SPANS])}{more}" if spans else ""
        yield f"object {obj_id}: seen on {seen[obj_id]:,} frames, empty on {len(frames):,}{lost}"
    if len(empty) > MOST_OBJECTS:
        yield f"and {len(empty) - MOST_OBJECTS} more objects"


def _spans(frames: list[int]) -> Iterator[str]:
    """Ascending frames as "3-7", "9"."""
    first = last = None
    for frame in [*frames, None]:
        if first is None or last is None:
            first = last = frame
        elif frame == last + 1:
            last = frame
        else:
            yield f"{first}-{last}" if last > first else f"{first}"
            first = last = frame
