"""An overlay of masks that are already on disk."""

import os
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from longsam.masks.drawing import draw
from longsam.masks.frame_times import ticks
from longsam.masks.lock import FolderLock
from longsam.masks.overlay import DEFAULT_FRAME_RATE
from longsam.masks.overlay_file import ENDS, FINISHED, STREAM, OverlayFile
from longsam.masks.reader import MaskFolder


def render_overlay(
    folder: str | os.PathLike[str],
    video: Any,
    *,
    frame_rate: Fraction | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Draw the masks of a folder over their video, in frame order.

    A `MaskWriter` draws while it writes, so its overlay follows the order of writing. After passes
    in reverse, or after frames were written again, draw it from disk instead. An earlier overlay is
    replaced once the new one is complete.

    Args:
        folder: Where a `MaskWriter` has written "rle", "png" or "object_png".
        video: The video that was tracked.
        frame_rate: Frames per second if frames have no time stamps; None is the video's.
        progress: Called after each frame with the number of frames drawn.

    Returns:
        The file, `overlay.mp4`.

    Raises:
        ValueError: The folder holds no masks, or masks of another video.
        RuntimeError: A writer holds the folder.
        OSError: It cannot be written.
    """
    from longsam.frames import open_source  # here, so that reading masks needs no model

    masks = MaskFolder(folder)
    lock = FolderLock(masks.folder)
    try:
        source = open_source(video, None)
        work = Path(tempfile.mkdtemp(prefix=".overlay-", dir=masks.folder))
        try:
            rate = frame_rate or source.frame_rate or DEFAULT_FRAME_RATE
            file = OverlayFile(work, 0, Fraction(rate))
            try:
                seconds = np.full(len(masks), np.nan)
                for number, frame_idx in enumerate(masks.frames, 1):
                    _, obj_ids, found = masks.read(frame_idx)
                    (image,) = source.read(frame_idx, frame_idx + 1)
                    file.append(draw(image, obj_ids, found))
                    seconds[number - 1] = source.time(frame_idx)
                    if progress is not None:
                        progress(number)
            except BaseException:
                file.close()
                raise
            file.finish(ticks(seconds, Fraction(rate)))
            for name in (STREAM, ENDS):
                (masks.folder / name).unlink(missing_ok=True)
            os.replace(work / FINISHED, masks.folder / FINISHED)
        finally:
            source.close()
            shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()
    return masks.folder / FINISHED
