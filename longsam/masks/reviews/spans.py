"""review: the spans of frames that a person should look at."""

import os
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from longsam.masks.ids import ObjectId
from longsam.masks.reader import MaskFolder
from longsam.masks.reviews.history import Floats, History, histories
from longsam.masks.reviews.pairs import Sharing
from longsam.masks.reviews.signs import of_object

WEIGHTS = MappingProxyType(
    {
        "larger": 1.4,
        "smaller": 1.3,
        "low predicted IoU": 1.0,
        "low object score": 0.5,
        "empty though score high": 2.4,
        "scattered": 0.6,
        "vanished inside the frame": 1.0,
        "jumped": 0.1,
        "same mask as another": 0.7,
        "another fits it better": 1.6,
        "fits better than another": -1.4,
    }
)
"""How much each sign adds to the log odds that the mask is wrong, from a logistic regression on
generated hard videos tracked with the testing model (tests/benchmarks/review.py)."""

BASE = -1.9
"""Log odds without any sign."""

LEAST_SURE = 0.61
"""A frame at least this likely to be wrong belongs to a span."""

_GAP = 2
"""A gap of this many frames does not end a span."""


@dataclass(frozen=True)
class Span:
    """Frames on which an object's mask may be wrong.

    Args:
        obj_id: The object.
        start: The first frame.
        stop: The last frame, inclusive.
        worst: The frame that is most likely wrong.
        reasons: Why it may be wrong, strongest reason first.
        sure: How likely the worst frame is wrong, 0 to 1; see `WEIGHTS`.
        times: Times of the first and the last frame in seconds; None if not known.
    """

    obj_id: ObjectId
    start: int
    stop: int
    worst: int
    reasons: tuple[str, ...]
    sure: float
    times: tuple[float, float] | None = None


def review(
    folder: str | os.PathLike[str] | MaskFolder, *, least_sure: float = LEAST_SURE
) -> list[Span]:
    """Find where masks may be wrong, without the video or a model.

    Each object is compared with its own history: the area and shape on its first ten frames with a
    mask, and its usual scores (their 0.9 quantile). Signs are:

    - "larger", "smaller": the area is more than 1.16 or less than 0.6 times the first, and counts
      fully from 1.8 and 0.22 times.
    - "low predicted IoU", "low object score": less than 0.85 and 0.7 of the usual; fully from 0.4
      and 0.1. Without scores in the folder these are missing, and less is found.
    - "empty though score high": no mask, but an object score only just below 0.
    - "scattered": the mask fills less of its box than 0.85 of the first share; it may be in parts.
    - "vanished inside the frame": no mask, and the last one before did not touch the border.
    - "jumped": it moved further in one step than ever before. Alone it is not enough.
    - "same mask as object 2": the IoU of two objects' masks is above 0.2, fully from 0.6. It counts
      more against the object whose area fits its own history less, which is probably the one that
      lost its identity.

    Args:
        folder: A `MaskWriter`'s folder. It need not be trusted.
        least_sure: How likely a frame must be wrong to be in a span, 0 to 1.

    Returns:
        The spans, in the order of their first frames.

    Raises:
        FileNotFoundError: The folder holds no masks.
        ValueError: They are damaged, or `least_sure` is not from 0 to 1.
    """
    if not 0 < least_sure < 1:
        raise ValueError(f"least_sure is {least_sure}; it must be above 0 and below 1.")
    masks = folder if isinstance(folder, MaskFolder) else MaskFolder(folder)
    return spans_of(masks, histories(masks), least_sure)


def spans_of(
    folder: MaskFolder, objects: dict[ObjectId, History], least_sure: float = LEAST_SURE
) -> list[Span]:
    """As `review`, for histories already read."""
    ids = list(objects)
    sharing = Sharing(folder, objects)
    least = float(np.log(least_sure / (1 - least_sure)))
    spans: list[Span] = []
    for number, (obj_id, history) in enumerate(objects.items()):
        signs = {**of_object(history, folder.size), **sharing.signs(number)}
        odds = np.full(len(history), BASE)
        for name, sign in signs.items():
            odds += WEIGHTS[name] * sign
        for start, stop in _runs(odds >= least):
            worst = start + int(np.argmax(odds[start:stop]))
            other = int(sharing.others[number][worst])
            reasons = _reasons(signs, slice(start, stop), None if other < 0 else ids[other])
            first, last = float(history.times[start]), float(history.times[stop - 1])
            spans.append(
                Span(
                    obj_id,
                    int(history.frames[start]),
                    int(history.frames[stop - 1]),
                    int(history.frames[worst]),
                    reasons,
                    round(float(1 / (1 + np.exp(-odds[worst]))), 3),
                    None if np.isnan([first, last]).any() else (first, last),
                )
            )
    return sorted(spans, key=lambda span: (span.start, span.stop))


def _runs(flagged: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """From and to (exclusive) of the flagged spans, across short gaps."""
    at = np.flatnonzero(flagged)
    if not len(at):
        return []
    ends = np.flatnonzero(np.diff(at) > _GAP + 1)
    starts, stops = at[np.append(0, ends + 1)], at[np.append(ends, len(at) - 1)] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _reasons(signs: dict[str, Floats], span: slice, other: ObjectId | None) -> tuple[str, ...]:
    """The strongest signs in a span, each at least a third of the first."""
    strength = {name: WEIGHTS[name] * float(sign[span].mean()) for name, sign in signs.items()}
    shared = "same mask as another"
    strength[shared] += max(0.0, strength.pop("another fits it better"))
    del strength["jumped"]  # on a single frame
    names = sorted(strength, key=lambda name: -strength[name])
    kept = [name for name in names if strength[name] >= max(strength.values()) / 3][:3]
    told = [f"same mask as object {other}" if name == shared else name for name in kept]
    return (*told, *(["jumped"] if signs["jumped"][span].any() else []))
