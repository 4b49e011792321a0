"""The bar that upstream's passes draw."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from longsam._installed_sam2 import sam2_video_predictor

_draws_bar: ContextVar[bool] = ContextVar("longsam_draws_bar", default=True)


def _bar(frames: Iterable[int], **options: Any) -> Iterable[int]:
    return tqdm(frames, **options) if _draws_bar.get() else frames


sam2_video_predictor.tqdm = _bar
"""`propagate_in_video` draws a bar (line 583) and has no argument for it. Replaced for good with
one that draws the same bar unless the context says otherwise."""


@contextmanager
def progress_bar(*, is_drawn: bool) -> Iterator[None]:
    """Whether a pass that begins in this context draws upstream's bar."""
    token = _draws_bar.set(is_drawn)
    try:
        yield
    finally:
        _draws_bar.reset(token)
