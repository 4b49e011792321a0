"""Each object's entries in the index over time, as arrays."""

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longsam.masks.ids import ObjectId
from longsam.masks.reader import MaskFolder

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """One object on the frames that have a mask of it, in order; 64 bytes per frame.

    Args:
        frames: Their indices.
        areas: Pixels.
        boxes: num_frames x 4: x0, y0, x1, y1, the last two exclusive; NaN where the mask is empty.
        scores: Object scores; NaN where there is none.
        ious: Predicted IoUs; NaN where there is none.
        times: Seconds; NaN where there are none.
    """

    frames: npt.NDArray[np.int64]
    areas: Floats
    boxes: Floats
    scores: Floats
    ious: Floats
    times: Floats

    def __len__(self) -> int:
        return len(self.frames)


def histories(folder: MaskFolder) -> dict[ObjectId, History]:
    """The history of each object of a folder, in order of appearance."""
    columns: dict[ObjectId, tuple[array[int], array[float]]] = {}
    nan = float("nan")
    nowhere = (nan, nan, nan, nan)
    for line in folder.lines():
        time = nan if line.time is None else line.time
        for obj_id, area, box, score, iou in zip(
            line.obj_ids, line.areas, line.boxes, line.scores, line.ious, strict=True
        ):
            if obj_id not in columns:
                columns[obj_id] = array("q"), array("d")
            frames, numbers = columns[obj_id]
            frames.append(line.frame_idx)
            numbers.append(area)
            numbers.extend(box or nowhere)
            numbers.append(nan if score is None else score)
            numbers.append(nan if iou is None else iou)
            numbers.append(time)
    return {obj_id: _history(*both) for obj_id, both in columns.items()}


def _history(frames: "array[int]", numbers: "array[float]") -> History:
    table = np.frombuffer(numbers, np.float64).reshape(-1, 8)
    return History(
        np.frombuffer(frames, np.int64),
        table[:, 0],
        table[:, 1:5],
        table[:, 5],
        table[:, 6],
        table[:, 7],
    )
