"""MaskWriter: writes masks to disk during tracking."""

import operator
import os
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, SupportsFloat

import torch

from longsam.masks.aside import keep_aside as move_aside
from longsam.masks.ids import ObjectId, check_obj_ids
from longsam.masks.index import Extent, Scan, scan
from longsam.masks.lines import INDEX, Header, check_size, is_finite
from longsam.masks.lock import FolderLock
from longsam.masks.output import Output
from longsam.masks.overlay import DEFAULT_FRAME_RATE
from longsam.masks.overlay_file import ENDS, STREAM
from longsam.masks.record import ImageArray, Record, Scores
from longsam.masks.resume import check_formats, check_resume, last_frame_of
from longsam.masks.transfer import ToCpu
from longsam.masks.worker import Worker


class MaskWriter:
    """Writes the masks of a pass to a folder, frame by frame, in one or more formats.

        with MaskWriter("out", format="rle") as writer:
            for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
                writer.write(frame_idx, obj_ids, mask_logits)

    `write` passes a frame to a worker thread and returns. If the process is killed, the frames
    written so far can be read, and `resume=True` continues after them. `read_masks` reads the masks
    back. One writer at a time holds a folder, until it is closed or its process ends. A writer that
    is never closed is closed when it is garbage-collected, or when Python ends.

    Args:
        folder: Created if it does not exist. It holds `frames.jsonl` (a line with ids and areas for
            each frame) and a file or folder for each format.
        format: One or more of: "rle" (COCO's run lengths, `masks.jsonl`), "png" (an indexed PNG per
            frame; where objects overlap, the higher logit wins), "object_png" (a black and white
            PNG for each object and frame), "overlay" (H.264: `overlay.ts` while it is written,
            which also plays, and `overlay.mp4` once the writer is closed).
        video: Only for "overlay": what was given to `init_state` (a file, folder or array, opened a
            second time and read in its own size), or the `LiveVideo`. None: give each frame with
            `write`.
        resume: True continues in a folder that already holds masks, after the last frame. A loaded
            state continues where its pass stopped: what was written after it was saved is dropped
            at the first `write`. Frames that are written again replace the earlier ones.
        frames: For a state that was opened with `init_state(frames=slice(...))`, its
            `state.source.frames`: the files then have the video's own indices. None: `write` is
            given these.

    Attributes:
        last_frame_idx: The last frame written, None if there is none. After a crash, continue after
            it.

    Raises:
        FileExistsError: The folder already holds masks, and `resume` is False.
        ValueError: A format is unknown, given twice, or not one that the folder was written with;
            the folder's index is damaged; or the state of `resume` has tracked nothing, or its last
            frame has no masks.
        RuntimeError: Another writer holds the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: str | Iterable[str] = "rle",
        *,
        video: Any = None,
        resume: bool | Any = False,
        frames: range | None = None,
    ):
        self.folder = Path(folder)
        self._names = check_formats(format)
        self._frames = frames
        self._video, self._live = video, None
        if video is not None:
            from longsam.frames import LiveVideo  # here, so that reading masks needs no model

            if isinstance(video, LiveVideo):
                self._video, self._live = None, video
        until = None if isinstance(resume, bool) else last_frame_of(resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.folder)
        self._output: Output | None = None
        self._is_closed = False
        try:
            self._found: Scan = scan(self.folder / INDEX, until)
            check_resume(self.folder, self._found, self._names, resume, until)
        except BaseException:
            lock.release()
            raise
        self._kept: Extent = self._found.cut or self._found.whole
        header = self._found.header
        self._size = header.size if header is not None and len(self) else None
        self._worker = Worker(lock)
        self._finalizer = weakref.finalize(self, self._worker.close)

    def __enter__(self) -> "MaskWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many frames are complete; a frame written twice counts twice."""
        return self._kept.num_records if self._output is None else self._output.num_records

    @property
    def last_frame_idx(self) -> int | None:
        kept = self._kept if self._output is None else self._output
        return kept.last_frame_idx

    def num_after(self, frame_idx: int) -> int:
        """How many frames were written after a frame, which `drop_after` would drop.

        Args:
            frame_idx: A frame; -1 means the beginning.

        Raises:
            ValueError: The frame was never written.
            RuntimeError: Frames have been written already.
        """
        return self._kept.num_records - self._up_to(frame_idx).num_records

    def drop_after(self, frame_idx: int, *, keep_aside: bool = False) -> Path | None:
        """Drop what was written after a frame; call it before the first `write`.

        Args:
            frame_idx: The last frame to keep, in the order of writing; -1 drops all.
            keep_aside: Move what is dropped into a subfolder, now. False removes it when the first
                frame is written.

        Returns:
            With `keep_aside`, the subfolder, which `read_masks` reads; None if nothing was dropped.

        Raises:
            ValueError: The frame was never written.
            RuntimeError: Frames have been written already.
        """
        kept = self._up_to(frame_idx)
        aside = None
        if keep_aside and kept.num_records < self._found.whole.num_records:
            aside = move_aside(self.folder, self._found, kept)
            self._found = scan(self.folder / INDEX)
            kept = self._found.whole
        self._kept = kept
        if not len(self):
            self._size = None
        return aside

    def write(
        self,
        frame_idx: int,
        obj_ids: Iterable[Any],
        mask_logits: Any,
        *,
        image: ImageArray | None = None,
        scores: Mapping[Any, tuple[float | None, float | None]] | None = None,
        time: SupportsFloat | None = None,
    ) -> None:
        """Write the masks of a frame; waits only while four frames are queued.

        Args:
            frame_idx: The frame.
            obj_ids: Integers or strings, one for each mask; there may be none.
            mask_logits: num_objects x 1 x height x width (or without the 1): logits, where values
                above 0 are the object (NaN is not), or bool. Do not change the tensor afterwards.
            image: For "overlay" without `video`: the frame, uint8 RGB, height x width x 3.
            scores: What `predictor.scores(state, frame_idx)` gives: (object score, predicted IoU)
                by object id. They are written with 5 significant digits; objects that are not in
                it, and numbers that are not finite, have none.
            time: The frame's time stamp in seconds, `state.source.time(frame_idx)`; written to the
                microsecond. None: from the `video` of an overlay.

        Raises:
            ValueError: Shapes do not match, the masks differ in size from earlier ones, an id is of
                another type, or a score or the time is not a number. Nothing is written then, and
                the writer can still be used.
            Exception: The error from writing an earlier frame, for instance OSError when the disk
                is full. The writer is then closed; make another one with `resume=True`.
        """
        if self._is_closed:
            raise ValueError(
                f"The writer of {self.folder} is closed. To continue, make another one with "
                "resume=True."
            )
        self._raise_error()
        frame_idx = operator.index(frame_idx)
        if self._frames is not None:
            if not 0 <= frame_idx < len(self._frames):
                raise ValueError(
                    f"frame_idx is {frame_idx}; it must be below {len(self._frames)}, the number "
                    "of `frames`."
                )
            frame_idx = self._frames[frame_idx]
        if not 0 <= frame_idx < 10**18:
            raise ValueError(f"frame_idx is {frame_idx}; it must be 0 or more.")
        ids = check_obj_ids(list(obj_ids))
        logits = torch.as_tensor(mask_logits)
        if logits.ndim == 4 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if logits.ndim != 3 or len(logits) != len(ids):
            raise ValueError(
                f"mask_logits has shape {tuple(torch.as_tensor(mask_logits).shape)} for the object "
                f"ids {ids}; it must be num_objects x 1 x height x width."
            )
        height, width = logits.shape[-2:]
        check_size(height, width)
        if self._size is not None and self._size != (height, width):
            raise ValueError(
                f"The masks of frame {frame_idx} are {width}x{height} pixels, but those in "
                f"{self.folder} are {self._size[1]}x{self._size[0]}. Write other sizes to another "
                "folder."
            )
        numbers = None if scores is None else _scores(ids, scores)
        seconds = None if time is None else _seconds(time)
        if image is None and self._live is not None and "overlay" in self._names:
            image = self._live.frame
        if self._output is None:
            self._start((height, width))
        self._worker.put(partial(_write, frame_idx, ids, ToCpu(logits), image, numbers, seconds))

    def flush(self) -> None:
        """Wait until everything is on the disk itself, not only in the system's cache.

        Raises:
            Exception: As `write`.
        """
        if self._worker.is_running:
            self._worker.put(Output.sync, wait=True)
        self._raise_error()

    def close(self) -> None:
        """Write what is queued, and finish the files.

        Raises:
            Exception: An error from writing that no call has raised yet.
        """
        if self._is_closed:
            return
        try:
            if self._output is None:
                self._finish_overlay()
        finally:
            self._end()

    def _end(self) -> None:
        self._is_closed = True
        self._finalizer.detach()
        self._worker.close()

    def _finish_overlay(self) -> None:
        """Finish the overlay of a writer that was killed after its last frame."""
        header, _, whole, _ = self._found
        if header is None or "overlay" not in self._names:
            return
        if not (self.folder / STREAM).exists():
            (self.folder / ENDS).unlink(missing_ok=True)  # left by a writer killed between the two
            return
        if 0 < self._kept.num_records == whole.num_records:
            Output(self.folder, header, self._found, self._kept).close(complete=True)

    def _start(self, size: tuple[int, int]) -> None:
        """Cut every file back to the frames that are kept, and start."""
        try:
            video = self._open_video() if "overlay" in self._names else None
            header = self._found.header if len(self) else None
            if header is None:
                rate = video.frame_rate if video is not None else None
                path = self._video
                header = Header(
                    self._names,
                    size,
                    os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else None,
                    Fraction(rate or DEFAULT_FRAME_RATE) if "overlay" in self._names else None,
                )
            output = Output(self.folder, header, self._found, self._kept, video)
            self._worker.start(output)
        except BaseException:
            with suppress(Exception):  # the first error is raised
                self._end()
            raise
        self._output, self._size = output, size

    def _open_video(self) -> Any:
        if self._video is None:
            return None
        from longsam.frames import open_source

        return open_source(self._video, None)

    def _up_to(self, frame_idx: int) -> Extent:
        if self._output is not None:
            raise RuntimeError("drop_after must be called before the first write.")
        if not len(self) and frame_idx == -1:
            return self._kept
        cut = scan(self.folder / INDEX, frame_idx, self._kept.end).cut
        if cut is None:
            raise ValueError(f"{self.folder} holds no masks of frame {frame_idx}.")
        return cut

    def _raise_error(self) -> None:
        error = self._worker.take_error()
        if error is not None:
            with suppress(Exception):  # a consequence of the first error
                self._end()
            raise error


def _scores(
    obj_ids: list[ObjectId], scores: Mapping[Any, tuple[float | None, float | None]]
) -> list[Scores]:
    """The scores of a frame's objects, as they are written."""
    numbers: list[Scores] = []
    for obj_id in obj_ids:
        try:
            object_score, predicted_iou = scores.get(obj_id) or (None, None)
            numbers.append((_number(object_score), _number(predicted_iou)))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"The scores of object {obj_id!r} cannot be read ({error}); give what "
                "predictor.scores gives: {obj_id: (object score, predicted IoU)}."
            ) from None
    return numbers


def _seconds(time: SupportsFloat) -> float:
    with suppress(TypeError, ValueError):
        if is_finite(seconds := float(time)):
            return seconds
    raise ValueError(f"time is {time!r}; it must be seconds, or None.")


def _number(score: float | None) -> float | None:
    number = None if score is None else float(score)
    return number if is_finite(number) else None


def _write(
    frame_idx: int,
    ids: list[ObjectId],
    logits: ToCpu,
    image: ImageArray | None,
    scores: list[Scores] | None,
    time: float | None,
    output: Output,
) -> None:
    output.write(Record(frame_idx, ids, logits.get(), image, scores, time))
