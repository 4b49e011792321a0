"""The options of a run."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any


@dataclass(frozen=True)
class Options:
    """The options of `track_detections`, documented there; a save holds them.

    Raises:
        ValueError: One has a wrong value.
    """

    detect_every: int
    min_score: float
    match_iou: float
    correct_iou: float
    min_hits: int
    retire_after: int
    max_objects: int | None

    def __post_init__(self) -> None:
        for name in ("detect_every", "min_hits", "retire_after", "max_objects"):
            number = getattr(self, name)
            if name == "max_objects" and number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
                also = ", or None" if name == "max_objects" else ""
                raise ValueError(
                    f"{name} is {number!r}; it must be a whole number, at least 1{also}."
                )
            self._set(name, int(number))
        for name in ("min_score", "match_iou", "correct_iou"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share!r}; it must be from 0 to 1.")
            self._set(name, float(share))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # as a frozen dataclass does itself
