"""The folder of a project: that of `longsam track`, and the log of the page."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from longsam.app import edits as prompting
from longsam.app.edits import Edit, ObjectId
from longsam.cli import results
from longsam.cli.record import Record
from longsam.masks import MaskWriter
from longsam.masks.aside import keep_only_rle
from longsam.masks.copying import copy_frames
from longsam.masks.files import check_not_link
from longsam.masks.index import read_header, scan

PROMPTS = "prompts"
"""Masks that were painted, and the lock of the page."""

NEW = "new"
"""In the folder of a correction: its masks, until they are kept."""


class Folder:
    """Where everything of one project lies.

    Args:
        path: The folder; made if it is not there.
        video: The path of the video.
        frame_size: (height, width) of the video.

    Raises:
        ValueError: The folder holds a run that the page cannot continue.
    """

    def __init__(self, path: Path, video: str, frame_size: tuple[int, int]):
        self.path, self.video, self._frame_size = path, video, frame_size
        results.finish_correction(path)
        check_not_link(self.correction)
        header, _ = read_header(path / results.INDEX)
        if header is not None and "rle" not in header.formats:
            raise ValueError(
                f"{path} was written with the formats {list(header.formats)}. The page reads and "
                "writes rle; choose another folder, or track with --format rle."
            )

    @property
    def correction(self) -> Path:
        """The folder of an unfinished correction, as in `longsam correct`."""
        return self.path / results.CORRECTION

    @property
    def new_masks(self) -> Path:
        """The masks of an unfinished correction."""
        return self.correction / NEW

    def save_in(self, *, correcting: bool) -> Path:
        """Where the state is saved."""
        return (self.correction if correcting else self.path) / results.STATE

    def snapshots(self, *, correcting: bool) -> Path:
        """Where the state's snapshots are."""
        return (self.correction if correcting else self.path) / results.SNAPSHOTS

    def writer(self, *, correcting: bool) -> MaskWriter:
        """A writer that continues after what is there."""
        return MaskWriter(
            self.new_masks if correcting else self.path, video=self.video, resume=True
        )

    def keep_only_rle(self, record: Record) -> tuple[Record, list[Path]]:
        """Move the other formats of a run of `longsam track` aside.

        Returns:
            (the record of the run as it is now, where the files of other formats are).
        """
        if record.formats != ["rle"]:
            record = replace(record, formats=["rle"])
            record.write(self.path)
        return record, keep_only_rle(self.path)

    def cut(self, last_frame_idx: int, *, correcting: bool) -> None:
        """Drop the masks that were written after a frame; -1 drops all."""
        with self.writer(correcting=correcting) as writer:
            if len(writer):
                dropped = writer.drop_after(last_frame_idx, keep_aside=True)
                if dropped is not None:  # they are tracked again, with the same result
                    shutil.rmtree(dropped)

    def check_empty(self) -> None:
        """Refuse masks that no save continues.

        Raises:
            ValueError: There are some.
        """
        num_frames = scan(self.path / results.INDEX).whole.num_records
        if num_frames:
            raise ValueError(
                f"{self.path} has masks of {num_frames} frames and no save to continue from "
                f"({results.STATE}). Give another folder with --out; `longsam review` and "
                "`longsam show` read these masks."
            )

    def begin_correction(self) -> None:
        """A separate folder for a correction, with the snapshots there are."""
        self.drop_correction()
        results.link_snapshots(self.path, self.correction)
        self.new_masks.mkdir()

    def drop_correction(self) -> None:
        """Remove what a correction has made."""
        if self.correction.exists():
            shutil.rmtree(self.correction)

    def keep_correction(self, record: Record) -> None:
        """Put the masks of a correction in place; killed on the way, it can be called again."""
        for name in (results.INDEX, "masks.jsonl"):
            (self.correction / name).unlink(missing_ok=True)
        copy_frames(self.path, self.correction)
        copy_frames(self.new_masks, self.correction)
        record.write(self.correction)
        os.rename(self.correction, self.path / results.CORRECTED)
        results.finish_correction(self.path)

    def note(
        self,
        record: Record,
        prompts: Iterable[tuple[ObjectId, int, list[Edit]]],
        *,
        directions: set[bool],
        is_finished: bool,
    ) -> Record:
        """The record of the run, with what was prompted and tracked since.

        Args:
            record: As it was.
            prompts: Object, frame and edits.
            directions: Of all passes, whether they were in reverse.
            is_finished: Whether no pass is left to be continued.
        """
        direction = (
            "both" if len(directions) > 1 else "reverse" if True in directions else "forward"
        )
        plain = [entry for prompt in prompts for entry in self._plain(*prompt)]
        return replace(record, prompts=plain, direction=direction, is_finished=is_finished)

    def _plain(
        self, obj_id: ObjectId, frame_idx: int, edits: list[Edit]
    ) -> list[dict[str, object]]:
        entries = []
        masks = [number for number, edit in enumerate(edits) if edit["kind"] == "mask"]
        for edit in edits[masks[-1] :] if masks else edits:
            value: object
            if edit["kind"] == "point":
                kind, value = "point" if edit["label"] else "not-point", [edit["x"], edit["y"]]
            elif edit["kind"] == "box":
                kind, value = "box", edit["box"]
            else:
                kind, value = "mask", str(self._painted(obj_id, frame_idx, edit))
            entries.append(
                {"frame": frame_idx, "object": obj_id, "kind": kind, "value": value, "label": None}
            )
        return entries

    def _painted(self, obj_id: ObjectId, frame_idx: int, edit: Edit) -> Path:
        """A painted mask as an image, for those who read the record."""
        name = "".join(letter if letter.isalnum() else "_" for letter in str(obj_id))[:40]
        path = self.path / PROMPTS / f"{name}_{frame_idx}.png"
        mask = prompting.decoded(edit, self._frame_size)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        return path.absolute()
