"""Whether a writer may continue in a folder, and after which frame."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longsam.masks.index import Scan
from longsam.masks.lines import FORMATS


def check_formats(format: str | Iterable[str]) -> tuple[str, ...]:
    """The formats of a new writer.

    Raises:
        ValueError: One is unknown or given twice, or none is given.
    """
    names = (format,) if isinstance(format, str) else tuple(format)
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"format is {name!r}; it must be of {', '.join(FORMATS)}.")
    if not names:
        raise ValueError(f"format is empty; give one or more of {', '.join(FORMATS)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"format is {list(names)}; give each only once.")
    return names


def last_frame_of(state: Any) -> int:
    """The frame of the video that a state's pass tracked last, -1 if there is none.

    Raises:
        ValueError: It is not a state from longsam.
    """
    last = getattr(state, "last_frame_idx", None)
    if not isinstance(last, int):
        raise ValueError(
            f"resume is a {type(state).__name__}; it must be True, False, or a state from "
            "predictor.load_state."
        )
    return last if last < 0 else int(state.source.frames[last])


def check_resume(
    folder: Path, found: Scan, formats: tuple[str, ...], resume: Any, until: int | None
) -> None:
    """Refuse to start if that would destroy existing masks.

    Args:
        folder: Of the masks.
        found: What its index holds.
        formats: Those of the new writer.
        resume: False, True or a state.
        until: The state's last frame.

    Raises:
        FileExistsError: There are masks, and `resume` is False.
        ValueError: The formats differ, or the state does not match the masks.
    """
    header, _, whole, cut = found
    if header is None or not whole.num_records:
        return
    if resume is False:
        raise FileExistsError(
            f"{folder} holds the masks of {whole.num_records} frames. Continue after them with "
            "resume=True, or choose another folder."
        )
    if sorted(header.formats) != sorted(formats):
        raise ValueError(
            f"{folder} was written with the formats {list(header.formats)}, not {list(formats)}; "
            "continue with the same ones."
        )
    if until == -1:
        raise ValueError(
            f"The state of resume= has tracked nothing, but {folder} holds the masks of "
            f"{whole.num_records} frames, which would all be dropped. Choose another folder; or "
            "make the writer with resume=True and call drop_after(-1, keep_aside=True)."
        )
    if until is not None and cut is None:
        raise ValueError(f"{folder} holds no masks of frame {until}.")
