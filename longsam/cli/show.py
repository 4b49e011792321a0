"""`longsam show`: hours of video on one contact sheet."""

import argparse
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from longsam.cli import record
from longsam.cli.chart import draw_chart
from longsam.cli.times import clock
from longsam.frames import FrameSource, open_source
from longsam.masks import MaskFolder, Span
from longsam.masks.drawing import draw
from longsam.masks.files import check_not_link
from longsam.masks.record import ImageArray
from longsam.masks.reviews.history import histories
from longsam.masks.reviews.spans import spans_of

TILE_WIDTH = 320
COLUMNS = 5
MOST_FLAGGED = 15
"""At most this many tiles of moments to look at."""

_MARGIN = 8
_TEXT = 16


@dataclass(frozen=True)
class Tile:
    """A frame on the sheet.

    Args:
        frame_idx: The frame.
        span: Why it is there; None for one of every n.
        image: The frame with its masks.
    """

    frame_idx: int
    span: Span | None
    image: ImageArray


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "show",
        help="draw a contact sheet of the masks in a folder",
        description="Draw a contact sheet: first the moments to look at (see "
        "`longsam review`), then every n-th frame with its masks, and the area and scores of each "
        "object over time. It shows at a glance where a mask drifts.",
    )
    parser.add_argument("folder", type=Path, help="where `longsam track` has written")
    parser.add_argument("--video", help="the video, if it has moved (that of the run)")
    parser.add_argument(
        "--every", type=int, metavar="N", help="show every n-th frame (25 frames in all)"
    )
    parser.add_argument("--out", type=Path, help="the image (FOLDER/contact_sheet.png)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.every is not None and options.every < 1:
        raise ValueError(f"--every is {options.every}; it must be at least 1.")
    folder = MaskFolder(options.folder)
    path = options.out or options.folder / "contact_sheet.png"
    if options.out is None:
        check_not_link(path)  # the folder is not trusted
    objects = histories(folder)
    spans = spans_of(folder, objects)
    flagged = _moments(spans)
    rest = max(5, 25 - len(flagged))
    every = options.every or max(1, -(-len(folder) // rest))
    wanted = [*flagged, *((i, None) for i in folder.frames[::every])]
    video = _open_video(options.video, folder)
    images = {i: _tile(folder, i, video) for i in sorted({i for i, _ in wanted})}
    tiles = [Tile(i, span, images[i]) for i, span in wanted]
    width = COLUMNS * TILE_WIDTH + (COLUMNS + 1) * _MARGIN
    chart = draw_chart(objects, spans, _prompted(options.folder), folder.size, width)
    times = _times(folder, [i for i, _ in wanted])
    _sheet(tiles, times, chart).save(path)
    print(
        f"{path}: {len(folder.frames[::every])} of {len(folder)} frames, {len(objects)} object(s); "
        f"{len(spans)} span(s) to look at, {len(flagged)} of them shown first"
    )
    return 0


def _moments(spans: list[Span]) -> list[tuple[int, Span]]:
    """The worst frames of the surest spans, each frame once."""
    moments: dict[int, Span] = {}
    for span in sorted(spans, key=lambda span: -span.sure):
        moments.setdefault(span.worst, span)
    return list(moments.items())[:MOST_FLAGGED]


def _prompted(folder: Path) -> list[int]:
    """Frames with prompts, if the run recorded them."""
    with suppress(ValueError, OSError):
        noted = record.read(folder)
        if noted is not None:
            later = [prompt["frame"] for one in noted.corrections for prompt in one]
            return sorted({*noted.prompted_frames, *map(int, later)})
    return []


def _times(folder: MaskFolder, frames: list[int]) -> dict[int, float | None]:
    return {line.frame_idx: line.time for line in folder.lines(sorted(set(frames)))}


def _open_video(given: str | None, folder: MaskFolder) -> FrameSource | None:
    """The video that the user names, or the one that the folder names if that is safe."""
    name = given if given is not None else folder.video
    if name is None:
        return None
    try:
        # The folder is not trusted: the video is opened only if it is a file or folder here.
        if given is None and not _is_local(name):
            raise ValueError
        video = open_source(name, None)
    except (OSError, ValueError, RuntimeError):
        print(f"{name} cannot be opened: masks are shown without their frames (--video FILE).")
        return None
    if video.frame_size != folder.size:
        print(f"{name} has frames of another size than the masks, which are shown without them.")
        video.close()
        return None
    return video


def _is_local(name: str) -> bool:
    """Whether it is a file or a folder on this machine, without opening it."""
    is_elsewhere = "://" in name or name.startswith(("//", "\\\\"))
    return not is_elsewhere and (os.path.isfile(name) or os.path.isdir(name))


def _tile(folder: MaskFolder, frame_idx: int, video: FrameSource | None) -> ImageArray:
    _, obj_ids, masks = folder.read(frame_idx)
    every = max(1, max(folder.size) // (2 * TILE_WIDTH))  # reduced first: a sheet needs no more
    masks = masks[:, ::every, ::every]
    image: ImageArray = np.full((*masks.shape[1:], 3), 40, np.uint8)
    if video is not None:
        (frame,) = video.read(frame_idx, frame_idx + 1)
        image = np.ascontiguousarray(frame[::every, ::every])
    drawn = draw(image, obj_ids, masks)
    small = Image.fromarray(drawn)
    small.thumbnail((TILE_WIDTH, TILE_WIDTH))
    return np.asarray(small)


def _sheet(tiles: list[Tile], times: dict[int, float | None], chart: ImageArray) -> Image.Image:
    """Tiles in rows, the flagged ones first, and the chart below."""
    flagged = [tile for tile in tiles if tile.span is not None]
    groups = [group for group in (flagged, tiles[len(flagged) :]) if group]
    height = max(tile.image.shape[0] for tile in tiles) if tiles else 0
    row = height + 2 * _TEXT + _MARGIN
    num_rows = sum(-(-len(group) // COLUMNS) for group in groups)
    sheet = Image.new("RGB", (chart.shape[1], num_rows * row + _MARGIN + chart.shape[0]), "white")
    pen = ImageDraw.Draw(sheet)
    top = _MARGIN
    for group in groups:
        for place, tile in enumerate(group):
            x = _MARGIN + place % COLUMNS * (TILE_WIDTH + _MARGIN)
            y = top + place // COLUMNS * row
            seconds = times.get(tile.frame_idx)
            when = "" if seconds is None else f", {clock(seconds)}"
            lines = [f"frame {tile.frame_idx}{when}"]
            if tile.span is not None:
                lines.append(f"{str(tile.span.obj_id)[:20]}: {', '.join(tile.span.reasons)}")
            colour = "black" if tile.span is None else "#b00000"
            for number, line in enumerate(lines):
                text = "".join(letter if letter.isprintable() else "?" for letter in line)
                text = text.encode(errors="replace").decode()
                pen.text((x, y + number * _TEXT), _cut(pen, text), colour, font_size=12)
            sheet.paste(Image.fromarray(tile.image), (x, y + 2 * _TEXT))
        top += -(-len(group) // COLUMNS) * row
    sheet.paste(Image.fromarray(chart), (0, top))
    return sheet


def _cut(pen: ImageDraw.ImageDraw, text: str) -> str:
    """As much of a text as fits above a tile."""
    while text and pen.textlength(text, font_size=12) > TILE_WIDTH:
        text = text[:-1]
    return text
