"""Real videos with known masks, in the folders of DAVIS, MOSE, LVOS, YouTube-VOS and SA-V."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

BoolArray = npt.NDArray[np.bool_]

VOID = 255
"""The value of pixels that do not count, in an image of all objects."""

IMAGES = (".jpg", ".jpeg")
RESOLUTION = "480p"
"""The resolution used if there are several, as in DAVIS."""


@dataclass(frozen=True)
class DavisVideo:
    """A video with masks of some of its frames.

    Args:
        name: Its folder's name.
        images: One per frame.
        annotations: The PNGs of the annotated frames, by frame index; under "" if an image holds
            all objects, by object if each has its own folder.
    """

    name: str
    images: Sequence[Path] = field(repr=False)
    annotations: Mapping[str, Mapping[int, Path]] = field(repr=False)

    @property
    def is_per_object(self) -> bool:
        """Whether each object has its own folder, as in SA-V; masks may then overlap."""
        return "" not in self.annotations

    @property
    def annotated(self) -> list[int]:
        """The annotated frames, ascending."""
        return sorted({frame for of_one in self.annotations.values() for frame in of_one})

    def masks(self, frame_idx: int) -> tuple[dict[str, BoolArray], BoolArray | None]:
        """The truth on an annotated frame.

        Returns:
            Masks by object, height x width: those in the frame's image, or all with a file for the
            frame. An object is named by its pixels' value ("1") or its folder. Then the pixels that
            do not count; None if that is unknown.

        Raises:
            ValueError: A file is not such an image; the message names it.
        """
        if self.is_per_object:
            return {
                obj_id: read_png(files[frame_idx]) != 0
                for obj_id, files in self.annotations.items()
                if frame_idx in files
            }, None
        labels = read_png(self.annotations[""][frame_idx])
        shown = [int(label) for label in np.unique(labels) if label not in (0, VOID)]
        return {str(label): labels == label for label in shown}, labels == VOID

    def first_frames(self) -> dict[str, int]:
        """The first annotated frame that shows each object. Reads all of them."""
        first: dict[str, int] = {}
        for frame_idx in self.annotated:
            for obj_id, mask in self.masks(frame_idx)[0].items():
                if obj_id not in first and mask.any():
                    first[obj_id] = frame_idx
        return first


def davis_videos(
    folder: str | os.PathLike[str],
    videos: Sequence[str] | None = None,
    *,
    images: str | None = None,
    annotations: str | None = None,
) -> list[DavisVideo]:
    """The videos of a folder such as DAVIS's.

    `JPEGImages/VIDEO/00000.jpg` are the frames and `Annotations/VIDEO/00000.png` the truth: an
    indexed or grey PNG where 0 is background, 255 is void and any other number an object. It may
    exist for only some of the frames. If both have folders by resolution, as in DAVIS, 480p is
    used. SA-V has `Annotations_6fps/VIDEO/OBJECT/00000.png`, one object per image, whose pixels are
    not 0.

    Args:
        folder: The folder that holds both.
        videos: Names of videos; None is all that have annotations.
        images: The folder of the frames within it, for instance "JPEGImages/Full-Resolution"; None
            is JPEGImages, or the only one whose name begins with that.
        annotations: The folder of the masks; None is Annotations, or the only one whose name begins
            with that.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: A video has no frames, no annotation, or an annotation of a missing frame.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the one that holds JPEGImages.")
    frames_at = _part(root, "JPEGImages", images)
    masks_at = _part(root, "Annotations", annotations)
    there = _folders(masks_at)
    names = there if videos is None else list(dict.fromkeys(videos))
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ValueError(f"{masks_at} has no video {unknown[0]!r}.")
    if not names:
        raise ValueError(f"{masks_at} holds no folders of videos.")
    return [_video(name, frames_at, masks_at / name) for name in names]


def mask_path(video: DavisVideo, folder: Path, obj_id: str, frame_idx: int) -> Path:
    """The path of a mask in a folder laid out like the video's truth."""
    name = f"{video.images[frame_idx].stem}.png"
    return folder / obj_id / name if video.is_per_object else folder / name


def read_png(path: Path) -> npt.NDArray[Any]:
    """The pixel values of a PNG: height x width.

    Raises:
        ValueError: It is damaged, or has colours.
    """
    if not path.is_file():  # a pipe would block
        raise ValueError(f"{path} is not a file.")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("1", "L", "P"):
                raise ValueError(f"its pixels are {image.mode}, and must be indexed or grey")
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a mask: {error}.") from error


def _part(root: Path, name: str, given: str | None) -> Path:
    """The folder of frames or of masks."""
    if given is not None:
        if not (root / given).is_dir():
            raise FileNotFoundError(f"{root / given} is not a folder.")
        return root / given
    there = [one for one in _folders(root) if one.startswith(name)]
    if name in there:
        there = [name]
    if len(there) != 1:
        option = "images" if name == "JPEGImages" else "annotations"
        raise FileNotFoundError(
            f"{root} has {' and '.join(there) or 'no folder ' + name}; name the one to use with "
            f"{option}, or give another folder."
        )
    part = root / there[0]
    of_resolutions = [one for one in _folders(part) if re.fullmatch(r"\d+p|Full-Resolution", one)]
    if not of_resolutions:
        return part
    return part / (RESOLUTION if RESOLUTION in of_resolutions else of_resolutions[0])


def _video(name: str, frames_at: Path, masks_at: Path) -> DavisVideo:
    if not (frames_at / name).is_dir():
        raise ValueError(f"{masks_at} has masks, but {frames_at} has no folder {name}.")
    images = _files(frames_at / name, IMAGES)
    if not images:
        raise ValueError(f"{frames_at / name} holds no JPEGs.")
    index = {path.stem: frame_idx for frame_idx, path in enumerate(images)}
    objects = _folders(masks_at)
    annotations: dict[str, dict[int, Path]] = {}
    for obj_id in objects or [""]:
        files = _files(masks_at / obj_id, (".png",))
        unknown = [path for path in files if path.stem not in index]
        if unknown:
            raise ValueError(
                f"{unknown[0]} belongs to no frame: {frames_at / name} has no such name."
            )
        annotations[obj_id] = {index[path.stem]: path for path in files}
    if not any(annotations.values()):
        raise ValueError(f"{masks_at} holds no PNGs.")
    return DavisVideo(name, images, annotations)


def _folders(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir() if one.is_dir() and one.name[0] != ".")


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """By number if all names are numbers, as upstream sorts frames, else by name."""
    found = [
        one
        for one in folder.iterdir()
        if one.suffix.lower() in suffixes and not one.name.startswith(".")
    ]
    if all(one.stem.isdecimal() for one in found):
        return sorted(found, key=lambda one: (int(one.stem), one.name))
    return sorted(found)
