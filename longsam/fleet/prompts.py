"""Prompts of a job as plain values, and giving them to the predictor."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from longsam import LongVideoPredictor, State
from longsam.frames import IMAGE_FORMATS

_KEYS = {"frame", "object", "points", "labels", "box", "mask"}


def check_prompts(prompts: Any) -> tuple[dict[str, Any], ...]:
    """Refuse prompts that cannot be used, before a worker starts.

    Raises:
        ValueError: There are none, one has the wrong form, or two are for the same object and
            frame.
    """
    if not isinstance(prompts, (list, tuple)) or not prompts:
        raise ValueError(f'"prompts" is {prompts!r}; it must be a list with one prompt or more')
    checked = tuple(_checked(prompt) for prompt in prompts)
    places = [(prompt["object"], prompt["frame"]) for prompt in checked]
    for obj_id, frame_idx in places:
        if places.count((obj_id, frame_idx)) > 1:
            raise ValueError(
                f"object {obj_id!r} has two prompts on frame {frame_idx}; join their points"
            )
    return checked


def add_prompts(
    predictor: LongVideoPredictor, state: State, prompts: tuple[dict[str, Any], ...]
) -> None:
    """Give prompts to a fresh state.

    Raises:
        ValueError: One lies outside the video or the frame, or a mask cannot be read.
    """
    height, width = state.source.frame_size
    for prompt in prompts:
        frame_idx, obj_id = prompt["frame"], prompt["object"]
        if "mask" in prompt:
            mask = _read_mask(prompt, (height, width))
            predictor.add_new_mask(state, frame_idx, obj_id, mask)
            continue
        corners = prompt.get("box", [])
        for x, y in (*prompt.get("points", []), *zip(corners[::2], corners[1::2], strict=True)):
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(
                    f"({x:g}, {y:g}) is outside the frame, which is {width} pixels wide and "
                    f"{height} high."
                )
        given = {name: prompt[name] for name in ("points", "labels", "box") if name in prompt}
        predictor.add_new_points_or_box(state, frame_idx, obj_id, **given)


def _checked(prompt: Any) -> dict[str, Any]:
    """A prompt with its defaults filled in, without entries that are None (tables have them)."""
    if not isinstance(prompt, Mapping):
        raise ValueError(f"the prompt {prompt!r} is not an object in braces")
    plain = {name: value for name, value in prompt.items() if value is not None}
    if not plain.keys() <= _KEYS:
        raise ValueError(f"a prompt has the unknown keys {sorted(plain.keys() - _KEYS)}")
    obj_id, frame_idx = plain.get("object"), plain.get("frame", 0)
    if isinstance(obj_id, bool) or not isinstance(obj_id, (int, str)):
        raise ValueError(f'"object" is {obj_id!r}; it must be a whole number or text')
    if isinstance(frame_idx, bool) or not isinstance(frame_idx, int) or frame_idx < 0:
        raise ValueError(f'"frame" is {frame_idx!r}; it must be a whole number of 0 or more')
    known: dict[str, Any] = {"frame": frame_idx, "object": obj_id}
    if "points" in plain:
        known["points"] = [_numbers("points", point, 2) for point in plain["points"]]
        labels = plain.get("labels", [1] * len(known["points"]))
        known["labels"] = [int(label) for label in labels]
        if len(labels) != len(known["points"]) or not set(known["labels"]) <= {0, 1}:
            raise ValueError(
                f'"labels" is {labels!r}; it must be a 1 (on the object) or 0 for each of the '
                f"{len(known['points'])} points"
            )
    elif "labels" in plain:
        raise ValueError('there are "labels" without "points"')
    if "box" in plain:
        known["box"] = _numbers("box", plain["box"], 4)
    if "mask" in plain:
        if known.keys() & {"points", "box"}:
            raise ValueError(f'object {obj_id!r} has a "mask" and other prompts on one frame')
        known["mask"] = str(plain["mask"])
    if not (known.get("points") or known.keys() & {"box", "mask"}):
        raise ValueError(f"the prompt of object {obj_id!r} has no points, no box and no mask")
    return known


def _numbers(name: str, values: Any, count: int) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        what = "[x, y]" if count == 2 else "[x0, y0, x1, y1]"
        raise ValueError(f'"{name}" has {list(values)!r}; it must be {what} in pixels')
    return numbers


def _read_mask(prompt: dict[str, Any], size: tuple[int, int]) -> Any:
    try:
        with Image.open(prompt["mask"], formats=IMAGE_FORMATS) as image:
            if (image.height, image.width) != size:
                raise ValueError(
                    f"it is {image.width}x{image.height} pixels, the video {size[1]}x{size[0]}"
                )
            is_plain = image.mode in {"1", "L", "P"} or image.mode.startswith("I")
            labels = np.asarray(image if is_plain else image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"The mask {prompt['mask']} cannot be used ({error}).") from error
    return labels > 0
