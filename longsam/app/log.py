"""The log of a project: every prompt and pass, on disk before it has an effect.

A line of `prompts.jsonl` is one operation, as JSON:

    {"op": "prompts", "object": 1, "frame": 0, "edits": [{"kind": "point", "x": 410.0, "y": 220.0,
        "label": 1}]}
    {"op": "answer", "frame": 0, "objects": [{"id": 1, "counts": "...", "area": 812,
        "score": 9.1, "iou": 0.93}]}
    {"op": "remove", "object": 1}
    {"op": "track", "passes": [[0, 599, false]]}     first and last frame, and whether in reverse
    {"op": "stop", "done": 57}                       how many frames were tracked since
    {"op": "correct", "frame": 120}
    {"op": "keep", "at": 240}                        the last frame that was tracked again
    {"op": "drop"}

A save of the state says how many lines are in it. What comes after them is done again when the
project is opened after a crash.
"""

import json
from pathlib import Path
from typing import Any

from longsam.masks.files import AppendFile, open_regular

LOG = "prompts.jsonl"

MAX_LINE_BYTES = 1 << 24
"""Of an answer: as a line of `masks.jsonl`."""

Operation = dict[str, Any]

_KEYS = {
    "prompts": {"object", "frame", "edits"},
    "answer": {"frame", "objects"},
    "remove": {"object"},
    "track": {"passes"},
    "stop": {"done"},
    "correct": {"frame"},
    "keep": {"at"},
    "drop": set(),
}


class Log:
    """The operations of one project, in order.

    Args:
        folder: Of the project.

    Attributes:
        operations: All of them. Answers are replaced by None once a later one is of their frame.

    Raises:
        ValueError: The file is damaged, other than by a last line that was cut off.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOG
        self.operations: list[Operation | None] = []
        self._answer_of: dict[int, int] = {}
        end = self._read() if self.path.exists() else 0
        self._file = AppendFile(self.path, end)

    def __len__(self) -> int:
        return len(self.operations)

    def append(self, operation: Operation) -> None:
        """Write an operation; it is on the disk itself when this returns."""
        line = json.dumps(operation, separators=(",", ":")).encode() + b"\n"
        self._file.write(line)
        if operation["op"] != "answer":  # an answer can be had again
            self._file.sync()
        self._note(operation)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> int:
        end = 0
        with open_regular(self.path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    if len(line) == MAX_LINE_BYTES:
                        raise self._damaged("longer than any that is written")
                    break  # cut off by a crash
                try:
                    operation = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise self._damaged(str(error)) from error
                if not is_operation(operation):
                    raise self._damaged("no operation")
                self._note(operation)
                end += len(line)
        return end

    def _note(self, operation: Operation) -> None:
        self.operations.append(operation)
        if operation["op"] == "answer":
            before = self._answer_of.get(operation["frame"])
            if before is not None:
                self.operations[before] = None
            self._answer_of[operation["frame"]] = len(self.operations) - 1

    def _damaged(self, why: str) -> ValueError:
        return ValueError(
            f"{self.path}, line {len(self.operations) + 1}: {why}. Correct the line, or remove "
            "the file: masks and objects stay, and the page no longer knows their prompts."
        )


def is_operation(value: Any) -> bool:
    """Whether a line is one that this module writes; the file may be from others."""
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        return False
    if value.keys() - {"op"} != _KEYS.get(value["op"], {0}):
        return False
    return (
        is_obj_id(value.get("object", 0))
        and is_frame(value.get("frame", 0))
        and is_frame(value.get("done", 0))
        and (value.get("at") is None or is_frame(value["at"]))
        and isinstance(value.get("edits", []), list)
        and all(map(is_edit, value.get("edits", [])))
        and isinstance(value.get("objects", []), list)
        and all(map(_is_answer, value.get("objects", [])))
        and isinstance(value.get("passes", []), list)
        and all(map(_is_pass, value.get("passes", [])))
    )


def is_obj_id(value: Any) -> bool:
    """Whether this can be an object's id: a number from 0, or a name of up to 100 letters."""
    if isinstance(value, str):
        return 0 < len(value) <= 100 and value.isprintable()
    return is_frame(value)


def is_frame(value: Any) -> bool:
    """Whether this can be a frame's index."""
    return type(value) is int and 0 <= value < 1 << 31


def is_edit(value: Any) -> bool:
    """Whether this is a point, a box or a mask."""
    if not isinstance(value, dict):
        return False
    kind = value.get("kind")
    if kind == "point":
        return (
            value.keys() == {"kind", "x", "y", "label"}
            and _is_number(value["x"])
            and _is_number(value["y"])
            and type(value["label"]) is int
            and value["label"] in (0, 1)
        )
    if kind == "box":
        box = value.get("box")
        return (
            value.keys() == {"kind", "box"}
            and isinstance(box, list)
            and len(box) == 4
            and all(map(_is_number, box))
        )
    return kind == "mask" and value.keys() == {"kind", "counts"} and isinstance(
        value["counts"], str
    )  # fmt: skip


def _is_answer(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"id", "counts", "area", "score", "iou"}
        and is_obj_id(value["id"])
        and isinstance(value["counts"], str)
        and type(value["area"]) is int
        and all(value[name] is None or _is_number(value[name]) for name in ("score", "iou"))
    )


def _is_pass(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(map(is_frame, value[:2]))
        and isinstance(value[2], bool)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9
