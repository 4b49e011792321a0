"""An evaluation's results so far, in a JSON file that the next call reads."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longsam import LongVideoPredictor, __version__
from longsam.policies import MemoryPolicy
from longsam.testing.davis import DavisVideo

RESULTS = "results.json"
MASKS = "masks"
FORMAT = 1

_Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ObjectScore:
    """How well one object of a video was tracked.

    Args:
        video: The video.
        obj_id: The object.
        num_frames: How many frames counted.
        j: Mean of `iou` over them.
        f: Mean of `boundary_f`.
    """

    video: str
    obj_id: str
    num_frames: int
    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """J&F, the mean of both."""
        return (self.j + self.f) / 2


class Results:
    """The results of a folder.

    Args:
        folder: Where the file is, or will be.
        about: What they are made with; see `about`.

    Raises:
        ValueError: Existing results were made with something else, or are damaged.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.path = folder / RESULTS
        self._about = about
        self._memory: _Entries = {}
        if not self.path.exists():
            if (folder / MASKS).exists():
                raise ValueError(
                    f"{folder} holds masks, but no {RESULTS} says how they were made; write to "
                    "another folder."
                )
            folder.mkdir(parents=True, exist_ok=True)
            self._write()
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            before, self._memory = content["about"], content["memory"]
            for one in self._memory.values():
                for name, video in one["videos"].items():
                    _scores(name, video)
            differing = [key for key in about if before[key] != about[key]]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); write to another folder."
            ) from error
        for key in differing:
            if key != "longsam":
                raise ValueError(
                    f"{self.path} was made with the {key} {before[key]}, not {about[key]}; write "
                    "to another folder."
                )

    def check_policy(self, memory: str, policy: MemoryPolicy | None) -> None:
        """Refuse results of another policy under the same name."""
        before = self._memory.get(memory, {}).get("policy", described(policy))
        if before != described(policy):
            raise ValueError(
                f"{self.path} has {memory} with {before}, not with {described(policy)}; give it "
                "another name, or write to another folder."
            )

    def known(self, memory: str, video: DavisVideo) -> list[ObjectScore] | None:
        """The scores of a video; None if there are none, or its frames have changed."""
        entry = self._memory.get(memory, {}).get("videos", {}).get(video.name)
        if entry is None or [entry["num_frames"], entry["num_annotated"]] != _size(video):
            return None
        return _scores(video.name, entry)

    def add(
        self,
        memory: str,
        policy: MemoryPolicy | None,
        video: DavisVideo,
        scores: Sequence[ObjectScore],
        seconds: float | None,
    ) -> None:
        """Note a video, and write the file atomically."""
        num_frames, num_annotated = _size(video)
        one = self._memory.setdefault(memory, {"policy": described(policy), "videos": {}})
        one["videos"][video.name] = {
            "num_frames": num_frames,
            "num_annotated": num_annotated,
            "seconds": seconds and round(seconds, 3),
            "objects": {
                score.obj_id: {"num_frames": score.num_frames, "J": score.j, "F": score.f}
                for score in scores
            },
        }
        known = [s for name, entry in one["videos"].items() for s in _scores(name, entry)]
        one.update(means(known))
        self._write()

    def _write(self) -> None:
        partial = self.path.with_name(f"{RESULTS}.partial")
        content = {"about": self._about, "memory": self._memory}
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


def means(scores: Iterable[ObjectScore]) -> dict[str, Any]:
    """DAVIS's means, over objects."""
    known = list(scores)
    values = [(one.j_and_f, one.j, one.f) for one in known]
    found = np.mean(values, axis=0).tolist() if known else [None] * 3
    return {"num_objects": len(known)} | dict(zip(("J&F", "J", "F"), found, strict=True))


def about(predictor: LongVideoPredictor, videos: Sequence[DavisVideo]) -> dict[str, Any]:
    """What the scores depend on, besides the policy."""
    device = predictor.device.type
    is_on = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_on else torch.float32
    weights = hashlib.sha256()
    for name, tensor in sorted(predictor.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    first = videos[0]
    truth = next(path for files in first.annotations.values() for path in files.values())
    return {
        "format": FORMAT,
        "longsam": __version__,
        "images": os.path.realpath(first.images[0].parents[1]),
        "annotations": os.path.realpath(truth.parents[2 if first.is_per_object else 1]),
        "model": predictor.name,
        "weights": weights.hexdigest(),
        "dtype": str(dtype).removeprefix("torch."),
        "image_size": predictor.image_size,
    }


def described(policy: MemoryPolicy | None) -> dict[str, Any] | None:
    """A policy in the form that is written."""
    return None if policy is None else {"name": policy.name, "options": dict(policy.options())}


def _size(video: DavisVideo) -> list[int]:
    return [len(video.images), len(video.annotated)]


def _scores(name: str, entry: Any) -> list[ObjectScore]:
    return [
        ObjectScore(name, obj_id, int(one["num_frames"]), float(one["J"]), float(one["F"]))
        for obj_id, one in entry["objects"].items()
    ]
