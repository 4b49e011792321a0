"""YouTube-VIS: `instances.json`, where an annotation is an object with a mask for each frame.

Where an object's mask is empty or it is not tracked, the entry is null. Run lengths are lists of
numbers, as in YouTube-VIS itself. The frames are those with masks.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from longsam.masks import rle
from longsam.masks.exports.coco import categories, run_lengths
from longsam.masks.exports.json_lists import compact, write_list
from longsam.masks.exports.source import Source
from longsam.masks.exports.spools import Spools

FILE = "instances.json"
_LISTS = ("segmentations", "bboxes", "areas")


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    spools = Spools(folder / "spools")
    num_written = _spool(source, spools)
    height, width = source.size
    with open(folder / FILE, "w", encoding="ascii") as file:
        file.write('{"info":{"description":"masks of longsam"},')
        file.write(f'"categories":{compact(categories(source))},"videos":[{{"id":1,')
        file.write(f'"width":{width},"height":{height},"length":{source.num_frames},"file_names":')
        names, video = source.names, source.names.video
        write_list(file, (f"{video}/{names.image(i)}" for i in source.folder.frames))
        file.write('}],"annotations":[')
        for position, (obj_id, number) in enumerate(source.numbers.items()):
            fields = {
                "id": number,
                "video_id": 1,
                "category_id": source.category_of(obj_id),
                "iscrowd": 0,
                "width": width,
                "height": height,
                "length": source.num_frames,
            }
            file.write(("," if position else "") + "\n" + compact(fields)[:-1])
            for name in _LISTS:
                file.write(f',"{name}":[')
                spools.copy(f"{name}-{number}", file)
                _fill(file.write, num_written.get(number, 0), source.num_frames)
                file.write("]")
            file.write("}")
        file.write("]}\n")
    spools.close()


def _spool(source: Source, spools: Spools) -> dict[int, int]:
    """Collect the lists of each object; returns how many frames of each were written."""
    num_written: dict[int, int] = {}
    for frame in source:
        line = frame.line
        for at, code in enumerate(run_lengths(frame.masks)):
            box = line.boxes[at]
            if box is None:
                continue
            number = source.numbers[line.obj_ids[at]]
            counts = rle.runs(code["counts"].encode())
            values = (
                {"size": code["size"], "counts": np.asarray(counts).tolist()},
                [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                line.areas[at],
            )
            before = num_written.get(number, 0)
            for name, value in zip(_LISTS, values, strict=True):
                key = f"{name}-{number}"
                _fill(partial(spools.add, key), before, frame.position)
                spools.add(key, ("," if frame.position else "") + compact(value))
            num_written[number] = frame.position + 1
    return num_written


def _fill(add: Callable[[str], object], start: int, stop: int) -> None:
    """Write null for some frames, in pieces."""
    for at in range(start, stop, 1000):
        num = min(1000, stop - at)
        text = "null," * num
        add(("," if at else "") + text[:-1])
