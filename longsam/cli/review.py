"""`longsam review`: where a person should look."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longsam.cli.times import clock
from longsam.masks import Span, review
from longsam.masks.reviews import LEAST_SURE

EPILOG = """\
example:
  longsam review out
  longsam correct out --point 410,220@120:bee
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "review",
        help="list where the masks in a folder may be wrong",
        description="List the spans of frames in which an object's mask may be wrong, the surest\n"
        "first: it is larger, smaller or more scattered than it was, the model was less sure than\n"
        "usual, it vanished inside the frame, or two objects have one mask. `longsam show` draws\n"
        "them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where `longsam track` has written")
    parser.add_argument(
        "--least", type=float, default=LEAST_SURE, metavar="P",
        help=f"how likely a frame must be wrong, 0 to 1 ({LEAST_SURE})",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=int, default=30, metavar="N", help="print at most this many spans (30)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all spans as JSON (not written)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.most < 1:
        raise ValueError(f"--most is {options.most}; it must be at least 1.")
    spans = review(options.folder, least_sure=options.least)
    if options.json is not None:
        content = json.dumps([asdict(span) for span in spans], indent=1)
        options.json.write_text(content + "\n", encoding="ascii")
    for span in sorted(spans, key=lambda span: -span.sure)[: options.most]:
        print(described(span))
    num_frames = sum(span.stop - span.start + 1 for span in spans)
    print(f"{options.folder}: {len(spans)} span(s) to look at, {num_frames:,} frames of objects")
    return 0


def described(span: Span) -> str:
    """A line about a span."""
    frames = f"{span.start}-{span.stop}" if span.stop > span.start else f"{span.start}"
    when = "" if span.times is None else f" ({clock(span.times[0])} to {clock(span.times[1])})"
    obj_id = "".join(letter if letter.isprintable() else "?" for letter in str(span.obj_id)[:40])
    return (
        f"object {obj_id}, frames {frames}{when}: {', '.join(span.reasons)}; look at frame "
        f"{span.worst}, sure {span.sure:.2f}"
    )
