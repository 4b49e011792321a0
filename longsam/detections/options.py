"""The options of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Those of `track_detections`, which says what they mean; a save holds them.

    Raises:
        ValueError: One has a wrong value.
    """

    every: int
    min_score: float
    match_iou: float
    correct_iou: float
    min_hits: int
    retire_after: int
    max_objects: int | None

    def __post_init__(self) -> None:
        for name in ("every", "min_hits", "retire_after"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; it must be a whole number, at least 1.")
        for name in ("min_score", "match_iou", "correct_iou"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share!r}; it must be from 0 to 1.")
            object.__setattr__(self, name, float(share))
        most = self.max_objects
        if most is not None and not (isinstance(most, int) and most >= 1):
            raise ValueError(
                f"max_objects is {most!r}; it must be a whole number, at least 1, or None."
            )
