"""`longsam evaluate`: J&F on real videos with known masks, for each memory policy."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from longsam.cli import model
from longsam.policies import POLICIES
from longsam.testing import ObjectScore, davis_videos, evaluate

MEMORY = ("none", *POLICIES)

DESCRIPTION = """\
Track the objects of videos with known masks, from their first mask, and print J&F.

FOLDER is laid out like DAVIS, MOSE, LVOS, YouTube-VOS or SA-V: JPEGImages/VIDEO/00000.jpg and
Annotations/VIDEO/00000.png. Masks and scores are kept in --out; the same command again continues
where it was stopped.
"""

EPILOG = """\
examples:
  longsam evaluate DAVIS --checkpoint sam2.1_hiera_tiny.pt --videos DAVIS/ImageSets/2017/val.txt
  longsam evaluate DAVIS --checkpoint sam2.1_hiera_tiny.pt --memory none,samurai,dam4sam \\
      --videos bear,bees --out compared
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="J&F on videos with known masks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds JPEGImages and Annotations")
    parser.add_argument(
        "--memory", type=_memory, default=["none"], metavar="NAMES",
        help=f"memory policies, with commas, of {', '.join(MEMORY)}; none is SAM 2's rule (none)",
    )  # fmt: skip
    parser.add_argument(
        "--videos", metavar="NAMES|FILE.txt",
        help="names with commas, or a file with one name per line (all with annotations)",
    )  # fmt: skip
    parser.add_argument(
        "--images", metavar="NAME",
        help="the folder of frames within FOLDER (JPEGImages/480p, JPEGImages or the only one "
        "like it)",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", metavar="NAME", help="the folder of masks within FOLDER (likewise)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="where results go (evaluation)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar (off)")
    model.add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    model.check_flags(options)
    where = {
        "videos": _videos(options.videos),
        "images": options.images,
        "annotations": options.annotations,
    }
    total = sum(len(video.images) for video in davis_videos(options.folder, **where))
    predictor = model.load(options)
    dtype = model.dtype_of(options, predictor.device)
    total *= len(options.memory)
    with (
        model.computing_in(dtype, predictor.device),
        tqdm(total=total, unit=" frames", disable=options.quiet) as bar,
    ):

        def progress(memory: str, video: str, num_frames: int) -> None:
            bar.set_description(f"{memory} {video}", refresh=False)
            bar.update(num_frames)

        try:
            scores = evaluate(
                predictor,
                options.folder,
                options.out,
                memory=options.memory,
                progress=progress,
                **where,
            )
        except KeyboardInterrupt:
            bar.close()
            print(f"Stopped. The same command continues with what is in {options.out}.")
            return 130
    _print(scores)
    print(f"{options.out / 'results.json'} has the scores of each object.")
    return 0


def _print(scores: Mapping[str, Sequence[ObjectScore]]) -> None:
    print(f"{'memory':12} {'J&F':>6} {'J':>6} {'F':>6}  objects  videos")
    for memory, of_objects in scores.items():
        if not of_objects:
            print(f"{memory:12} no object is on frames that count")
            continue
        means = [
            100 * np.mean([getattr(one, of) for one in of_objects]) for of in ("j_and_f", "j", "f")
        ]
        values = " ".join(f"{mean:6.2f}" for mean in means)
        num_videos = len({one.video for one in of_objects})
        print(f"{memory:12} {values}  {len(of_objects):7}  {num_videos:6}")


def _memory(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in MEMORY:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(MEMORY)}")
    return names


def _videos(given: str | None) -> list[str] | None:
    if given is None:
        return None
    if not given.endswith(".txt"):
        return given.split(",")
    lines = Path(given).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
