"""`longsam show`: a contact sheet of hours, on one page."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longsam.frames import FrameSource, open_source
from longsam.masks import MaskFolder
from longsam.masks.drawing import colour_of, draw
from longsam.masks.files import check_not_link
from longsam.masks.record import ImageArray

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
    if options.out is None:
        check_not_link(path)  # which whoever made the folder may have put there
    every = options.every or max(1, -(-len(folder) // 25))
    video = _open_video(options.video, folder)
    tiles = [(i, _tile(folder, i, video)) for i in folder.frames[::every]]
    _draw_sheet(folder, tiles, path)
    print(f"{path}: {len(tiles)} of {len(folder)} frames, {len(folder.all_obj_ids())} object(s)")
    return 0


def _open_video(given: str | None, folder: MaskFolder) -> FrameSource | None:
    """The video that the user names, or the one that the folder names, if that is harmless."""
    name = given if given is not None else folder.video
    if name is None:
        return None
    try:
        # Anybody may have written the folder: what it names is opened only if it is a file here.
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
    """Whether it is a file or a folder on this machine, by nothing but its name and kind."""
    is_elsewhere = "://" in name or name.startswith(("//", "\\\\"))
    return not is_elsewhere and (os.path.isfile(name) or os.path.isdir(name))


def _tile(folder: MaskFolder, frame_idx: int, video: FrameSource | None) -> ImageArray:
    _, obj_ids, masks = folder.read(frame_idx)
    every = max(1, max(folder.size) // (2 * TILE_WIDTH))  # smaller first: a sheet needs no more
    masks = masks[:, ::every, ::every]
    image: ImageArray = np.full((*masks.shape[1:], 3), 40, np.uint8)
    if video is not None:
        (frame,) = video.read(frame_idx, frame_idx + 1)
        image = np.ascontiguousarray(frame[::every, ::every])
    drawn = draw(image, obj_ids, masks)
    small = Image.fromarray(drawn)
    small.thumbnail((TILE_WIDTH, TILE_WIDTH))
    return np.asarray(small)


def _draw_sheet(folder: MaskFolder, tiles: list[tuple[int, ImageArray]], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Contact sheets need matplotlib: `pip install matplotlib`.") from error
    rows = -(-len(tiles) // COLUMNS)
    tile_height = 2.6 * min(4, folder.size[0] / folder.size[1]) + 0.3
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
        colour = np.array(colour_of(obj_id, position)) / 255
        axes.plot(list(by_frame), list(by_frame.values()), label=_label(obj_id), color=colour)
    axes.set(xlabel="frame", ylabel="area, % of the frame", ylim=(0, None))
    axes.grid(alpha=0.3)
    if len(areas) <= 20:
        axes.legend(title="object", fontsize=8, loc="upper right")
    figure.savefig(path, dpi=100)


def _label(obj_id: Any) -> str:
    """An id as matplotlib draws it: no formula, not left out, and not of any length."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(obj_id)[:40])
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")
