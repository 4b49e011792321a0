"""The lines of `frames.jsonl`.

The first line is the header: {"longsam_masks": 3, "formats": ["rle"], "size": [480, 640],
"video": "bees.mp4", "frame_rate": [30, 1]}. Each other line is a frame: {"frame": 0, "ids": [1],
"areas": [1234], "boxes": [[10, 20, 60, 50]], "rle": [0, 567]}. A box is [x0, y0, x1, y1], the
pixel after the last one for x1 and y1; an empty mask has null. "rle" says which bytes of
`masks.jsonl` are the frame's: the first one, and how many. If the writer was given them, a frame
also has "scores": [12.3] and "ious": [0.91], the object score and the predicted IoU of each id
(null where there is none), and "time": 1.5, the frame's time stamp in seconds.

A frame with new objects lists them before its ids, so that all lines with "new" make up the table
of objects: {"frame": 0, "new": [{"id": "bee", "name": "bee", "number": 1}], ...}; "name" is the
object's folder in `object_png`, "number" its pixel value in `png`.
"""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from longsam.masks.ids import ObjectId, check_obj_ids, folder_name

INDEX = "frames.jsonl"
VERSION = 3
FORMATS = ("rle", "png", "object_png", "overlay")

MAX_PIXELS = 1 << 26
"""Pixels of a mask: 8192 x 8192, twice an 8K video. Larger masks are not written or read."""

MAX_SIDE = 1 << 15
MAX_LINE_BYTES = 1 << 20
"""Size of a line of the index: some 10,000 objects."""

MAX_RLE_BYTES = 1 << 24
"""Size of a line of `masks.jsonl`: 16 MiB; a smooth mask of 1080p takes 2 KB."""

MAX_NUMBER = 1e12
"""Largest absolute value of a score or a time."""

SCORE_DIGITS = 5
"""Significant digits of scores."""

TIME_DECIMALS = 6

_FOUR = [int] * 4

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""


@dataclass(frozen=True)
class Header:
    """The first line.

    Args:
        formats: Of `FORMATS`.
        size: (height, width) of every mask.
        video: The path of the video, if the writer was given it. Do not trust it: anybody may have
            written it.
        frame_rate: The overlay's frame rate.
    """

    formats: tuple[str, ...]
    size: tuple[int, int]
    video: str | None = None
    frame_rate: Fraction | None = None

    def to_line(self) -> bytes:
        rate = self.frame_rate
        content = {
            "longsam_masks": VERSION,
            "formats": self.formats,
            "size": self.size,
            "video": self.video,
            "frame_rate": None if rate is None else [rate.numerator, rate.denominator],
        }
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"


class NewObject(NamedTuple):
    """An object's line in the table: its id, and its pixel value in `png`."""

    obj_id: ObjectId
    number: int | None


@dataclass(frozen=True)
class FrameLine:
    """A frame's line.

    Args:
        frame_idx: The frame.
        obj_ids: Its objects.
        areas: Pixels of each one's mask.
        boxes: Around each one's mask; None for an empty mask.
        scores: The object score of each, above 0 where the model sees it; None if unknown.
        ious: The predicted IoU with the truth for each mask, or None.
        time: The frame's time stamp in seconds, or None.
        rle: The first byte of its line in `masks.jsonl`, and how many; None without "rle".
        new: Objects that are in no earlier line.
    """

    frame_idx: int
    obj_ids: list[ObjectId]
    areas: list[int]
    boxes: list[Box | None]
    scores: list[float | None]
    ious: list[float | None]
    time: float | None = None
    rle: tuple[int, int] | None = None
    new: list[NewObject] = field(default_factory=list)

    def to_line(self, formats: tuple[str, ...]) -> bytes:
        content: dict[str, Any] = {"frame": self.frame_idx}
        if self.new:
            content["new"] = [
                {"id": obj_id}
                | ({"name": folder_name(obj_id)} if "object_png" in formats else {})
                | ({} if number is None else {"number": number})
                for obj_id, number in self.new
            ]
        content |= {"ids": self.obj_ids, "areas": self.areas, "boxes": self.boxes}
        for name, numbers in (("scores", self.scores), ("ious", self.ious)):
            if any(number is not None for number in numbers):
                content[name] = [_rounded(number) for number in numbers]
        if self.time is not None:
            content["time"] = round(self.time, TIME_DECIMALS)
        if self.rle is not None:
            content["rle"] = self.rle
        line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(
                f"Frame {self.frame_idx} has {len(self.obj_ids)} objects, whose ids take more "
                f"than a line of {INDEX} may have, {MAX_LINE_BYTES} bytes. Write fewer at a time."
            )
        return line


def parse_header(line: bytes) -> Header:
    """Parse the first line.

    Raises:
        ValueError: It is damaged, or of another version; the caller names the line.
    """
    content = parse_json(line)
    if content.get("longsam_masks") != VERSION:
        raise ValueError(f"no index of masks of version {VERSION}, as this longsam writes them")
    formats, size, video = (content.get(key) for key in ("formats", "size", "video"))
    if not (isinstance(formats, list) and all(isinstance(name, str) for name in formats)):
        raise ValueError('"formats" must be a list of names')
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or len(set(formats)) < len(formats):
        raise ValueError(f'"formats" is {formats}; each may occur once, of {FORMATS}')
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise ValueError('"size" must be a height and a width')
    check_size(size[0], size[1])
    if not (video is None or (isinstance(video, str) and "\0" not in video)):
        raise ValueError('"video" must be a path')
    rate = content.get("frame_rate")
    if rate is not None and not (
        isinstance(rate, list)
        and len(rate) == 2
        and all(_is_count(part) and 1 <= part < 2**31 for part in rate)
    ):
        raise ValueError('"frame_rate" must be two numbers from 1 to 2147483647')
    frame_rate = None if rate is None else Fraction(rate[0], rate[1])
    return Header(tuple(formats), (size[0], size[1]), video, frame_rate)


def parse_frame(line: bytes, header: Header) -> FrameLine:
    """Parse a frame's line.

    Raises:
        ValueError: It is damaged; the caller names the line.
    """
    content = parse_json(line)
    frame_idx, ids, areas = (content.get(key) for key in ("frame", "ids", "areas"))
    pixels = header.size[0] * header.size[1]
    if not isinstance(frame_idx, int) or not isinstance(ids, list):
        raise ValueError('"frame" must be a number and "ids" a list')
    obj_ids = check_obj_ids(ids)
    if not (
        isinstance(areas, list)
        and len(areas) == len(ids)
        and all([type(area) is int and 0 <= area <= pixels for area in areas])
    ):
        raise ValueError(f'"areas" must have a number of pixels, at most {pixels}, for each id')
    rle = content.get("rle")
    if "rle" in header.formats:
        if not (isinstance(rle, list) and len(rle) == 2 and all(map(_is_count, rle))):
            raise ValueError('"rle" must be two numbers of bytes')
        if rle[1] > MAX_RLE_BYTES:
            raise ValueError(f'"rle" has {rle[1]} bytes; at most {MAX_RLE_BYTES}')
    time = content.get("time")
    if not (time is None or is_finite(time)):
        raise ValueError(f'"time" must be seconds, from {-MAX_NUMBER:g} to {MAX_NUMBER:g}')
    return FrameLine(
        frame_idx,
        obj_ids,
        areas,
        _boxes(content.get("boxes"), areas, header.size),
        _numbers(content, "scores", len(ids)),
        _numbers(content, "ious", len(ids)),
        None if time is None else float(time),
        (rle[0], rle[1]) if rle else None,
        _new(content, header),
    )


def parse_json(line: bytes) -> dict[str, Any]:
    """A line's JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        content = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def check_size(height: int, width: int) -> None:
    """Refuse masks that are too large.

    Raises:
        ValueError: They are larger than the limits, or empty.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise ValueError(
            f"masks of {width}x{height} pixels; each side must have 1 to {MAX_SIDE} and both "
            f"together at most {MAX_PIXELS}"
        )


def is_finite(value: Any) -> bool:
    """Whether a value is a valid number for a score or a time."""
    is_number = type(value) in (int, float)
    return is_number and -MAX_NUMBER <= value <= MAX_NUMBER  # NaN is not


def _rounded(number: float | None) -> float | None:
    """Round to significant digits, not decimals, so that a score keeps its sign."""
    return None if number is None else float(f"{number:.{SCORE_DIGITS}g}")


def _boxes(boxes: Any, areas: list[int], size: tuple[int, int]) -> list[Box | None]:
    height, width = size
    if not (isinstance(boxes, list) and len(boxes) == len(areas)):
        raise ValueError('"boxes" must have a box, or null, for each id')
    parsed: list[Box | None] = []
    for box, area in zip(boxes, areas, strict=True):
        if box is None and area == 0:
            parsed.append(None)
            continue
        if not (isinstance(box, list) and [type(number) for number in box] == _FOUR):
            raise ValueError(
                f'"boxes" has {str(box)[:80]} for a mask of {area} pixels; a box is '
                "[x0, y0, x1, y1], and an empty mask has null"
            )
        x0, y0, x1, y1 = box
        is_inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        if not (is_inside and 0 < area <= (x1 - x0) * (y1 - y0)):
            raise ValueError(f'"boxes" has {box}, which holds no mask of {area} pixels')
        parsed.append((x0, y0, x1, y1))
    return parsed


def _numbers(content: dict[str, Any], name: str, count: int) -> list[float | None]:
    """One number for each id; all None if the line has none."""
    numbers = content.get(name)
    if numbers is None:
        return [None] * count
    if not (
        isinstance(numbers, list)
        and len(numbers) == count
        and all([number is None or is_finite(number) for number in numbers])
    ):
        raise ValueError(
            f'"{name}" must have a number from {-MAX_NUMBER:g} to {MAX_NUMBER:g}, or null, for '
            "each id"
        )
    return [None if number is None else float(number) for number in numbers]


def _new(content: dict[str, Any], header: Header) -> list[NewObject]:
    entries = content.get("new", [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise ValueError('"new" must be a list of objects')
    obj_ids = check_obj_ids([entry.get("id") for entry in entries])
    new = []
    for obj_id, entry in zip(obj_ids, entries, strict=True):
        number = entry.get("number")
        if "png" in header.formats and not (_is_count(number) and 1 <= number <= 255):
            raise ValueError(f'the "number" of object {obj_id!r} must be from 1 to 255')
        if "object_png" in header.formats and entry.get("name") != folder_name(obj_id):
            raise ValueError(f'the "name" of object {obj_id!r} must be {folder_name(obj_id)!r}')
        new.append(NewObject(obj_id, number))
    return new


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
