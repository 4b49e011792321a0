"""A fleet's jobs: videos with their prompts, and how they are tracked."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import av

from longsam import Autosave, prompts
from longsam.fleet.precision import DTYPES
from longsam.masks.resume import check_formats
from longsam.prompts import Grouped

Load = Callable[[], Any]
"""Builds the `LongVideoPredictor` of a worker; it is pickled and called there."""

_KEYS = {"video", "prompts", "name"}
_NAME = re.compile(r"\w[\w.+-]{0,199}")


@dataclass(frozen=True)
class Job:
    """One video and what to track in it.

    Args:
        video: A video file or a folder of images, by a path that every worker can read.
        prompts: Dicts, one or more for each object and frame: "frame" (0), "object" (an integer or
            text), and "points" [[x, y], ...] with "labels" (1 on the object, 0 beside it), "box"
            [x0, y0, x1, y1], or "mask", the path of an image that is black outside the object; in
            pixels of the video.
        name: The name of its folder of masks; "" takes the video's, without the suffix.

    Raises:
        ValueError: There are no prompts, one cannot be used, or the name is not a plain name.
    """

    video: str
    prompts: tuple[dict[str, Any], ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.video, (str, os.PathLike)) or not str(self.video):
            raise ValueError(f'"video" is {self.video!r}; it must be the path of a file or folder.')
        if "://" in str(self.video):
            raise ValueError(
                f"{self.video} is a URL; a fleet tracks files, by a path that every worker can "
                "read. Mount the bucket, or download the video."
            )
        object.__setattr__(self, "video", os.fspath(self.video))
        if not isinstance(self.prompts, (list, tuple)) or not self.prompts:
            raise ValueError(f'"prompts" is {self.prompts!r}; it must be a list of at least one')
        object.__setattr__(self, "prompts", tuple(map(prompts.checked_entry, self.prompts)))
        self.grouped_prompts()
        name = self.name or re.sub(r"[^\w.+-]", "_", Path(self.video).stem).lstrip(".+-")
        is_taken = name == "unfinished" or str(name).endswith(".json")  # by other files in --out
        if not isinstance(name, str) or not _NAME.fullmatch(name) or is_taken:
            raise ValueError(
                f'"name" is {name!r}; it must be letters, digits, "_", ".", "+" and "-", begin '
                'with a letter or digit, and be neither "unfinished" nor end with ".json": it '
                "becomes the name of a folder."
            )
        object.__setattr__(self, "name", name)

    def grouped_prompts(self) -> Grouped:
        """The prompts by object and frame.

        Raises:
            ValueError: An object has several boxes or masks on a frame.
        """
        return prompts.numbered([p for one in self.prompts for p in prompts.from_entry(one)])


@dataclass(frozen=True)
class Settings:
    """How every video of a fleet is tracked.

    Args:
        formats: The masks' formats; see `longsam.masks.MaskWriter`.
        save_every: Frames or time between two saves, from which a video resumes after its worker
            died.
        batch_objects: As in `init_state`.
        memory_window: As in `init_state`.
        dtype: The number format of the model: "float32", "bfloat16", "float16"; None is bfloat16
            on a GPU that has it, else float32.
        model: An identifier of the model, for instance its checkpoint's path, so that masks made by
            another model are not taken for this one's.

    Raises:
        ValueError: The number format, a format of masks, or `save_every` is wrong.
    """

    formats: tuple[str, ...] = ("rle",)
    save_every: int | timedelta = 500
    batch_objects: bool = False
    memory_window: int | None = None
    dtype: str | None = None
    model: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"dtype is {self.dtype!r}; it must be of {', '.join(DTYPES)}.")
        object.__setattr__(self, "formats", check_formats(self.formats))
        Autosave("state.pt", every=self.save_every)

    def digest(self, job: Job) -> str:
        """What tells a job from others: video, prompts, and everything that changes its masks.

        Only the last part of paths counts, so a folder that was moved holds the same jobs.
        """
        prompts = [
            {**prompt, "mask": os.path.basename(prompt["mask"])} if "mask" in prompt else prompt
            for prompt in job.prompts
        ]
        of_job = [os.path.basename(job.video), job.name, prompts]
        told = {**asdict(self), "save_every": None, "job": of_job}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def read_jobs(path: str | os.PathLike[str]) -> list[Job]:
    """Read a file with a job on each line, {"video": "a.mp4", "prompts": [...], "name": "a"}.

    Args:
        path: The file. Paths in it are relative to its folder.

    Raises:
        ValueError: A line is not a job, or two have the same name.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file.")
    folder = path.absolute().parent
    jobs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            jobs.append(_job(json.loads(line), folder))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: {error}. A line looks like "
                '{"video": "a.mp4", "prompts": [{"frame": 0, "object": 1, "points": [[x, y]]}]}'
            ) from error
    if not jobs:
        raise ValueError(f"{path} holds no job; a line is one video with its prompts.")
    check_names(jobs)
    return jobs


def check_names(jobs: Iterable[Job]) -> None:
    """Refuse jobs that would write to the same folder.

    Raises:
        ValueError: Two have the same name.
    """
    names = Counter(job.name for job in jobs)
    for name, count in names.items():
        if count > 1:
            raise ValueError(
                f'{count} jobs have the name {name!r}; give each a "name" of its own: it is the '
                "folder of its masks."
            )


def num_frames_by_header(video: str) -> int:
    """About how many frames a video has, reading only its header; 0 if unknown."""
    path = Path(video)
    with suppress(OSError):
        if path.is_dir():
            return sum(1 for _ in os.scandir(path))
    with suppress(Exception), av.open(video, options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        return stream.frames or round(seconds * float(stream.average_rate or 30))
    return 0  # the worker that opens it will say what is wrong


def _job(line: Any, folder: Path) -> Job:
    if not isinstance(line, dict) or not {"video", "prompts"} <= line.keys() <= _KEYS:
        raise ValueError('it must have "video" and "prompts", may have "name", and nothing else')
    video, prompts = line["video"], line["prompts"]
    if isinstance(video, str) and video and "://" not in video:
        video = str(folder / video)
    for prompt in prompts if isinstance(prompts, list) else ():
        if isinstance(prompt, dict) and isinstance(prompt.get("mask"), str):
            prompt["mask"] = str(folder / prompt["mask"])
    return Job(video, prompts, line.get("name", ""))
