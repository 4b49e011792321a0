"""JSON that is written piece by piece."""

import json
from collections.abc import Iterable
from typing import IO, Any


def compact(value: Any) -> str:
    """JSON in ASCII, without spaces."""
    return json.dumps(value, separators=(",", ":"))


def write_list(file: IO[str], values: Iterable[Any]) -> None:
    """Write a list, one entry per line."""
    file.write("[")
    before = "\n"
    for value in values:
        file.write(before + compact(value))
        before = ",\n"
    file.write("]")
