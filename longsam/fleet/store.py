"""Where finished masks go: a folder, or anything else that fsspec can write to."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longsam.masks.files import sync

MARK = "fleet.json"
"""In each video's folder: which job it belongs to, and whether its masks are complete."""


class Store:
    """Folders of masks, each complete or marked as incomplete.

    Args:
        url: A folder, or an fsspec URL ("s3://bucket/masks"), for which fsspec may need another
            package.

    Raises:
        ImportError: fsspec is missing, or a package that it needs for this URL.
    """

    def __init__(self, url: str | os.PathLike[str]):
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImportError(
                "longsam.fleet needs fsspec: `pip install 'longsam[fleet]'`."
            ) from error
        self.url = os.fspath(url)
        self._fs, self._root = url_to_fs(self.url, use_listings_cache=False)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine (or on a shared disk)."""
        return "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else ())

    def scratch(self) -> Path:
        """Where a video is tracked unless another folder is given.

        Beside the masks if these are files, since other nodes may then see it when this machine is
        gone; else in the user's cache.
        """
        if self.is_local:
            return Path(self._root) / "unfinished"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "longsam" / "fleet" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def finished(self, name: str, digest: str) -> dict[str, Any] | None:
        """The row of a video if its masks are complete, else None.

        Raises:
            ValueError: There are masks of another job, or files from something else.
        """
        folder = f"{self._root}/{name}"
        try:
            mark = json.loads(self._fs.cat_file(f"{folder}/{MARK}"))
            known, row = mark["job"], mark["row"]
        except FileNotFoundError:
            if self._fs.exists(folder) and self._fs.ls(folder, detail=False):
                raise ValueError(
                    f"{self.url}/{name} exists, but not from a fleet: choose another --out, or "
                    'give the job another "name".'
                ) from None
            return None
        except (ValueError, LookupError, TypeError, RecursionError):
            return None  # cut off when a machine was switched off
        if known != digest:
            raise ValueError(
                f"{self.url}/{name} holds the masks of another job (other prompts, another model "
                f"or format). Remove it, choose another --out, or give the job another name."
            )
        return row if isinstance(row, dict) else None

    def all_finished(self, digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """The rows of all videos with complete masks.

        Args:
            digests: What tells each job from others, by its name.

        Raises:
            ValueError: As `finished`.
        """
        try:
            there = {path.rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(self._root, False)}
        except FileNotFoundError:
            return {}
        found = {name: self.finished(name, digests[name]) for name in digests if name in there}
        return {name: row for name, row in found.items() if row is not None}

    def upload(self, folder: Path, name: str, digest: str, row: dict[str, Any]) -> None:
        """Copy the masks of a video, and only then mark it as complete."""
        target = f"{self._root}/{name}"
        self._mark(target, digest, None)
        for parent, _, files in os.walk(folder):
            below = Path(parent).relative_to(folder).as_posix()
            to = target if below == "." else f"{target}/{below}"
            self._fs.makedirs(to, exist_ok=True)
            if files:
                self._fs.put([os.path.join(parent, f) for f in files], [f"{to}/{f}" for f in files])
            for file in files if self.is_local else ():
                sync(Path(to) / file)
        self._mark(target, digest, row)

    def write_json(self, name: str, value: Any) -> str:
        """Write a separate file; returns where it is."""
        self._fs.makedirs(self._root, exist_ok=True)
        self._fs.pipe_file(f"{self._root}/{name}", (json.dumps(value, indent=1) + "\n").encode())
        return f"{self.url}/{name}"

    def _mark(self, target: str, digest: str, row: dict[str, Any] | None) -> None:
        self._fs.makedirs(target, exist_ok=True)
        mark = {"job": digest, "row": row}
        self._fs.pipe_file(f"{target}/{MARK}", (json.dumps(mark, indent=1) + "\n").encode())
