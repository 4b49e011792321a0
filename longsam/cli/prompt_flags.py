"""Prompts given by flags, and by a JSON file."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longsam.masks.ids import ObjectId
from longsam.prompts import Prompt, checked_entry, from_entry, numbered


def add_flags(parser: Any) -> None:
    """The flags that say where objects are."""
    where = parser.add_argument_group("where the objects are, in pixels of the video")
    kinds = (
        ("--point", point, "X,Y[@FRAME][:OBJECT]", "on the object"),
        ("--not-point", not_point, "X,Y[@FRAME]:OBJECT", "beside the object"),
        ("--box", box, "X0,Y0,X1,Y1[@FRAME][:OBJECT]", "left, top, right, bottom"),
        (
            "--mask", mask, "FILE[@FRAME][:OBJECT]",
            "an image of the frame's size, black outside the object; an indexed PNG with "
            "several numbers is one object for each",
        ),
    )  # fmt: skip
    for flag, parse, metavar, what in kinds:
        where.add_argument(
            flag, action="append", dest="prompt", default=[], type=parse, metavar=metavar,
            help=f"{what}; may be repeated (none; FRAME: 0; OBJECT: a new one)",
        )  # fmt: skip
    where.add_argument(
        "--prompts", type=Path, metavar="FILE.json",
        help='a list of {"frame": 0, "object": 1, "points": [[x, y]], "labels": [1], '
        '"box": [x0, y0, x1, y1], "mask": "file.png"} (none)',
    )  # fmt: skip


def given(options: argparse.Namespace) -> dict[tuple[ObjectId, int], list[Prompt]]:
    """The prompts of all flags.

    Raises:
        ValueError: There are none, or one cannot be used.
    """
    prompts = options.prompt + (from_json(options.prompts) if options.prompts else [])
    if not prompts:
        more = ", or let it find them: --everything" if "everything" in options else ""
        raise ValueError(f"no object was named: give --point, --box, --mask or --prompts{more}.")
    return numbered(prompts)


def point(text: str) -> Prompt:
    """Parse `X,Y[@FRAME][:OBJECT]`."""
    return _parse("point", text, _numbers(2))


def not_point(text: str) -> Prompt:
    """Parse `X,Y[@FRAME]:OBJECT`."""
    prompt = _parse("not-point", text, _numbers(2))
    if prompt.obj_id is None:
        raise argparse.ArgumentTypeError(f"{text!r} must name its object: X,Y[@FRAME]:OBJECT")
    return prompt


def box(text: str) -> Prompt:
    """Parse `X0,Y0,X1,Y1[@FRAME][:OBJECT]`."""
    return _parse("box", text, _numbers(4))


def mask(text: str) -> Prompt:
    """Parse `FILE[@FRAME][:OBJECT]`."""
    return _parse("mask", text, Path)


def from_json(path: Path) -> list[Prompt]:
    """Read a list of {"frame", "object", "points", "labels", "box", "mask"}.

    Raises:
        ValueError: The file is not of this form.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # numbers of too many digits are ValueErrors, too
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of prompts, [{{...}}, ...].")
    prompts = []
    for number, entry in enumerate(entries):
        try:
            prompts += from_entry(checked_entry(entry), path.parent)
        except ValueError as error:
            raise ValueError(
                f"{path}, prompt {number}: {error}. A prompt looks like "
                '{"frame": 0, "object": 1, "points": [[x, y]], "labels": [1]}, with "box": '
                '[x0, y0, x1, y1] or "mask": "file.png" instead of points, or besides.'
            ) from error
    return prompts


def object_id(text: str) -> ObjectId:
    """A whole number if the text is one, else the text."""
    return int(text) if re.fullmatch(r"\d+", text) else text


def _parse(kind: str, text: str, value: Callable[[str], Any]) -> Prompt:
    match = re.fullmatch(r"(?P<value>.+?)(@(?P<frame>\d+))?(:(?P<object>[^:,@/\\]+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be read")
    name = match["object"]
    return Prompt(kind, value(match["value"]), int(match["frame"] or 0), name and object_id(name))


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    def parse(text: str) -> tuple[float, ...]:
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != count:
            names = "X,Y" if count == 2 else "X0,Y0,X1,Y1"
            raise argparse.ArgumentTypeError(f"{text!r} must be {names} in pixels")
        return numbers

    return parse
