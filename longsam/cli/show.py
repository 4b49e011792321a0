"""`longsam show`: a contact sheet of hours, on one page."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longsam.frames import FrameSource, open_source
from longsam.masks import MaskFolder
from longsam.masks.overlay import colour_of, draw
from longsam.masks.record import ImageArray, Record

TILE_WIDTH = 320
COLUMNS = 5


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "show",
        help="draw a contact sheet of the masks in a folder",
        description="Draw a contact sheet: every n-th frame with its masks, and the area of each "
        "object over time. A mask that drifts shows at a glance.",
    )
    parser.add_argument("folder", type=Path, help="where `longsam track` has written")
    parser.add_argument("--video", help="the video, if it is not where it was (that of the run)")
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
    every = options.every or max(1, -(-len(folder) // 25))
    video = _open_video(options.video or folder.video)
    tiles = [(i, _tile(folder, i, video)) for i in folder.frames[::every]]
    _draw_sheet(folder, tiles, path)
    print(f"{path}: {len(tiles)} of {len(folder)} frames, {len(folder.all_obj_ids())} object(s)")
    return 0


def _open_video(video: str | None) -> FrameSource | None:
    if video is None:
        return None
    try:
        return open_source(video, None)
    except (OSError, ValueError):
        print(f"{video} cannot be opened: masks are shown without their frames (--video FILE).")
        return None


def _tile(folder: MaskFolder, frame_idx: int, video: FrameSource | None) -> ImageArray:
    _, obj_ids, masks = folder.read(frame_idx)
    image: ImageArray = np.full((*folder.size, 3), 40, np.uint8)
    if video is not None:
        (image,) = video.read(frame_idx, frame_idx + 1)
    drawn = draw(image, Record(frame_idx, obj_ids, torch.from_numpy(masks).float()))
    small = Image.fromarray(drawn)
    small.thumbnail((TILE_WIDTH, TILE_WIDTH))
    return np.asarray(small)


def _draw_sheet(folder: MaskFolder, tiles: list[tuple[int, ImageArray]], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Contact sheets need matplotlib: `pip install matplotlib`.") from error
    rows = -(-len(tiles) // COLUMNS)
    tile_height = 2.6 * folder.size[0] / folder.size[1] + 0.3
    figure = Figure(figsize=(13, rows * tile_height + 3.2), layout="constrained")
    grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=[tile_height] * rows + [3.0])
    for place, (frame_idx, image) in enumerate(tiles):
        axes = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
        axes.imshow(image)
        axes.set_title(f"frame {frame_idx}", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[rows, :])
    areas: dict[Any, dict[int, float]] = {obj_id: {} for obj_id in folder.all_obj_ids()}
    step = max(1, len(folder) // 4000)  # more than the plot has pixels says no more
    for frame_idx in folder.frames[::step]:
        for obj_id, area in zip(folder.obj_ids(frame_idx), folder.areas(frame_idx), strict=True):
            areas[obj_id][frame_idx] = 100 * area / (folder.size[0] * folder.size[1])
    for position, (obj_id, by_frame) in enumerate(areas.items()):
        colour = colour_of(obj_id, position) / 255
        axes.plot(list(by_frame), list(by_frame.values()), label=str(obj_id), color=colour)
    axes.set(xlabel="frame", ylabel="area, % of the frame", ylim=(0, None))
    axes.grid(alpha=0.3)
    if len(areas) <= 20:
        axes.legend(title="object", fontsize=8, loc="upper right")
    figure.savefig(path, dpi=100)
