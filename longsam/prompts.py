"""Prompts as plain values: from files and tables of others, checked, and given to the predictor."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longsam import LongVideoPredictor, State
from longsam.frames import IMAGE_FORMATS, FrameSource
from longsam.masks.ids import ObjectId, check_obj_id
from longsam.masks.lines import MAX_PIXELS

MAX_GREY_LABEL = 64
"""Grey values up to this one number objects; a mask with soft edges goes up to 255."""

_KEYS = {"frame", "object", "points", "labels", "box", "mask"}


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


Grouped = Mapping[tuple[ObjectId, int], list[Prompt]]
"""Prompts by object and frame."""


def checked_entry(entry: Any) -> dict[str, Any]:
    """An entry of a list of prompts, with its defaults, without what is None (tables have that).

    Args:
        entry: {"frame": 0, "object": 1, "points": [[x, y]], "labels": [1], "box": [x0, y0, x1, y1],
            "mask": "file.png"}; "object" and at least one of points, box and mask are needed.

    Raises:
        ValueError: It has another form.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"the prompt {entry!r} is not an object in braces")
    given = {name: value for name, value in entry.items() if value is not None}
    if not given.keys() <= _KEYS:
        raise ValueError(f"unknown keys {sorted(given.keys() - _KEYS, key=str)}")
    obj_id, frame_idx = given.get("object"), given.get("frame", 0)
    if isinstance(obj_id, bool) or not isinstance(obj_id, (int, str)):
        raise ValueError(f'"object" is {obj_id!r}; it must be a whole number or text')
    if isinstance(frame_idx, float) and frame_idx.is_integer():  # in tables with gaps
        frame_idx = int(frame_idx)
    if isinstance(frame_idx, bool) or not isinstance(frame_idx, int) or frame_idx < 0:
        raise ValueError(f'"frame" is {frame_idx!r}; it must be a whole number of 0 or more')
    checked: dict[str, Any] = {"frame": frame_idx, "object": obj_id}
    if "points" in given:
        checked["points"] = [_numbers("points", xy, 2) for xy in _listed(given, "points")]
        checked["labels"] = _labels_of(given, len(checked["points"]))
    elif len(_listed(given, "labels")) > 0:
        raise ValueError('there are "labels" without "points"')
    if "box" in given:
        checked["box"] = _numbers("box", given["box"], 4)
    if "mask" in given:
        if not isinstance(given["mask"], (str, os.PathLike)):
            raise ValueError(f'"mask" is {given["mask"]!r}; it must be the path of an image')
        checked["mask"] = os.fspath(given["mask"])
    if not (checked.get("points") or checked.keys() & {"box", "mask"}):
        raise ValueError(f"the prompt of object {obj_id!r} has no points, no box and no mask")
    return checked


def from_entry(checked: Mapping[str, Any], folder: Path | None = None) -> list[Prompt]:
    """The prompts of an entry that `checked_entry` has given.

    Args:
        checked: The entry.
        folder: What the path of its mask is relative to; None is the working directory.
    """
    where = checked["frame"], checked["object"]
    prompts = [
        Prompt("point" if label else "not-point", tuple(xy), *where)
        for xy, label in zip(checked.get("points", []), checked.get("labels", []), strict=True)
    ]
    if "box" in checked:
        prompts.append(Prompt("box", tuple(checked["box"]), *where))
    if "mask" in checked:
        prompts.append(Prompt("mask", (folder or Path()) / checked["mask"], *where))
    return prompts


def numbered(prompts: list[Prompt]) -> dict[tuple[ObjectId, int], list[Prompt]]:
    """All prompts by object and frame; each prompt without an object gets a new one.

    An image with the numbers of several objects (an indexed PNG, or grey values up to 64) becomes
    one prompt for each; the objects are those that a PNG of longsam names, else these numbers.

    Raises:
        ValueError: A mask cannot be read, an object has several boxes or masks on a frame, or an
            id cannot be written to a file.
    """
    prompts = [one for prompt in prompts for one in _each_object(prompt)]
    named = {check_obj_id(p.obj_id) for p in prompts if p.obj_id is not None}
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
                "besides other prompts. Give one, or points; another object needs its own name."
            )
    return grouped


def check(grouped: Grouped, source: FrameSource) -> None:
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


def check_inside(grouped: Grouped, height: int, width: int) -> None:
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


def mistakes(grouped: Grouped) -> Iterator[str]:
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
    grouped: Grouped,
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


def _listed(given: Mapping[str, Any], name: str) -> list[Any]:
    values = given.get(name, [])
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f'"{name}" is {values!r}; it must be a list')
    return list(values)


def _labels_of(given: Mapping[str, Any], num_points: int) -> list[int]:
    labels = _listed(given, "labels") if "labels" in given else [1] * num_points
    if len(labels) != num_points or any(label not in (0, 1) for label in labels):
        raise ValueError(
            f'"labels" is {labels!r}; it must be a 1 (on the object) or 0 for each of the '
            f"{num_points} points"
        )
    return [int(label) for label in labels]


def _numbers(name: str, values: Any, count: int) -> list[float]:
    numbers: list[float] = []
    if not isinstance(values, (str, bytes, Mapping)):
        with suppress(TypeError, ValueError, OverflowError):
            numbers = [float(x) for x in values if not isinstance(x, (str, bytes, bool))]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        what = "[x, y]" if count == 2 else "[x0, y0, x1, y1]"
        raise ValueError(f'"{name}" has {values!r}; it must be {what} in pixels')
    return numbers


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
