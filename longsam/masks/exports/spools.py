"""Text of each object, collected frame by frame in files, then put together."""

import os
import shutil
from pathlib import Path
from typing import IO

_MOST_CHARACTERS = 1 << 21
"""Size of the text that is held in memory, all objects together."""


class Spools:
    """Texts that grow piece by piece, each under a key; at most 2 MB of them are in memory.

    Args:
        folder: Created here, and removed by `close`.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self._folder = folder
        self._waiting: dict[str, list[str]] = {}
        self._num_characters = 0

    def add(self, key: str, text: str) -> None:
        """Add to the end of a text.

        Args:
            key: A file name.
            text: ASCII.
        """
        self._waiting.setdefault(key, []).append(text)
        self._num_characters += len(text)
        if self._num_characters > _MOST_CHARACTERS:
            self._flush()

    def copy(self, key: str, target: IO[str]) -> None:
        """Copy a text to a file; writes nothing if nothing was added."""
        self._flush()
        path = self._folder / key
        if path.exists():
            with path.open(encoding="ascii", newline="") as file:
                shutil.copyfileobj(file, target, 1 << 20)

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        for key, texts in self._waiting.items():
            with open(os.path.join(self._folder, key), "a", encoding="ascii", newline="") as file:
                file.writelines(texts)
        self._waiting.clear()
        self._num_characters = 0
