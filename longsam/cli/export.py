"""`longsam export`: the masks of a folder in another tool's format."""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from longsam.masks import MaskFolder, exports
from longsam.masks.exports.target import TABLE

EPILOG = f"""\
formats:
{chr(10).join(f"  {name:12} {says}" for name, says in exports.FORMATS.items())}

example:
  longsam export out --to coco
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write the masks in a folder in another tool's format",
        description="Write masks in the format of another tool, frame by frame, for any number\n"
        "of frames. The new folder is complete or not there at all. Its objects.json says which\n"
        "number stands for which id.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where `longsam track` has written")
    parser.add_argument("--to", choices=exports.FORMATS, required=True, help="the format (needed)")
    parser.add_argument("--out", type=Path, help="the new folder (FOLDER/FORMAT)")
    parser.add_argument(
        "--video", help="the video or folder of images, for the frames' names (that of the run)"
    )
    parser.add_argument(
        "--category", metavar="NAME", help="one category for all objects (each its own)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export (off)")
    parser.add_argument("--quiet", action="store_true", help="show no progress (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    num_frames = len(MaskFolder(options.folder))
    with tqdm(total=num_frames, unit="frame", disable=options.quiet) as bar:
        path = exports.export(
            options.folder,
            options.to,
            options.out,
            video=options.video,
            category=options.category,
            overwrite=options.overwrite,
            progress=lambda done: bar.update(done - bar.n) and None,
        )
    print(f"{path}: {num_frames} frames as {options.to}; ids are in {path / TABLE}")
    return 0
