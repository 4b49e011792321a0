"""MaskWriter: masks go to disk while tracking goes on."""

import os
import queue
import threading
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longsam.frames import LiveVideo, open_source
from longsam.masks.formats import LineFile, MaskFormat, ObjectPng, Png, Rle
from longsam.masks.overlay import Overlay, num_whole_frames
from longsam.masks.record import ImageArray, Record, check_obj_ids, parse_lines
from longsam.object_ids import ObjectId

if TYPE_CHECKING:
    from longsam import State  # masks are read and written without SAM 2 too

FORMATS = ("rle", "png", "object_png", "overlay")
INDEX = "frames.jsonl"
"""A line for each frame that is whole on disk; the first line says what it is."""

FRAMES_IN_FLIGHT = 4
"""How many frames wait for the worker at most: at 1080p and three objects, 25 MB each."""

_VERSION = 1


class MaskWriter:
    """Writes the masks of a pass to a folder, frame by frame, in one or more formats.

        with MaskWriter("out", format="rle") as writer:
            for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
                writer.write(frame_idx, obj_ids, mask_logits)

    `write` hands a frame to a worker thread and returns. What is on disk is whole at any time: if
    the process is killed, the frames up to there can be read, and `resume=True` goes on behind
    them. `read_masks` gives the masks back.

    Args:
        folder: Made if it is not there. It holds `frames.jsonl` (a line a frame: ids and areas) and
            a file or folder for each format.
        format: One or more of: "rle" (COCO's run lengths, `masks.jsonl`), "png" (an indexed PNG a
            frame, where objects overlap the higher logit wins), "object_png" (a black and white
            PNG for each object and frame), "overlay" (`overlay.mp4`, H.264).
        video: Only for "overlay": what was given to `init_state` (a file, folder or array, opened a
            second time and read in its own size), or the `LiveVideo`. None: give each frame with
            `write`.
        resume: True goes on in a folder that holds masks already, behind the last frame. A state
            that was loaded goes on where its pass stopped: what was written after it was saved is
            dropped. Frames that are written again count anew: the last ones are read back.

    Attributes:
        last_frame_idx: The frame written last, None if there is none. After a crash, go on behind.

    Raises:
        FileExistsError: The folder holds masks already, and `resume` is False.
        ValueError: A format is unknown, or not the one with which the folder was written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: str | Iterable[str] = "rle",
        *,
        video: Any = None,
        resume: "bool | State" = False,
    ):
        self.folder = Path(folder)
        names = [format] if isinstance(format, str) else list(format)
        for name in names:
            if name not in FORMATS:
                raise ValueError(f"format is {name!r}; it must be of {', '.join(FORMATS)}.")
        if not names:
            raise ValueError(f"format is empty; give one or more of {', '.join(FORMATS)}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        header, records = read_index(self.folder)
        self._frames = array("q", (record["frame"] for record in records))  # 8 bytes a frame
        if self._frames and resume is False:
            raise FileExistsError(
                f"{self.folder} holds the masks of {len(self._frames)} frames. Go on behind them "
                "with resume=True, or choose another folder."
            )
        if self._frames and header["formats"] != names:
            raise ValueError(
                f"{self.folder} was written with the formats {header['formats']}, not {names}; go "
                "on with the same ones."
            )
        if self._frames and "overlay" in names:
            del self._frames[num_whole_frames(self.folder) :]
        self._names = names
        self._live = video if isinstance(video, LiveVideo) else None
        self._video = None if self._live else video
        self._formats: list[MaskFormat] = []
        self._index: LineFile | None = None
        self._queue: queue.Queue[_Job | None] = queue.Queue(FRAMES_IN_FLIGHT)
        self._error: BaseException | None = None  # until the caller has been told
        self._has_failed = False
        self._worker: threading.Thread | None = None
        self._is_closed = False
        if isinstance(resume, dict):
            self.drop_after(resume.last_frame_idx)

    def __enter__(self) -> "MaskWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def last_frame_idx(self) -> int | None:
        return self._frames[-1] if self._frames else None

    def drop_after(self, frame_idx: int) -> None:
        """Take back what was written after a frame was; call it before the first `write`.

        Args:
            frame_idx: The frame that was written last of those that stay; -1 drops all.

        Raises:
            ValueError: The frame was never written.
            RuntimeError: Frames have been written already.
        """
        if self._worker is not None:  # set by the first write
            raise RuntimeError("drop_after must be called before the first write.")
        if frame_idx == -1:
            del self._frames[:]
            return
        if frame_idx not in self._frames:
            raise ValueError(f"{self.folder} holds no masks of frame {frame_idx}.")
        while self._frames[-1] != frame_idx:
            self._frames.pop()

    def write(
        self,
        frame_idx: int,
        obj_ids: Iterable[Any],
        mask_logits: Any,
        *,
        image: ImageArray | None = None,
    ) -> None:
        """Hand over the masks of a frame; waits only while four frames are on their way.

        Args:
            frame_idx: The frame.
            obj_ids: Integers or strings, one for each mask; there may be none.
            mask_logits: num_objects x 1 x height x width (or without the 1): logits, of which those
                above 0 are the object, or bool. Do not change the tensor afterwards.
            image: For "overlay" without `video`: the frame, uint8 RGB, height x width x 3.

        Raises:
            ValueError: Shapes do not agree, or an id is of another type.
            Exception: Whatever an earlier frame's writing raised, for instance OSError when the
                disk is full.
        """
        if self._is_closed:
            raise ValueError(f"The writer of {self.folder} is closed.")
        ids = check_obj_ids(list(obj_ids))
        logits = torch.as_tensor(mask_logits)
        if logits.ndim == 4 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if logits.ndim != 3 or len(logits) != len(ids):
            raise ValueError(
                f"mask_logits has shape {tuple(torch.as_tensor(mask_logits).shape)} for the object "
                f"ids {ids}; it must be num_objects x 1 x height x width."
            )
        if image is None and self._live is not None and "overlay" in self._names:
            image = self._live.frame
        if self._worker is None:
            self._start(tuple(logits.shape[-2:]))
        self._raise_error()
        self._queue.put(_Job(frame_idx, ids, _ToCpu(logits), image))

    def flush(self) -> None:
        """Wait until all that was handed over is on the disk itself, not only with the system."""
        if self._worker is not None:
            self._queue.join()
        self._raise_error()
        if self._index is not None and hasattr(os, "sync"):
            os.sync()

    def close(self) -> None:
        """Write what is on its way, and finish the files.

        Raises:
            Exception: Whatever writing raised and no call has told yet.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._worker is not None:
            self._queue.put(None)
            self._worker.join()
        index = [self._index.close] if self._index else []
        for close in [*(mask_format.close for mask_format in self._formats), *index]:
            try:
                close()
            except BaseException as error:  # told below; the others are closed first
                self._error = self._error or error
        self._raise_error()

    def _start(self, size: tuple[int, ...]) -> None:
        """Cut every file back to the records that are whole, and begin."""
        num_records = len(self._frames)
        for name in self._names:
            self._formats.append(self._open(name, num_records))
        self._index = LineFile(self.folder / INDEX, num_records + 1 if num_records else 0)
        if not num_records:
            self._index.append(
                {
                    "longsam_masks": _VERSION,
                    "formats": self._names,
                    "size": list(size),
                    "video": os.path.abspath(self._video)
                    if isinstance(self._video, (str, os.PathLike))
                    else None,
                }
            )
        self._worker = threading.Thread(target=self._work, name="longsam-mask-writer", daemon=True)
        self._worker.start()

    def _open(self, name: str, num_records: int) -> MaskFormat:
        if name == "overlay":
            video = None if self._video is None else open_source(self._video, None)
            return Overlay(self.folder, num_records, video)
        kinds: dict[str, type[Rle | Png | ObjectPng]]
        kinds = {"rle": Rle, "png": Png, "object_png": ObjectPng}
        return kinds[name](self.folder, num_records)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if not self._has_failed:  # a frame after one that is missing would be taken for it
                try:
                    self._write(job.record())
                except BaseException as error:  # the caller gets it with its next call
                    self._error, self._has_failed = error, True
            self._queue.task_done()
        self._queue.task_done()

    def _write(self, record: Record) -> None:
        for mask_format in self._formats:
            mask_format.write(record)
        assert self._index is not None
        # Last, so that what is in the index is whole in every format.
        self._index.append(
            {"frame": record.frame_idx, "ids": record.obj_ids, "areas": record.areas}
        )
        self._frames.append(record.frame_idx)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            with suppress(Exception):  # what follows from the first error
                self.close()
            raise error


class _ToCpu:
    """A tensor on its way to the CPU; from a GPU it is copied beside what the GPU computes."""

    _streams: dict[torch.device, torch.cuda.Stream] = {}  # noqa: RUF012 (one for all writers)

    def __init__(self, tensor: torch.Tensor):
        self._tensor = tensor.detach()
        self._is_copied: torch.cuda.Event | None = None
        if tensor.is_cuda:
            if tensor.device not in self._streams:
                new_stream = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
                self._streams[tensor.device] = new_stream
            stream = self._streams[tensor.device]
            stream.wait_stream(torch.cuda.current_stream(tensor.device))
            with torch.cuda.stream(stream):
                self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                tensor.record_stream(stream)
                self._is_copied = stream.record_event()

    def get(self) -> torch.Tensor:
        if self._is_copied is not None:
            self._is_copied.synchronize()
        return self._tensor.cpu()


class _Job:
    def __init__(
        self, frame_idx: int, ids: list[ObjectId], logits: _ToCpu, image: ImageArray | None
    ):
        self._parts = frame_idx, ids, logits, image

    def record(self) -> Record:
        frame_idx, ids, logits, image = self._parts
        return Record(frame_idx, ids, logits.get(), image)


def read_index(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header, and a record of each frame that is whole, in the order of writing.

    Raises:
        ValueError: The index is of another version, or no index.
    """
    path = folder / INDEX
    lines = parse_lines(path.read_bytes()) if path.exists() else []
    if not lines:
        return {}, []
    header, *records = lines
    if header.get("longsam_masks") != _VERSION:
        raise ValueError(
            f"{path} is not an index of masks of version {_VERSION}, as this longsam writes them."
        )
    return header, records
