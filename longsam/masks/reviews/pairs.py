"""Two objects with one mask: which of them is wrong."""

import numpy as np
import numpy.typing as npt

from longsam.masks.ids import ObjectId
from longsam.masks.reader import MaskFolder
from longsam.masks.reviews.history import Floats, History
from longsam.masks.reviews.signs import log_growth, ramp

MOST_READ = 2000
"""At most this many frames' masks are read, spread over those where boxes overlap."""

NEAR = 0.2
"""Masks are compared from this IoU of their boxes on."""


class Sharing:
    """How much of its mask each object shares with another.

    Args:
        folder: The masks.
        by_id: The histories of the objects.

    Attributes:
        overlaps: For each object, on its frames, the mask IoU with the other object that shares
            most.
        others: For each object, that other one: its place in `by_id`, or -1.
        misfits: For each object, how much worse its size fits its own history than the other's
            fits its own, in logarithms.
    """

    def __init__(self, folder: MaskFolder, by_id: dict[ObjectId, History]):
        objects = list(by_id.values())
        self.overlaps = [np.zeros(len(one)) for one in objects]
        self.others = [np.full(len(one), -1) for one in objects]
        self.misfits = [np.zeros(len(one)) for one in objects]
        near = list(_near_pairs(objects))
        frames = np.unique(np.concatenate([np.zeros(0, np.int64), *(n[2] for n in near)]))
        every = -(-len(frames) // MOST_READ) or 1
        read = _read(folder, list(by_id), frames[::every], near)
        growths = [abs(log_growth(one)) for one in objects]
        for (one, other, shared), overlaps in zip(near, read, strict=True):
            known = np.flatnonzero(~np.isnan(overlaps))
            if not len(known):
                continue
            held = np.maximum(np.searchsorted(known, np.arange(len(shared)), side="right") - 1, 0)
            values = overlaps[known[held]]
            self._note(objects, growths, one, other, shared, values)
            self._note(objects, growths, other, one, shared, values)

    def signs(self, number: int) -> dict[str, Floats]:
        """The signs of one object."""
        shared = ramp(self.overlaps[number], 0.2, 0.6)
        return {
            "same mask as another": shared,
            "another fits it better": shared * ramp(self.misfits[number], -0.3, 0.5),
            "fits better than another": shared * ramp(-self.misfits[number], 0.1, 1.0),
        }

    def _note(
        self,
        objects: list[History],
        growths: list[Floats],
        one: int,
        other: int,
        frames: npt.NDArray[np.int64],
        overlaps: Floats,
    ) -> None:
        mine = np.searchsorted(objects[one].frames, frames)
        theirs = np.searchsorted(objects[other].frames, frames)
        more = overlaps > self.overlaps[one][mine]
        at = mine[more]
        self.overlaps[one][at] = overlaps[more]
        self.others[one][at] = other
        self.misfits[one][at] = growths[one][at] - growths[other][theirs[more]]


NearPair = tuple[int, int, npt.NDArray[np.int64]]
"""Two objects and the frames on which their boxes overlap."""


def _near_pairs(objects: list[History]) -> list[NearPair]:
    pairs: list[NearPair] = []
    extents = [_extent(one) for one in objects]
    for one, extent in enumerate(extents):
        for other in range(one + 1, len(objects)):
            if extent is None or not _meet(extent, extents[other]):
                continue
            frames, at, to = np.intersect1d(
                objects[one].frames, objects[other].frames, True, return_indices=True
            )
            overlap = _box_iou(objects[one].boxes[at], objects[other].boxes[to])
            if (overlap > NEAR).any():
                pairs.append((one, other, frames[overlap > NEAR]))
    return pairs


def _extent(one: History) -> Floats | None:
    """The extent of an object in time and space: from and to, of frames, x and y."""
    there = one.areas > 0
    if not there.any():
        return None
    low, high = one.boxes[there].min(axis=0), one.boxes[there].max(axis=0)
    return np.array([[one.frames[0], low[0], low[1]], [one.frames[-1] + 1, high[2], high[3]]])


def _meet(one: Floats, other: Floats | None) -> bool:
    return other is not None and bool((one[0] < other[1]).all() and (other[0] < one[1]).all())


def _box_iou(one: Floats, other: Floats) -> Floats:
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = np.clip(sides, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    overlap: Floats = np.nan_to_num(both / (areas[0] + areas[1] - both))
    return overlap


def _read(
    folder: MaskFolder,
    ids: list[ObjectId],
    frames: npt.NDArray[np.int64],
    near: list[NearPair],
) -> list[Floats]:
    """The mask IoU of each pair on its frames; NaN where it was not read."""
    found = [np.full(len(shared), np.nan) for _, _, shared in near]
    by_frame: dict[int, list[int]] = {}
    for number, (_, _, shared) in enumerate(near):
        for frame_idx in np.intersect1d(frames, shared, True).tolist():
            by_frame.setdefault(frame_idx, []).append(number)
    for frame_idx in sorted(by_frame):
        _, obj_ids, masks = folder.read(frame_idx)
        place = {obj_id: at for at, obj_id in enumerate(obj_ids)}
        for number in by_frame[frame_idx]:
            one, other, shared = near[number]
            first, second = masks[place[ids[one]]], masks[place[ids[other]]]
            both, either = (int(np.count_nonzero(m)) for m in (first & second, first | second))
            found[number][np.searchsorted(shared, frame_idx)] = both / max(1, either)
    return found
