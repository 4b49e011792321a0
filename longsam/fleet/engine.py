"""Workers of a Ray cluster: processes that hold the model and are replaced when they die."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from longsam.fleet.jobs import Job, Load, Settings
from longsam.fleet.store import Store
from longsam.fleet.video import Progress, track_video

MAX_INITS = 3
"""How often to try starting Ray on a machine that is too busy for it."""


@dataclass(frozen=True)
class Workers:
    """How many workers, and the resources of each.

    Args:
        count: How many; None is as many as the cluster has room for.
        gpus: GPUs of each; may be a fraction, such as 0.5. With 0 the model runs on the CPU.
        cpus: CPUs of each, and torch's number of threads.
        address: The address of a Ray cluster, "auto" for one that runs here; None starts one on
            this machine, which ends with this process, unless `ray.init` was called before.

    Raises:
        ValueError: A number is too low.
    """

    count: int | None = None
    gpus: float = 0
    cpus: float = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"Workers(count) is {self.count}; it must be 1 or more, or None.")
        if self.gpus < 0 or self.cpus <= 0:
            raise ValueError(
                f"Workers(gpus={self.gpus}, cpus={self.cpus}): give 0 or more GPUs, and CPUs "
                "above 0."
            )

    @property
    def num_threads(self) -> int:
        """Torch's threads in each worker; on a CPU the last bits of a logit depend on it."""
        return max(1, int(self.cpus))


class Worker:
    """The code in a worker: one video at a time, with one model for all of them."""

    def __init__(self) -> None:
        self._progress = Progress()
        self._predictor: Any = None
        self._num_threads = 1

    def load(self, load: Load, num_threads: int) -> dict[str, Any]:
        """Build the model; returns where the worker is, and how long it took."""
        began = time.perf_counter()
        self._num_threads = num_threads
        torch.set_num_threads(num_threads)
        self._predictor = load()
        seconds = round(time.perf_counter() - began, 3)
        return {"host": socket.gethostname(), "pid": os.getpid(), "load_seconds": seconds}

    def track(self, job: Job, settings: Settings, out: str, scratch: Path) -> dict[str, Any]:
        """One video; returns its row of the report."""
        torch.set_num_threads(self._num_threads)
        self._progress = Progress()
        return track_video(self._predictor, job, settings, Store(out), scratch, self._progress)

    def progress(self) -> dict[str, Any]:
        """Its progress; answered while it tracks."""
        return asdict(self._progress)


def import_ray() -> Any:
    """Import Ray, an extra.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it sends usage reports
    # Ray's future default; without it Ray warns about a change that does not matter here.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("A fleet needs Ray: `pip install 'longsam[fleet]'`.") from error
    return ray


class Cluster:
    """A Ray cluster, for the workers of one call; use it in `with`.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: There is no cluster at the address.
        RuntimeError: Ray does not start on this machine.
    """

    def __init__(self, workers: Workers):
        self.ray = import_ray()
        self.workers = workers
        self._is_ours = not self.ray.is_initialized()
        if self._is_ours:
            self._init()

    def _init(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        of_its_own = {} if self.workers.address else {"include_dashboard": False}
        for left in reversed(range(MAX_INITS)):
            try:
                self.ray.init(
                    address=self.workers.address,
                    log_to_driver=False,
                    configure_logging=False,
                    **of_its_own,
                )
                break
            except (ImportError, OSError, ValueError):
                raise
            except Exception as error:  # a plain Exception if a node was not up within Ray's 30 s
                self.ray.shutdown()
                if not left:
                    raise RuntimeError(f"Ray does not start: {error}") from error
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray replaced them

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_ours:
            self.ray.shutdown()

    def count(self, most: int) -> int:
        """How many workers to start.

        Args:
            most: The number that there is work for.

        Raises:
            ValueError: The cluster has no room for one.
        """
        if self.workers.count is not None:
            return min(most, self.workers.count)
        has = self.ray.cluster_resources()
        fits = [int(has.get("CPU", 0) / self.workers.cpus + 1e-9)]
        if self.workers.gpus:
            fits.append(int(has.get("GPU", 0) / self.workers.gpus + 1e-9))
        if min(fits) < 1:
            raise ValueError(
                f"the cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, and a "
                f"worker takes {self.workers.cpus:g} and {self.workers.gpus:g}. Ask for less, or, "
                "if the cluster scales automatically, give the number of workers."
            )
        return min(most, *fits)

    def start(self, worker: type = Worker) -> Any:
        """A new worker; Ray starts it where there is room. It ends with this process."""
        made = self.ray.remote(
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus,
            max_restarts=0,
            concurrency_groups={"watch": 1},
        )(worker)
        return made.remote()

    def load(self, actor: Any, load: Load) -> Any:
        """Let a worker build the model; returns a reference to its answer."""
        return actor.load.remote(load, self.workers.num_threads)

    def watch(self, actors: list[Any], seconds: float = 0.2) -> dict[str, Progress]:
        """The progress of workers that answer in time, by the job's name."""
        asked = [actor.progress.options(concurrency_group="watch").remote() for actor in actors]
        if not asked:
            return {}
        answered, _ = self.ray.wait(asked, num_returns=len(asked), timeout=seconds)
        found = {}
        for reference in answered:
            try:
                progress = Progress(**self.ray.get(reference))
            except self.ray.exceptions.RayError:
                continue  # it has died, which waiting for its result will show
            if progress.num_frames:  # it has opened its video
                found[progress.name] = progress
        return found

    def result(self, reference: Any) -> Any:
        """What a worker returned.

        Raises:
            WorkerDiedError: The worker is dead.
            Exception: What the worker raised.
        """
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise WorkerError(error.cause) from error.cause
        except self.ray.exceptions.RayError as error:
            raise WorkerDiedError(" ".join(str(error).split())) from None


class WorkerDiedError(RuntimeError):
    """A worker died: killed, out of memory, or its node is gone."""


class WorkerError(RuntimeError):
    """A worker raised an error but is alive."""

    def __init__(self, cause: BaseException):
        text = " ".join(str(cause).split())
        super().__init__(f"{type(cause).__name__}: {text}" if text else type(cause).__name__)


class ModelError(RuntimeError):
    """No worker can build the model."""

    def __init__(self, error: object):
        super().__init__(f"No worker can build the model: {error}")


OnProgress = Callable[[dict[str, Progress]], object]
"""Called about once a second with each video's progress, by the job's name."""
