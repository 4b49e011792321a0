"""Prompts as they are written on the command line, and in JSON files."""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longsam import LongVideoPredictor, State

ObjectId = int | str


@dataclass(frozen=True)
class Prompt:
    """What the user says about one object on one frame.

    Args:
        kind: "point", "not-point", "box" or "mask".
        value: (x, y), (x0, y0, x1, y1), or the path of a mask image.
        frame_idx: The frame.
        obj_id: The object; None starts a new one.
    """

    kind: str
    value: Any
    frame_idx: int = 0
    obj_id: ObjectId | None = None


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
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of prompts, [{{...}}, ...].")
    prompts = []
    for number, entry in enumerate(entries):
        try:
            prompts += _from_entry(entry, path.parent)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, prompt {number}: {error}. A prompt looks like "
                '{"frame": 0, "object": 1, "points": [[x, y]], "labels": [1]}, with "box": '
                '[x0, y0, x1, y1] or "mask": "file.png" instead of points, or besides.'
            ) from error
    return prompts


def add(predictor: LongVideoPredictor, state: State, prompts: list[Prompt]) -> list[ObjectId]:
    """Give all prompts to a state; returns the object ids.

    Raises:
        ValueError: A prompt lies outside the video or the frame, or a mask has another size.
    """
    named = {p.obj_id for p in prompts if p.obj_id is not None}
    free = (number for number in range(1, len(prompts) + len(named) + 1) if number not in named)
    grouped: dict[tuple[ObjectId, int], list[Prompt]] = {}
    for prompt in prompts:
        obj_id = next(free) if prompt.obj_id is None else prompt.obj_id
        grouped.setdefault((obj_id, prompt.frame_idx), []).append(prompt)
    height, width = state.source.frame_size
    for (obj_id, frame_idx), group in grouped.items():
        boxes = [p.value for p in group if p.kind == "box"]
        points = [p.value for p in group if "point" in p.kind]
        masks = [p.value for p in group if p.kind == "mask"]
        if len(boxes) > 1 or len(masks) > 1 or (masks and (boxes or points)):
            raise ValueError(
                f"Object {obj_id} has more than one box or mask on frame {frame_idx}, or a mask "
                "beside others. Give one, or points; name other objects by :OBJECT."
            )
        for x, y in points + [corner for b in boxes for corner in (b[:2], b[2:])]:
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(
                    f"({x:g}, {y:g}) is outside the frame, which is {width} pixels wide and "
                    f"{height} high."
                )
        if masks:
            predictor.add_new_mask(state, frame_idx, obj_id, _read_mask(masks[0], height, width))
        else:
            predictor.add_new_points_or_box(
                state,
                frame_idx,
                obj_id,
                points=points or None,
                labels=[int(p.kind == "point") for p in group if "point" in p.kind] or None,
                box=boxes[0] if boxes else None,
            )
    return list(dict.fromkeys(obj_id for obj_id, _ in grouped))


def object_id(text: str) -> ObjectId:
    """A whole number if it is one, else the text."""
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
        raise TypeError("it is no object in braces")
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


def _read_mask(path: Path, height: int, width: int) -> Any:
    """What is not black in an image."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image if image.mode in {"1", "L", "P"} else image.convert("L"))
    except FileNotFoundError:
        raise ValueError(f"There is no mask image at {path}.") from None
    if pixels.shape != (height, width):
        raise ValueError(
            f"The mask {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, but the video is "
            f"{width}x{height}."
        )
    return pixels > 0
