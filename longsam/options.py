"""Options that belong together, each checked once and saved as it is."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from longsam.frames import Reader

if TYPE_CHECKING:
    from longsam.policies import MemoryPolicy

Corrections = Literal["memory", "condition"]

FRAMES_PER_CHUNK = 32
"""Default read-ahead: 96 MiB of uint8 frames at 1024 x 1024."""


@dataclass(frozen=True)
class Snapshots:
    """What a session keeps on disk for `rewind`.

    A snapshot is taken at the start of each pass and then every `every` frames; where passes are
    advanced in turn, or prompts change between frames, also at each change. It holds what tracking
    reads to continue from there: at 1024 x 1024 about 4 MiB an object with the released models, and
    0.75 MiB more for each frame with prompts.

    Args:
        every: Frames from one snapshot to the next. `rewind` tracks up to this many frames again.
        folder: Where this session, and no other, keeps them; snapshots left there by others are
            removed. A session that is saved and loaded finds its own again. None is a temporary
            folder that is removed with the session.
        max_bytes: How much disk they may take; beyond it every second one is dropped, and then
            those of the oldest passes. None is no limit.

    Raises:
        ValueError: `every` or `max_bytes` is not a whole number above 0.
    """

    every: int = 300
    folder: str | os.PathLike[str] | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        _set(self, "every", _whole("Snapshots(every)", self.every))
        if self.max_bytes is not None:
            _set(self, "max_bytes", _whole("Snapshots(max_bytes)", self.max_bytes))
        if self.folder is not None:
            _set(self, "folder", Path(self.folder))


@dataclass(frozen=True)
class Autosave:
    """Saves of the state while a pass runs, so that a crash loses little.

    The first save comes right after the first frame, so that prompts survive too. A state is saved
    when the caller asks for the next frame, and so has dealt with those before.

    Args:
        path: The file; each save replaces the one before, see `save_state`.
        every: A number of frames, or a timedelta.
        before_save: Called before each save. Give the `flush` of a `MaskWriter`, so that the masks
            of every frame in the save are on disk.

    Raises:
        ValueError: `every` is neither a whole number nor a timedelta, or it is not above 0.
    """

    path: str | os.PathLike[str]
    every: int | timedelta = 500
    before_save: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.every, timedelta):
            if self.every <= timedelta(0):
                raise ValueError(f"Autosave(every) is {self.every!r}; it must be above 0.")
        else:
            _set(
                self, "every", _whole("Autosave(every)", self.every, " of frames, or a timedelta,")
            )
        if not isinstance(self.path, (str, os.PathLike)):
            raise ValueError(f"Autosave(path) is {self.path!r}; it must be the path of a file.")

    def begin(self, save: Callable[[Path], object]) -> "AutosaveRun":
        """Start counting the frames of a pass that `save` can save at any time."""
        return AutosaveRun(self, save)


class AutosaveRun:
    """The saves of one pass."""

    def __init__(self, autosave: Autosave, save: Callable[[Path], object]):
        self._autosave = autosave
        self._save = save
        self._num_steps = 0
        self._num_saved = 0  # of these steps
        self._interval_began = self._now()

    def step_done(self) -> None:
        """The caller is done with a frame: save if it was the first, or if it is time."""
        self._num_steps += 1
        every = self._autosave.every
        interval = every.total_seconds() if isinstance(every, timedelta) else every
        is_due = self._now() - self._interval_began >= interval
        if is_due or self._num_steps == 1:
            self._save_now()
        if is_due:
            self._interval_began = self._now()

    def finish(self) -> None:
        """The pass is over: save once more, unless its last frame is saved."""
        if self._num_steps > self._num_saved:
            self._save_now()

    def _save_now(self) -> None:
        if self._autosave.before_save is not None:
            self._autosave.before_save()
        self._save(Path(self._autosave.path))
        self._num_saved = self._num_steps

    def _now(self) -> float:
        by_time = isinstance(self._autosave.every, timedelta)
        return time.monotonic() if by_time else self._num_steps


@dataclass(frozen=True)
class Options:
    """The options of `init_state`; see there.

    Raises:
        ValueError: An option has a wrong value.
    """

    offload_video_to_cpu: bool = False
    offload_state_to_cpu: bool = False
    async_loading_frames: bool = False
    memory_window: int | None = None
    frames_per_chunk: int = FRAMES_PER_CHUNK
    reader: Reader = "av"
    max_prompt_frames: int | None = None
    snapshots: Snapshots | None = None
    batch_objects: bool | int = False
    frames: slice | None = None
    corrections: Corrections = "memory"
    memory_policy: "MemoryPolicy | None" = None

    def __post_init__(self) -> None:
        for name in ("offload_video_to_cpu", "offload_state_to_cpu", "async_loading_frames"):
            _set(self, name, bool(getattr(self, name)))  # upstream takes any true value
        _set(self, "frames_per_chunk", _whole("frames_per_chunk", self.frames_per_chunk))
        for name, of_none in (
            (
                "memory_window",
                "The released models need 15 to track exactly as upstream; None means 31, with "
                "which recent frames can be corrected exactly too.",
            ),
            ("max_prompt_frames", "None keeps all."),
        ):
            number = getattr(self, name)
            if number is not None:
                _set(self, name, _whole(name, number, ",", of_none))
        if isinstance(self.batch_objects, bool):
            pass
        elif isinstance(self.batch_objects, Integral) and self.batch_objects >= 1:
            _set(self, "batch_objects", int(self.batch_objects))
        else:
            raise ValueError(
                f"batch_objects is {self.batch_objects!r}; it must be True, False, or how many "
                "objects a batch may have at most."
            )
        if self.corrections not in get_args(Corrections):
            raise ValueError(
                f'corrections is {self.corrections!r}; it must be "memory" or "condition".'
            )
        if self.frames is not None:
            _set(self, "frames", _slice(self.frames))
        if self.snapshots is not None and not isinstance(self.snapshots, Snapshots):
            raise ValueError(
                f"snapshots is {self.snapshots!r}; it must be longsam.Snapshots(every=...) or None."
            )

    def to_plain(self) -> dict[str, Any]:
        """To be saved. Leaves out the snapshots' folder: a file from others must not choose it."""
        plain = asdict(replace(self, memory_policy=None))
        if self.memory_policy is not None:
            plain["memory_policy"] = {
                "name": self.memory_policy.name,
                "options": dict(self.memory_policy.options()),
            }
        if self.frames is not None:
            plain["frames"] = [self.frames.start, self.frames.stop, self.frames.step]
        if self.snapshots is not None:
            plain["snapshots"] = {
                "every": self.snapshots.every,
                "max_bytes": self.snapshots.max_bytes,
            }
        return plain

    def given(self) -> dict[str, Any]:
        """As keywords of `init_state`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_plain(
        cls,
        saved: dict[str, Any],
        snapshots_folder: str | os.PathLike[str] | None,
        memory_policy: "MemoryPolicy | None" = None,
    ) -> "Options":
        """What was saved, with snapshots in a folder that the caller trusts, and a policy.

        Raises:
            LookupError: There is an unknown option.
            TypeError: An option has a value of another type.
            ValueError: An option has a wrong value.
        """
        unknown = set(saved) - {field.name for field in fields(cls)}
        if unknown:
            raise LookupError(f"unknown options {sorted(unknown)}")
        snapshots = saved.get("snapshots")
        if snapshots is None and snapshots_folder is not None:
            raise ValueError("the session keeps no snapshots, so there is no folder to give")
        frames = saved.get("frames")
        if not (frames is None or (isinstance(frames, (list, tuple)) and len(frames) == 3)):
            raise TypeError(f"the option frames={frames!r}")
        given = {
            **saved,
            "memory_policy": memory_policy,
            "frames": None if frames is None else slice(*frames),
            "snapshots": None
            if snapshots is None
            else Snapshots(
                snapshots["every"], folder=snapshots_folder, max_bytes=snapshots["max_bytes"]
            ),
        }
        for name, value in given.items():
            if name not in {"snapshots", "frames", "memory_policy"} and not isinstance(
                value, (bool, int, str, type(None))
            ):
                raise TypeError(f"the option {name}={value!r}")
        return cls(**given)


def _whole(name: str, number: Any, also: str = ",", then: str = "") -> int:
    """A whole number above 0; NumPy's types are accepted too."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(
            f"{name} is {number!r}; it must be a whole number{also} at least 1. {then}".rstrip()
        )
    return int(number)


def _slice(frames: Any) -> slice:
    """A slice of whole numbers, with a positive step."""
    parts = (frames.start, frames.stop, frames.step) if isinstance(frames, slice) else (-1,)
    if (
        any(
            part is not None
            and (isinstance(part, bool) or not isinstance(part, Integral) or part < 0)
            for part in parts
        )
        or parts[-1] == 0
    ):
        raise ValueError(
            f"frames is {frames!r}; it must be slice(start, stop, step), of numbers from 0 on or "
            "None. To track towards frame 0 use reverse=True."
        )
    return slice(*(None if part is None else int(part) for part in parts))


def _set(options: Any, name: str, value: Any) -> None:
    object.__setattr__(options, name, value)  # as frozen dataclasses do themselves
