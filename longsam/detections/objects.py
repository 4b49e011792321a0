"""What a run knows of its objects besides their masks, and which of them it keeps."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import torch

from longsam.detections.boxes import same_masks
from longsam.detections.options import Options


@dataclass
class KnownObject:
    """What is known of one object."""

    label: Any
    seen_since: int  # the detector was asked on this frame, and the mask was not empty
    num_hits: int  # how often it was detected
    last_hit: int  # the frame on which it was detected last
    empty_since: int | None = None  # the mask has been empty from this frame on


class KnownObjects:
    """The objects of a run, in the order of the rows of their masks.

    Args:
        obj_ids: Objects known from the start; their labels are their ids.
        options: The run's options.
    """

    def __init__(self, obj_ids: Iterable[Any], options: Options):
        self.by_id: dict[Any, KnownObject] = {
            obj_id: KnownObject(obj_id, 0, options.min_hits, 0) for obj_id in obj_ids
        }
        self.last_new_id = max((i for i in self.by_id if isinstance(i, int)), default=0)
        self._options = options

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def ids(self) -> list[Any]:
        return list(self.by_id)

    @property
    def labels(self) -> list[Any]:
        return [known.label for known in self.by_id.values()]

    @property
    def confirmed(self) -> dict[Any, Any]:
        """By id, the labels of the objects detected often enough to be yielded."""
        return {i: known.label for i, known in self.by_id.items() if self._is_confirmed(known)}

    @property
    def num_free(self) -> int | None:
        """How many more objects may be tracked; None is any number."""
        most = self._options.max_objects
        return None if most is None else max(0, most - len(self))

    def add(self, label: Any, frame_idx: int) -> int:
        """Note a new object; returns its id, which is never used again."""
        self.last_new_id += 1
        self.by_id[self.last_new_id] = KnownObject(label, frame_idx, 1, frame_idx)
        return self.last_new_id

    def note_hits(self, rows: Iterable[int], frame_idx: int) -> None:
        """Note that objects were detected on a frame."""
        objects = list(self.by_id.values())
        for row in rows:
            if objects[row].last_hit < frame_idx:
                objects[row].num_hits += 1
                objects[row].last_hit = frame_idx

    def retired(self, frame_idx: int, masks: torch.Tensor) -> set[int]:
        """Note which objects are seen on a frame.

        Args:
            masks: num_objects x height x width, bool.

        Returns:
            The rows of the objects to drop: gone for long, or tracked twice.
        """
        objects = list(self.by_id.values())
        is_seen = masks.flatten(1).any(1).tolist()
        gone = set()
        for row, known in enumerate(objects):
            if is_seen[row]:
                if known.empty_since is not None:
                    known.seen_since, known.empty_since = frame_idx, None
            elif known.empty_since is None:
                known.empty_since = frame_idx
            elif frame_idx - known.empty_since >= self._options.retire_after:
                gone.add(row)

        def weakness(row: int) -> tuple[bool, int, int]:
            # Drop the unconfirmed one, or the one that moved to where the other was.
            return not self._is_confirmed(objects[row]), objects[row].seen_since, row

        return gone | {max(pair, key=weakness) for pair in same_masks(masks)}

    def refused(self, frame_idx: int, masks: torch.Tensor, num_old: int) -> set[int]:
        """Which objects to drop after the prompts of a frame.

        Args:
            masks: num_objects x height x width, bool.
            num_old: The objects from this row on are new on this frame.

        Returns:
            The rows of objects that were missed before they were confirmed, and of new ones that
            turn out to be known objects or empty.
        """
        gone = {
            row
            for row, known in enumerate(self.by_id.values())
            if not self._is_confirmed(known) and known.last_hit < frame_idx
        }
        if num_old < len(self):
            is_seen = masks[num_old:].flatten(1).any(1).tolist()
            gone |= {num_old + row for row, seen in enumerate(is_seen) if not seen}
            gone |= {other for _, other in same_masks(masks) if other >= num_old}
        return gone

    def to_plain(self) -> dict[str, Any]:
        """All of it, as a save holds it."""
        rows = [(obj_id, *astuple(known)) for obj_id, known in self.by_id.items()]
        return {"objects": rows, "last_new_id": self.last_new_id}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore what a save holds."""
        by_id = {row[0]: KnownObject(*row[1:]) for row in saved["objects"]}
        if list(by_id) != self.ids:
            raise ValueError(f"it has objects besides {list(by_id)}, or not all of them")
        self.by_id, self.last_new_id = by_id, int(saved["last_new_id"])

    def _is_confirmed(self, known: KnownObject) -> bool:
        return known.num_hits >= self._options.min_hits
