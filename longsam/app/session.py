"""The session behind the page: one thread that has the predictor, and a queue of commands."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from longsam import LongVideoPredictor
from longsam.app.export import Exports
from longsam.app.folder import PROMPTS, Folder
from longsam.app.run import Run
from longsam.cli.record import Record
from longsam.frames import open_source
from longsam.masks import Span, review
from longsam.masks.lock import FolderLock

Event = dict[str, Any]
Result = TypeVar("Result")

PROGRESS_SECONDS = 0.1
"""Between two events of a pass."""

IDLE_SECONDS = 1.0
"""Without a command for so long, what was done is saved."""


@dataclass(frozen=True)
class Model:
    """How the session gets its predictor.

    Args:
        load: Makes the predictor; called once, in the session's thread.
        computing: The context in which it computes.
        record: What the record of a new run has, given the predictor and the video's path.
        name: What the page calls it.
    """

    load: Callable[[], LongVideoPredictor]
    computing: Callable[[LongVideoPredictor], AbstractContextManager[object]]
    record: Callable[[LongVideoPredictor, str], Record]
    name: str


class NotReadyError(RuntimeError):
    """No video is open, or the model is not loaded yet."""


class Session:
    """One predictor, one project at a time, and everybody who watches.

    Args:
        model: How the predictor is made.
        on_event: Called with everything the page is to know, by any thread.

    Attributes:
        latest: The project as it was told last. What runs in the thread changes it between two
            commands, so others read this.
    """

    def __init__(self, model: Model, on_event: Callable[[Event], object]):
        self._model, self._on_event = model, on_event
        self._commands: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue()
        self._predictor: LongVideoPredictor | None = None
        self._model_state = "loading"
        self._model_error: str | None = None
        self._run: Run | None = None
        self._lock: FolderLock | None = None
        self._video: Event | None = None
        self._busy: str | None = None
        self._spans: list[Span] | None = None
        self._exports: Exports | None = None
        self._resting: int | None = None
        self._changed: tuple[int, int] | None = None  # frames that no event has told of yet
        self._told_at = 0.0
        self._times: deque[float] = deque(maxlen=60)
        self._pass_start = 0
        self._is_closing = False
        self.latest: Event = self._project()
        self._thread = threading.Thread(target=self._work, name="longsam-app", daemon=True)

    def start(self) -> None:
        """Load the model, and take commands."""
        self._thread.start()

    def close(self) -> None:
        """Save everything, and end the thread."""
        self._is_closing = True
        with contextlib.suppress(Exception):
            self.submit(self._close_project).result()
        self._commands.put((Future(), lambda: None))
        self._thread.join()

    def submit(self, command: Callable[[], Result]) -> "Future[Result]":
        """Run something in the session's thread, before the pass continues."""
        future: Future[Result] = Future()
        self._commands.put((future, command))
        return future

    # Commands; they run in the session's thread --------------------------------------------------

    def open(self, video: Path, folder: Path) -> None:
        """Open a project, and close the one before.

        Raises:
            ValueError: The video or the folder cannot be used.
        """
        if self._predictor is None:
            raise NotReadyError("the model is not loaded yet.")
        self._close_project()
        self._tell("opening the project")
        try:
            with contextlib.closing(open_source(str(video), None)) as source:
                rate = source.frame_rate
                self._video = {
                    "name": video.name,
                    "num_frames": source.num_frames,
                    "width": source.frame_size[1],
                    "height": source.frame_size[0],
                    "rate": None if rate is None else float(rate),
                    "codec": getattr(source, "codec", None),
                }
                size = source.frame_size
            prompts = folder / PROMPTS
            prompts.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(prompts)
            record = self._model.record(self._predictor, str(video))
            self._run = Run(
                self._predictor,
                Folder(folder, str(video), size),
                record,
                self._tell,
                lambda text: self._message("warning", text),
            )
            self._exports = Exports(folder, str(video))
        except BaseException:
            self._close_project()
            raise
        finally:
            self._tell(None)
        self._note_pass()
        self.tell_project()

    def run(self) -> Run:
        """The open project.

        Raises:
            NotReadyError: There is none.
        """
        if self._run is None:
            raise NotReadyError(
                "the model is loading." if self._model_state == "loading" else "no video is open."
            )
        return self._run

    def prompt(self, obj_id: int | str, frame_idx: int, edits: list[Event]) -> Event:
        """See `Run.prompt`; gives what `masks` gives."""
        run = self.run()
        was_correcting = run.correction is not None
        self.do(lambda run: run.prompt(obj_id, frame_idx, edits))
        if was_correcting or run.correction is not None:
            self._spans = None
        return self.masks(frame_idx)

    def do(self, command: Callable[[Run], object]) -> None:
        """A command that changes the project."""
        run = self.run()
        try:
            command(run)
        finally:
            self._note_pass()
            self.tell_project()

    def masks(self, frame_idx: int) -> Event:
        """The masks of a frame, as the page's protocol has them."""
        run = self.run()
        self._refresh()
        kind, objects = run.masks(frame_idx)
        size = list(run.state.source.frame_size)
        return {"frame": frame_idx, "size": size, "kind": kind, "objects": objects}

    def tile(self, level: int, number: int) -> bytes:
        """A tile of the timeline."""
        run = self.run()
        return run.tracked.tile(level, number, run.objects())

    def rest(self, frame_idx: int) -> None:
        """The frame that is shown has rested: compute its features while there is time."""
        self._resting = frame_idx

    def find_spans(self) -> None:
        """Look for frames that may be wrong."""
        run = self.run()
        self._tell("looking for frames that may be wrong")
        try:
            self._spans = review(run.folder.path)
        finally:
            self._tell(None)
        self.tell_project()

    def export(self, to: str, category: str | None) -> None:
        """Write the masks in another format, in a separate thread.

        Raises:
            ValueError: There is no such format, or nothing to write.
        """
        run, exports = self.run(), self._exports
        assert exports is not None
        if run.is_running:
            raise ValueError("stop tracking before the masks are exported.")
        exports.start(to, category, self._tell, self._exported)

    def export_path(self, name: str) -> Path | None:
        """The file of an export; None if there is none of this name."""
        return None if self._exports is None else self._exports.path(name)

    def _exported(self, error: str | None) -> None:
        if error is not None:
            self._message("error", error)
        self.submit(self.tell_project)

    def _project(self) -> Event:
        """Everything the page shows but frames and masks."""
        run = self._run
        model = {
            "name": self._model.name, "state": self._model_state, "error": self._model_error,
        }  # fmt: skip
        event: Event = {
            "type": "project", "video": self._video if run is not None else None,
            "model": model, "busy": self._busy, "folder": "", "objects": [], "prompts": [],
            "tracked": [], "tracking": None, "unfinished": None, "correction": None, "spans": None,
            "exports": [], "log_size": 0,
        }  # fmt: skip
        if run is None:
            return event
        return event | {
            "folder": str(run.folder.path),
            "objects": [
                {
                    "id": obj_id,
                    "color": run.colors[obj_id],
                    "removed": obj_id not in run.state.obj_ids,
                    "tracked": obj_id in run.tracked.obj_ids,
                }
                for obj_id in run.objects()
            ],
            "prompts": [
                {"object": obj_id, "frame": frame_idx, "edits": edits}
                for (obj_id, frame_idx), edits in run.prompts.items()
            ],
            "tracked": run.tracked.spans(),
            "tracking": self._tracking(),
            "unfinished": _unfinished(run),
            "correction": _correction(run),
            "spans": None if self._spans is None else [_span(span) for span in self._spans],
            "exports": [] if self._exports is None else self._exports.listed(),
            "log_size": len(run.log),
        }

    def tell_project(self) -> None:
        """Tell all pages what there is."""
        self._changed = None
        if self._run is not None:
            self._run.refresh()
        self.latest = self._project()
        self._on_event(self.latest)

    # The thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._predictor = self._model.load()
        except Exception as error:
            self._model_state, self._model_error = "failed", f"{error}"
        else:
            self._model_state = "ready"
        self.tell_project()
        context: AbstractContextManager[object] = contextlib.nullcontext()
        if self._predictor is not None:
            context = self._model.computing(self._predictor)
        with context, torch.inference_mode():
            while not self._is_closing or not self._commands.empty():
                self._work_once()

    def _work_once(self) -> None:
        is_running = self._run is not None and self._run.is_running
        has_work = is_running or self._resting is not None
        try:
            future, command = self._commands.get(
                block=not has_work, timeout=None if has_work else IDLE_SECONDS
            )
        except queue.Empty:
            try:
                self._track() if is_running else self._idle()
            except Exception as error:
                self._failed(error)
            return
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(command())
        except BaseException as error:
            future.set_exception(error)

    def _track(self) -> None:
        run = self.run()
        was_correcting = run.correction is not None
        frame_idx = run.step()
        now = time.perf_counter()
        if frame_idx is not None:
            self._times.append(now)
        if not run.is_running or was_correcting != (run.correction is not None):
            self._spans = None
            self._note_pass()
            self.tell_project()
        elif now - self._told_at > PROGRESS_SECONDS:
            self._told_at = now
            self._refresh()
            span, self._changed = self._changed, None
            progress = {"tracking": self._tracking(), "correction": _correction(run)}
            self.latest = self.latest | progress | {"tracked": run.tracked.spans()}
            self._on_event({"type": "progress", "tracked": span, "changed": span} | progress)

    def _idle(self) -> None:
        if self._run is None:
            return
        if self._resting is not None:
            frame_idx, self._resting = self._resting, None
            if 0 <= frame_idx < self._run.num_frames:
                self._run.predictor.encode(self._run.state, frame_idx)
            return
        self._run.save_if_needed()

    def _failed(self, error: Exception) -> None:
        """A pass has failed; what it has written is good."""
        self._message("error", f"{error}")
        if self._run is not None and self._run.is_running:
            with contextlib.suppress(Exception):
                self._run.pause()
            self._run.is_running = False
        self._note_pass()
        self.tell_project()

    def _close_project(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()
        if self._lock is not None:
            self._lock.release()
        self._lock = self._exports = self._spans = self._video = None

    def _refresh(self) -> None:
        """Take up masks that were written, and note which."""
        frames = self.run().refresh()
        if frames:
            first, last = self._changed or (frames[0], frames[0])
            self._changed = min(first, *frames), max(last, *frames)

    # Events -------------------------------------------------------------------------------------

    def _tell(self, busy: str | None) -> None:
        """Something takes long, or is over. Also called by the thread of an export."""
        if busy != self._busy:
            self._busy = busy
            correction = None if self._run is None else _correction(self._run)
            self.latest = self.latest | {"busy": busy, "correction": correction}
            self._on_event(self.latest)

    def _message(self, level: str, text: str) -> None:
        self._on_event({"type": "message", "level": level, "text": text})

    def _note_pass(self) -> None:
        self._times.clear()
        self._times.append(time.perf_counter())
        if self._run is not None and self._run.left:
            self._pass_start = self._run.left[0][0]

    def _tracking(self) -> Event | None:
        run = self._run
        if run is None or not run.is_running or not run.left:
            return None
        at, end, reverse = run.left[0]
        left = sum(abs(last - begin) + 1 for begin, last, _ in run.left)
        seconds = self._times[-1] - self._times[0]
        fps = (len(self._times) - 1) / seconds if seconds > 0 else None
        return {
            "frame": at + (1 if reverse else -1),
            "start": self._pass_start,
            "end": end,
            "reverse": reverse,
            "done": run.num_done,
            "total": run.num_done + left,
            "fps": fps,
            "seconds_left": None if not fps else left / fps,
        }


def _unfinished(run: Run) -> Event | None:
    if run.is_running or not run.left:
        return None
    at, end, reverse = run.left[0]
    return {"next": at, "end": end, "reverse": reverse}


def _correction(run: Run) -> Event | None:
    if run.correction is None:
        return None
    first, last = run.correction.span
    return {
        "frame": run.correction.frame,
        "first": first,
        "last": last,
        "reverse": run.correction.reverse,
        "at": run.correction.at,
        "rewinding": 0.0 if run.is_rewinding else None,
    }


def _span(span: Span) -> Event:
    return {
        "object": span.obj_id,
        "first": span.start,
        "last": span.stop,
        "worst": span.worst,
        "reasons": list(span.reasons),
        "weight": span.sure,
    }
