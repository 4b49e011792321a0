"""What a run records in its folder, so that it can be resumed and corrected."""

import argparse
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

from longsam.cli.everything import Everything
from longsam.cli.model import DTYPES
from longsam.cli.span import DIRECTIONS
from longsam.masks import FORMATS
from longsam.masks.files import check_not_link
from longsam.masks.ids import ObjectId
from longsam.prompts import Grouped, Prompt

RECORD = "run.json"


@dataclass(frozen=True)
class Record:
    """A run's input and settings.

    Args:
        video: The path; None for a live source.
        prompts: As `plain` gives them; none with --everything.
        frames: start, stop and step of the tracked frames; None is all.
        direction: "forward", "reverse" or "both".
        formats: The value of --format.
        dtype: The number format of the model.
        device: Where it runs.
        batch_objects: Whether objects are tracked as batches.
        vos_optimized: Whether the model is compiled.
        memory_window: Frames remembered; None is the default.
        model: The model's name.
        checkpoint: Its file; None for the testing model.
        config: As given.
        is_finished: Whether all frames have been tracked.
        corrections: The prompts of each correction since.
        everything: The fields of `Everything`, if objects were found instead of prompted; else
            None.
        memory: The value of --memory; runs of older versions have none.
    """

    video: str | None
    prompts: list[Any]
    frames: list[int] | None
    direction: str
    formats: list[str]
    dtype: str
    device: str
    batch_objects: bool
    vos_optimized: bool
    memory_window: int | None
    model: str | None
    checkpoint: str | None
    config: str | None
    is_finished: bool = False
    corrections: list[list[Any]] = field(default_factory=list)
    everything: dict[str, Any] | None = None
    memory: str = "upstream"

    def write(self, out: Path) -> None:
        """Write it atomically."""
        partial = out / f"{RECORD}.partial"
        check_not_link(partial)
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, out / RECORD)

    @property
    def prompted_frames(self) -> list[int]:
        """The frames with prompts, by the video's own indices."""
        return [int(prompt["frame"]) for prompt in self.prompts]


def read(out: Path) -> Record | None:
    """What a run recorded; None if nothing.

    Raises:
        ValueError: It is damaged.
    """
    path = out / RECORD
    if not path.is_file():  # a pipe would block
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = {"everything": None, "memory": "upstream", **content}  # older runs had none
        record = Record(**{each.name: content[each.name] for each in fields(Record)})
        _check(record)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); track again with --overwrite.") from error
    return record


def _check(record: Record) -> None:
    """Parse the file, which is not trusted."""
    frames = record.frames
    is_right = (
        record.direction in DIRECTIONS
        and record.dtype in DTYPES
        and all(isinstance(text, str) for text in (record.dtype, record.device, record.memory))
        and all(
            text is None or (isinstance(text, str) and "\0" not in text)
            for text in (record.video, record.model, record.checkpoint, record.config)
        )
        and isinstance(record.formats, list)
        and set(record.formats) <= set(FORMATS)
        and all(
            isinstance(flag, bool)
            for flag in (record.batch_objects, record.vos_optimized, record.is_finished)
        )
        and isinstance(record.memory_window, (int, type(None)))
        and (
            frames is None
            or (
                isinstance(frames, list)
                and len(frames) == 3
                and all(isinstance(number, int) and number >= 0 for number in frames)
            )
        )
        and isinstance(record.prompts, list)
        and bool(record.prompts) == (record.everything is None)
        and (record.everything is None or _is_everything(record))
        and isinstance(record.corrections, list)
        and all(isinstance(one, list) and one for one in record.corrections)
        and all(map(_is_prompt, chain(record.prompts, *record.corrections)))
    )
    if not is_right:
        raise ValueError("not as `longsam track` writes it")


def _is_everything(record: Record) -> bool:
    flags = record.everything
    return (
        isinstance(flags, dict)
        and asdict(Everything(**flags)).keys() == flags.keys()
        and record.direction == "forward"
        and not record.corrections
    )


def _is_prompt(one: Any) -> bool:
    if not (isinstance(one, dict) and one.keys() == {"frame", "object", "kind", "value", "label"}):
        return False
    value, count = one["value"], {"point": 2, "not-point": 2, "box": 4}.get(one["kind"], 0)
    return (
        isinstance(one["frame"], int)
        and one["frame"] >= 0
        and isinstance(one["object"], (int, str))
        and isinstance(one["label"], (int, type(None)))
        and (
            (one["kind"] == "mask" and isinstance(value, str) and "\0" not in value)
            or (
                isinstance(value, list)
                and len(value) == count > 0
                and all(isinstance(number, (int, float)) for number in value)
            )
        )
    )


def plain(grouped: Grouped) -> list[dict[str, Any]]:
    """Prompts, to be recorded and compared with recorded ones."""
    return [
        {
            "frame": prompt.frame_idx,
            "object": obj_id,
            "kind": prompt.kind,
            "value": os.path.abspath(prompt.value) if prompt.kind == "mask" else list(prompt.value),
            "label": prompt.label,
        }
        for (obj_id, _), group in grouped.items()
        for prompt in group
    ]


def grouped(prompts: list[Any]) -> dict[tuple[ObjectId, int], list[Prompt]]:
    """The prompts of a run or a correction, as given."""
    by_object: dict[tuple[ObjectId, int], list[Prompt]] = {}
    for one in prompts:
        kind, value, obj_id = one["kind"], one["value"], one["object"]
        value = Path(value) if kind == "mask" else tuple(value)
        prompt = Prompt(kind, value, one["frame"], obj_id, one["label"])
        by_object.setdefault((obj_id, one["frame"]), []).append(prompt)
    return by_object


def frames_of(record: Record) -> slice | None:
    """The tracked frames; None is all."""
    return None if record.frames is None else slice(*record.frames)


def use_model(options: argparse.Namespace, recorded: Record) -> None:
    """Use the model of a run if no flag names one.

    A config file can run code, so its path is not taken from a record that somebody else may have
    written.

    Raises:
        ValueError: The run had its own config file, and none is given.
    """
    options.device = options.device or recorded.device
    if options.checkpoint is None and not options.testing_model:
        options.testing_model = recorded.checkpoint is None
        options.checkpoint = recorded.checkpoint and Path(recorded.checkpoint)
    if options.config is None and recorded.config is not None:
        name = recorded.config
        is_name = re.fullmatch(r"configs/sam2(\.1)?/\w[\w.+]*|\w[\w.+]*(?<!\.yaml)(?<!\.yml)", name)
        if not is_name or Path(name).exists():
            raise ValueError(f"the run has its own config file {name}; give it with --config.")
        options.config = name
