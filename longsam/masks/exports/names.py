"""Names of frames: those of the images they come from, or their numbers."""

import os
from pathlib import Path
from typing import Any

from longsam.masks.reader import MaskFolder


class FrameNames:
    """A file name for each frame.

    Args:
        video: The name that the frames' names are made of, without a suffix.
        names: File names of the images, by frame; None numbers them with five digits, as upstream's
            `ffmpeg` command and DAVIS do.
    """

    def __init__(self, video: str, names: list[str] | None = None):
        self.video = video
        self._names = names

    @property
    def are_original(self) -> bool:
        """Whether they are names of images."""
        return self._names is not None

    def image(self, frame_idx: int) -> str:
        """The file name of a frame's image."""
        return self._names[frame_idx] if self._names is not None else f"{frame_idx:05d}.jpg"

    def stem(self, frame_idx: int) -> str:
        """The name without its suffix, for files that belong to the image."""
        return os.path.splitext(self.image(frame_idx))[0]

    def check_stems(self, frames: list[int]) -> None:
        """Refuse images whose names differ only in the suffix.

        Raises:
            ValueError: There are such images.
        """
        if self._names is None:
            return
        seen: dict[str, int] = {}
        for frame_idx in frames:
            other = seen.setdefault(self.stem(frame_idx).lower(), frame_idx)
            if other != frame_idx:
                raise ValueError(
                    f"{self.image(other)} and {self.image(frame_idx)} would have one file for "
                    "both. Rename one of the images, or choose a format of one file (coco)."
                )


def names_of(folder: MaskFolder, video: str | os.PathLike[str] | None) -> FrameNames:
    """How the frames of a folder of masks are named.

    Args:
        folder: The masks.
        video: The video or the folder of images; None takes the one named by the masks. That name
            is not trusted: it is only used if it is a folder of images on this machine that fits.

    Raises:
        ValueError: `video` does not fit the masks.
        OSError: It cannot be read.
    """
    name = os.fspath(video) if video is not None else folder.video
    if name is None:
        return FrameNames(_plain(folder.folder.resolve().name))
    stem = _plain(Path(name).stem if not os.path.isdir(name) else Path(name).resolve().name)
    if "://" in name or name.startswith(("//", "\\\\")) or not os.path.isdir(name):
        if video is not None and not os.path.isfile(name):
            raise ValueError(f"There is no video and no folder of images at {name}.")
        return FrameNames(stem)
    try:
        names = _image_names(name, folder)
    except (OSError, ValueError, RuntimeError):
        if video is not None:
            raise
        return FrameNames(stem)
    return FrameNames(stem, names)


def _image_names(path: str, folder: MaskFolder) -> list[str]:
    from longsam.frames import open_source  # here, so that reading masks needs no readers of videos

    source: Any = open_source(path, None)
    last = folder.frames[-1] if len(folder) else -1
    if source.frame_size != folder.size or last >= source.num_frames:
        raise ValueError(
            f"{path} holds {source.num_frames} images of {source.frame_size[1]}x"
            f"{source.frame_size[0]} pixels, but there are masks of frame {last} of "
            f"{folder.size[1]}x{folder.size[0]}. Give the folder that was tracked."
        )
    names: list[str] = source.names
    return names


def _plain(name: str) -> str:
    """A name that is safe as a part of a path."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in name[:100]).strip(" .")
    return kept or "video"
