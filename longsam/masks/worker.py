"""The thread that writes, and everything else that must end with a writer."""

import os
import queue
import threading
from collections.abc import Callable

from longsam.masks.lock import FolderLock
from longsam.masks.output import Output

FRAMES_IN_FLIGHT = 4
"""At most this many frames wait for the worker: at 1080p and three objects, 25 MB each."""


class Job:
    """Something for the worker to do."""

    def __init__(self, do: Callable[[Output], None]):
        self.do = do
        self.is_over = threading.Event()


class Worker:
    """Does jobs in order in a thread, and stops at the first error.

    It holds no reference to its writer, so a writer that is never closed can be garbage-collected,
    which ends its worker.

    Args:
        lock: Released at the end.
    """

    def __init__(self, lock: FolderLock):
        self._lock = lock
        self._jobs: queue.Queue[Job | None] = queue.Queue(FRAMES_IN_FLIGHT)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # until it is raised to the caller
        self._has_failed = self._must_end = False
        self._pid = os.getpid()

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def start(self, output: Output) -> None:
        """Start; the output is closed at the end."""
        thread = threading.Thread(
            target=self._work, args=(output,), name="longsam-mask-writer", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            output.close(complete=False)
            raise
        self._thread = thread

    def put(self, do: Callable[[Output], None], *, wait: bool = False) -> None:
        """Queue a job; waits only while there are too many, or for its end if `wait`."""
        job = Job(do)
        self._jobs.put(job)
        if wait:
            job.is_over.wait()

    def take_error(self) -> BaseException | None:
        """What went wrong, once."""
        error, self._error = self._error, None
        return error

    def close(self) -> None:
        """Finish all jobs and files, and release the lock; may be called twice.

        Raises:
            Exception: What went wrong and was not raised yet.
        """
        if os.getpid() != self._pid:  # in a forked child, which has neither the thread nor the lock
            return
        thread, self._thread = self._thread, None
        if thread is None:
            self._lock.release()
        elif thread is threading.current_thread():  # the writer was collected in it
            self._must_end = True
            return
        else:
            self._jobs.put(None)
            thread.join()
        error = self.take_error()
        if error is not None:
            raise error

    def _work(self, output: Output) -> None:
        while (job := self._next()) is not None:
            # A frame after a missing one would take its place, so no more are written.
            if not self._has_failed:
                try:
                    job.do(output)
                except BaseException as error:  # the caller gets it with its next call
                    self._error, self._has_failed = error, True
            job.is_over.set()
        try:
            output.close(complete=not self._has_failed)
        except BaseException as error:
            if not self._has_failed:
                self._error, self._has_failed = error, True
        finally:
            self._lock.release()

    def _next(self) -> Job | None:
        try:
            return self._jobs.get(block=not self._must_end)
        except queue.Empty:
            return None
