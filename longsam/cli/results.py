"""The folder of a run: how it was computed, what it may replace, and what came of it."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longsam.masks import MaskFolder

STATE = "state.pt"
RECORD = "run.json"
INDEX = "frames.jsonl"

OURS = (
    INDEX,
    "masks.jsonl",
    "png",
    "object_png",
    "overlay.mp4",
    "overlay.ts",
    "writer.lock",
    STATE,
    RECORD,
)
"""What a run writes; --overwrite removes nothing else."""

MOST_SPANS = 5
"""So many lost spans are told of each object."""


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


def remove(out: Path) -> None:
    """Remove what an earlier run has written."""
    if not ((out / INDEX).exists() or (out / STATE).exists()):
        return
    for name in OURS:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_record(out: Path, record: dict[str, Any]) -> None:
    """Note how a run computes; it is there whole or not at all."""
    partial = out / f"{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, out / RECORD)


def read_record(out: Path) -> dict[str, Any]:
    """How a run computes; nothing if an older longsam has not noted it.

    Raises:
        ValueError: It is damaged.
    """
    path = out / RECORD
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        return {n: record[n] for n in ("dtype", "device", "batch_objects", "vos_optimized")}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged; remove it to resume with the flags given.") from error


def summary(out: Path) -> Iterator[str]:
    """A line for each object: on how many frames it is, and where it is not.

    Of a folder with an overlay alone there is nothing to tell.
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
    for obj_id, frames in empty.items():
        spans = list(_spans(frames))
        more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
        lost = f": {', '.join(spans[:MOST_SPANS])}{more}" if spans else ""
        yield f"object {obj_id}: seen on {seen[obj_id]:,} frames, empty on {len(frames):,}{lost}"


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
