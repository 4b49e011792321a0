"""Prompts on the command line, and in JSON files."""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longsam import LongVideoPredictor, State
from longsam.frames import IMAGE_FORMATS, FrameSource
from longsam.masks.lines import MAX_PIXELS

ObjectId = int | str

MAX_GREY_LABEL = 64
"""Grey values up to this one number objects; a mask with soft edges goes up to 255."""


@dataclass(frozen=True)
class Prompt:
    """A prompt for one object on one frame.

    Args:
        kind: "point", "not-point", "box" or "mask".
        value: (x, y), (x0, y0, x1, y1), or the path of a mask image.
        frame_idx: The frame.
        obj_id: The object; None starts a new one.
        label: The object's pixel value in a mask image; None is everything that is not black.
    """

    kind: str
    value: Any
    frame_idx: int = 0
    obj_id: ObjectId | None = None
    label: int | None = None


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
            prompts += _from_entry(entry, path.parent)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path}, prompt {number}: {error}. A prompt looks like "
                '{"frame": 0, "object": 1, "points": [[x, y]], "labels": [1]}, with "box": '
                '[x0, y0, x1, y1] or "mask": "file.png" instead of points, or besides.'
            ) from error
    return prompts


def numbered(prompts: list[Prompt]) -> dict[tuple[ObjectId, int], list[Prompt]]:
    """All prompts by object and frame; each prompt without an object gets a new one.

    An image with the numbers of several objects (an indexed PNG, or grey values up to 64) becomes
    one prompt for each; the objects are those that a PNG of longsam names, else these numbers.

    Raises:
        ValueError: A mask cannot be read, or an object has several boxes or masks on a frame.
    """
    prompts = [one for prompt in prompts for one in _each_object(prompt)]
    named = {p.obj_id for p in prompts if p.obj_id is not None}
    free = (number for number in range(1, len(prompts) + len(named) + 1) if number not in named)
    grouped: dict[tuple[ObjectId, int], list[Prompt]] = {}
    for prompt in prompts:
        obj_id = next(free) if prompt.obj_id is None else prompt.obj_id
        grouped.setdefault((obj_id, prompt.frame_idx), []).append(prompt)
    for (obj_id, frame_idx), group in grouped.items():
        boxes, masks = ([p for p in group if p.kind == kind] for kind in ("box", "mask"))
        if len(boxes) > 1 or len(masks) > 1 or (masks and len(group) > 1):
            raise ValueError(
                f"Object {obj_id} has more than one box or mask on frame {frame_idx}, or a mask "
                "besides other prompts. Give one, or points; name other objects by :OBJECT."
            )
    return grouped


def check(grouped: Mapping[tuple[ObjectId, int], list[Prompt]], source: FrameSource) -> None:
    """Refuse what cannot be tracked, before a model is loaded.

    Raises:
        ValueError: A prompt is outside the video or the frame, or a mask has another size.
    """
    for _, frame_idx in grouped:
        if frame_idx >= source.num_frames:
            raise ValueError(
                f"A prompt is on frame {frame_idx}, but {source.name} has {source.num_frames} "
                f"frames: 0 to {source.num_frames - 1}."
            )
    check_inside(grouped, *source.frame_size)


def check_inside(
    grouped: Mapping[tuple[ObjectId, int], list[Prompt]], height: int, width: int
) -> None:
    """Refuse prompts outside the frame, and masks of another size.

    Raises:
        ValueError: There is such a prompt.
    """
    for group in grouped.values():
        for prompt in group:
            if prompt.kind == "mask":
                _check_size(prompt, height, width)
                continue
            numbers = prompt.value
            for x, y in zip(numbers[::2], numbers[1::2], strict=True):
                if not (0 <= x <= width and 0 <= y <= height):
                    raise ValueError(
                        f"({x:g}, {y:g}) is outside the frame, which is {width} pixels wide and "
                        f"{height} high."
                    )


def mistakes(grouped: Mapping[tuple[ObjectId, int], list[Prompt]]) -> Iterator[str]:
    """Prompts that the model accepts but that are probably mistakes."""
    for (obj_id, frame_idx), group in grouped.items():
        where = f"object {obj_id}, frame {frame_idx}"
        for prompt in group:
            if prompt.kind == "box":
                x0, y0, x1, y1 = prompt.value
                if x0 >= x1 or y0 >= y1:
                    ordered = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
                    yield (
                        f"{where}: the box {_plain(prompt.value)} is inverted or empty; the order "
                        f"is left, top, right, bottom: {_plain(ordered)}."
                    )
        if all(prompt.kind == "not-point" for prompt in group):
            yield (
                f"{where}: only points beside the object (--not-point) are given; add a --point "
                "on it, or a box."
            )


def add(
    predictor: LongVideoPredictor,
    state: State,
    grouped: Mapping[tuple[ObjectId, int], list[Prompt]],
) -> Iterator[tuple[ObjectId, tuple[int, list[Any], torch.Tensor]]]:
    """Give checked prompts to a state.

    Yields:
        (object, what the predictor returned: frame index, all object ids, their mask logits).
    """
    for (obj_id, frame_idx), group in grouped.items():
        boxes = [p.value for p in group if p.kind == "box"]
        points = [p.value for p in group if "point" in p.kind]
        masks = [p for p in group if p.kind == "mask"]
        if masks:
            answer = predictor.add_new_mask(state, frame_idx, obj_id, _read_mask(masks[0]))
        else:
            answer = predictor.add_new_points_or_box(
                state,
                frame_idx,
                obj_id,
                points=points or None,
                labels=[int(p.kind == "point") for p in group if "point" in p.kind] or None,
                box=boxes[0] if boxes else None,
            )
        yield obj_id, answer


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


def _from_entry(entry: Any, folder: Path) -> list[Prompt]:
    if not isinstance(entry, dict):
        raise TypeError("it is not an object in braces")
    unknown = set(entry) - {"frame", "object", "points", "labels", "box", "mask"}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    frame_idx, obj_id = int(entry.get("frame", 0)), entry["object"]
    if isinstance(obj_id, bool) or not isinstance(obj_id, (int, str)):
        raise TypeError(f'"object" is {obj_id!r}; it must be a whole number or text')
    points = [tuple(map(float, xy)) for xy in entry.get("points", [])]
    labels = entry.get("labels", [1] * len(points))
    if len(points) != len(labels) or any(len(xy) != 2 for xy in points):
        raise ValueError(f"{len(points)} points [x, y], but {len(labels)} labels")
    prompts = [
        Prompt("point" if label else "not-point", xy, frame_idx, obj_id)
        for xy, label in zip(points, labels, strict=True)
    ]
    if "box" in entry:
        corners = tuple(map(float, entry["box"]))
        if len(corners) != 4:
            raise ValueError('"box" must be [x0, y0, x1, y1]')
        prompts.append(Prompt("box", corners, frame_idx, obj_id))
    if "mask" in entry:
        prompts.append(Prompt("mask", folder / entry["mask"], frame_idx, obj_id))
    if not prompts:
        raise ValueError("there are no points, no box and no mask")
    return prompts


def _each_object(prompt: Prompt) -> list[Prompt]:
    """A prompt for each object of an image of several."""
    if prompt.kind != "mask" or prompt.obj_id is not None:
        return [prompt]
    labels = _labels(prompt.value)
    numbers = [int(number) for number in np.unique(labels) if number]
    with _open(prompt.value) as image:
        is_indexed, told = image.mode == "P", image.info.get("longsam")
    if len(numbers) < 2 or not (is_indexed or max(numbers) <= MAX_GREY_LABEL):
        return [prompt]
    names: dict[int, ObjectId] = {}
    with suppress(ValueError, TypeError, LookupError):  # another program's text chunk of this name
        names = {int(n): obj_id for n, obj_id in json.loads(told or "")["objects"]}
    return [replace(prompt, obj_id=names.get(n, n), label=n) for n in numbers]


def _labels(path: Path) -> Any:
    """The pixels of a mask image: 0 is no object."""
    with _open(path) as image:
        is_plain = image.mode in {"1", "L", "P"} or image.mode.startswith("I")
        return np.asarray(image if is_plain else image.convert("L"))


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """An image that is not trusted: only in the formats we name, and of bounded size."""
    if not os.path.lexists(path):
        raise ValueError(f"There is no mask image at {path}.")
    if not os.path.isfile(path):  # a pipe would block
        raise ValueError(f"The mask {path} is not a file.")
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels; at most {MAX_PIXELS}")
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"The mask {path} cannot be read as an image ({error}).") from error


def _read_mask(prompt: Prompt) -> Any:
    """The pixels of an image that are not black, or that have the object's number."""
    labels = _labels(prompt.value)
    return labels > 0 if prompt.label is None else labels == prompt.label


def _check_size(prompt: Prompt, height: int, width: int) -> None:
    labels = _labels(prompt.value)
    if labels.shape != (height, width):
        raise ValueError(
            f"The mask {prompt.value} is {labels.shape[1]}x{labels.shape[0]} pixels, but the video "
            f"is {width}x{height}."
        )


def _plain(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
