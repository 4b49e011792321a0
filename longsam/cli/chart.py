"""Areas and scores over time, with prompts and the spans to look at."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longsam.cli.times import clock
from longsam.masks import Span
from longsam.masks.drawing import colour_of
from longsam.masks.ids import ObjectId
from longsam.masks.record import ImageArray
from longsam.masks.reviews.history import History

MOST_POINTS = 4000
"""Points of a line: the chart has no more pixels than that."""

_NAMES = ("area, % of the frame", "object score", "predicted IoU")

MOST_OBJECTS = 60
"""At most this many lines, of the objects with the most frames."""

Floats = npt.NDArray[np.float64]


def draw_chart(
    objects: dict[ObjectId, History],
    spans: Iterable[Span],
    prompted: Sequence[int],
    size: tuple[int, int],
    width: int,
) -> ImageArray:
    """A chart as an image.

    Args:
        objects: The history of each object.
        spans: The spans to shade.
        prompted: Frames with prompts.
        size: Height and width of the frames.
        width: The width of the image, in pixels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Contact sheets need matplotlib: `pip install matplotlib`.") from error
    most = sorted(objects, key=lambda obj_id: -len(objects[obj_id]))[:MOST_OBJECTS]
    shown = [(at, obj_id) for at, obj_id in enumerate(objects) if obj_id in set(most)]
    has_scores = any(not np.isnan(objects[obj_id].scores).all() for obj_id in most)
    heights = [3.0, 1.6, 1.6] if has_scores else [3.0]
    figure = Figure(figsize=(width / 100, sum(heights) + 0.5), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    to_x, is_time = _x_of(objects)
    by_object: dict[ObjectId, list[Span]] = {}
    for span in spans:
        by_object.setdefault(span.obj_id, []).append(span)
    for position, obj_id in shown:
        history, colour = objects[obj_id], np.array(colour_of(obj_id, position)) / 255
        at = slice(None, None, max(1, len(history) // MOST_POINTS))
        x = to_x(history.frames[at])
        values = (100 * history.areas / (size[0] * size[1]), history.scores, history.ious)
        for axes, column in zip(rows, values, strict=False):
            axes.plot(x, column[at], label=label(obj_id), color=colour, linewidth=1)
            _shade(axes, by_object.get(obj_id, []), to_x, colour)
    for axes, name in zip(rows, _NAMES, strict=False):
        axes.set_ylabel(name)
        axes.set_facecolor("0.25")
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
        marks = to_x(np.unique(np.array(prompted, np.int64)))
        axes.plot(marks, np.full(len(marks), 0.02), "w^", transform=axes.get_xaxis_transform())
    rows[0].set_ylim(0, None)
    rows[0].set_title("shaded: look here (longsam review); triangles: prompts", fontsize=9)
    rows[-1].set_xlabel("time" if is_time else "frame")
    if is_time:
        rows[-1].xaxis.set_major_formatter(lambda seconds, _: clock(max(0, seconds)))
    if 0 < len(objects) <= 20:
        rows[0].legend(
            title="object", fontsize=8, loc="upper right", facecolor="0.25", labelcolor="w"
        ).get_title().set_color("w")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def label(obj_id: Any) -> str:
    """An id that matplotlib draws as plain text: no formula, not hidden, and not too long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(obj_id)[:40])
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _x_of(objects: dict[ObjectId, History]) -> tuple[Any, bool]:
    """The x axis: frames' times if they are known, else their numbers."""
    known = [
        (history.frames[there], history.times[there])
        for history in objects.values()
        if (there := ~np.isnan(history.times)).any()
    ]
    if not known:
        return (lambda frames: np.asarray(frames, np.float64)), False
    frames, at = np.unique(np.concatenate([one for one, _ in known]), return_index=True)
    seconds = np.concatenate([times for _, times in known])[at]
    return (lambda wanted: np.interp(wanted, frames, seconds)), True


def _shade(axes: Any, spans: list[Span], to_x: Any, colour: Floats) -> None:
    """Shade the spans of an object, in one collection, as there may be thousands."""
    if not spans:
        return
    starts = to_x(np.array([span.start for span in spans]))
    stops = to_x(np.array([span.stop + 1 for span in spans]))
    ranges = list(zip(starts, np.maximum(stops - starts, 0), strict=True))
    axes.broken_barh(
        ranges,
        (0, 1),
        transform=axes.get_xaxis_transform(),
        color=colour,
        alpha=0.25,
        linewidth=0.5,
    )
