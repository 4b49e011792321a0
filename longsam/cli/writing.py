"""Masks from a pass to their writer, with a progress bar, until the end or Ctrl-C."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longsam import LiveVideo, LongVideoPredictor, State
from longsam.masks import MaskWriter


@dataclass(frozen=True)
class Written:
    """The outcome.

    Args:
        num_frames: How many frames were tracked.
        seconds: How long it took.
        is_over: Whether the pass reached its end.
        was_stopped: Whether Ctrl-C or SIGTERM ended it before that.
        last_frame_idx: The last frame written, by the video's own index; None if there is none.
    """

    num_frames: int
    seconds: float
    is_over: bool
    was_stopped: bool
    last_frame_idx: int | None


def write_steps(
    predictor: LongVideoPredictor,
    state: State,
    writer: MaskWriter,
    steps: Generator[Any, None, None],
    *,
    total: int | None,
    most: int | None = None,
    is_quiet: bool = False,
    save: Path | None = None,
    time_of: Callable[[int], float | None] | None = None,
) -> Written:
    """Write the masks of all passes, and close the writer.

    Args:
        predictor: The predictor.
        state: The session.
        writer: Where masks go.
        steps: The passes; a pass that reaches its end saves itself.
        total: How many frames the writer will have in the end; None if unknown.
        most: Stop when the writer has this many frames; None is all.
        is_quiet: Draw no progress bar.
        save: Where the state is saved if the passes are stopped; None is nowhere.
        time_of: The time stamp of a frame of the state; None asks the state's source.
    """
    num_before, num_new = len(writer), 0
    began, is_over = time.perf_counter(), False
    live = state.source if isinstance(state.source, LiveVideo) else None
    time_of = time_of or state.source.time
    with (
        writer,
        tqdm(
            total=total, initial=num_before, unit=" frames", disable=is_quiet, smoothing=0.05
        ) as bar,
        _stopped_by_signals() as stop,
        closing(steps),
    ):
        memory_bar = _MemoryBar(bar, predictor, state, live)
        while most is None or num_before + num_new < most:
            step = next(steps, None)
            if step is None:
                is_over = True
                break
            scores = (
                predictor.scores(state, step[0]) if step[1] else None
            )  # no logits without objects
            writer.write(*step, scores=scores, time=time_of(step[0]))
            num_new += 1
            memory_bar.update()
            if stop.is_set():
                break
        if not is_over and num_new and save is not None:
            writer.flush()
            predictor.save_state(state, save)
        was_stopped = stop.is_set() and not is_over and num_before + num_new != total
    seconds = time.perf_counter() - began
    return Written(num_new, seconds, is_over, was_stopped, writer.last_frame_idx)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Let Ctrl-C or SIGTERM end the pass between two frames; a second one ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(*_: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()


class _MemoryBar:
    """The progress bar, with memory and dropped frames once a second."""

    def __init__(
        self, bar: Any, predictor: LongVideoPredictor, state: State, live: LiveVideo | None
    ):
        self._bar, self._predictor, self._state, self._live = bar, predictor, state, live
        self._shown_at = 0.0

    def update(self) -> None:
        self._bar.update()
        if self._bar.disable or time.monotonic() - self._shown_at < 1:
            return
        self._shown_at = time.monotonic()
        held = sum(self._predictor.memory_usage(self._state)["total"].values())
        shown = {"state": f"{held / 1e6:.0f} MB"}
        resident = _resident_bytes()
        if resident:
            shown["process"] = f"{resident / 1e6:.0f} MB"
        if self._live is not None:
            shown["dropped"] = str(self._live.num_dropped)
        self._bar.set_postfix(shown, refresh=False)


def _resident_bytes() -> int | None:
    """Memory of this process; None if the system does not tell."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
