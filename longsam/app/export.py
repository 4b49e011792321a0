"""Exports of a project, made in a thread of their own."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longsam.masks import MaskFolder, exports, render_overlay
from longsam.masks.files import check_not_link

OVERLAY = "overlay"
FOLDER = "exports"


class Exports:
    """The exports of one project: each one file, a ZIP where there are several.

    Args:
        folder: Of the project; they go into `exports` within it.
        video: The path of the video.
    """

    def __init__(self, folder: Path, video: str):
        self._masks, self._video = folder, video
        self._folder = folder / FOLDER
        self._thread: threading.Thread | None = None

    def listed(self) -> list[dict[str, Any]]:
        """All formats, and the files of those that are made."""
        about = {**exports.FORMATS, OVERLAY: "the video with the masks drawn on it, H.264"}
        return [
            {"name": name, "about": says, "files": self._files(name)}
            for name, says in about.items()
        ]

    def path(self, name: str) -> Path | None:
        """The path of an export's file; None if there is none of this name."""
        for entry in self.listed():
            if name in (entry["files"] or []):
                return self._folder / name
        return None

    def start(
        self,
        to: str,
        category: str | None,
        tell: Callable[[str | None], object],
        done: Callable[[str | None], object],
    ) -> None:
        """Begin an export.

        Args:
            to: A format of `longsam export`, or "overlay".
            category: One category for all objects; None is a category each.
            tell: Called with what it does, None when it is over.
            done: Called with None, or with what went wrong.

        Raises:
            ValueError: There is no such format, no masks, or another export is running.
        """
        if to != OVERLAY and to not in exports.FORMATS:
            raise ValueError(
                f"there is no format {to!r}; there are {', '.join((*exports.FORMATS, OVERLAY))}."
            )
        if self._thread is not None and self._thread.is_alive():
            raise ValueError("another export is running; wait for it.")
        try:
            num_frames = len(MaskFolder(self._masks))
        except FileNotFoundError as error:
            raise ValueError("there are no masks yet; track first.") from error

        def work() -> None:
            def progress(number: int) -> None:
                tell(f"exporting {to}: {100 * number // max(num_frames, 1)} %")

            error = None
            try:
                self._make(to, category, progress)
            except Exception as caught:
                error = f"{to} could not be exported: {caught}"
            tell(None)
            done(error)

        self._thread = threading.Thread(target=work, name="longsam-export", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the running export."""
        if self._thread is not None:
            self._thread.join()

    def _make(self, to: str, category: str | None, progress: Callable[[int], None]) -> None:
        check_not_link(self._folder)
        self._folder.mkdir(exist_ok=True)
        if to == OVERLAY:
            path = render_overlay(self._masks, self._video, progress=progress)
            path.replace(self._folder / f"{OVERLAY}.mp4")
            return
        path = exports.export(
            self._masks, to, self._folder / to, video=self._video, category=category,
            overwrite=True, progress=progress,
        )  # fmt: skip
        partial = shutil.make_archive(str(self._folder / f".{to}"), "zip", path)
        Path(partial).replace(self._folder / f"{to}.zip")
        shutil.rmtree(path)

    def _files(self, name: str) -> list[str] | None:
        file = f"{name}.mp4" if name == OVERLAY else f"{name}.zip"
        return [file] if (self._folder / file).is_file() else None
