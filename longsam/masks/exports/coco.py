"""COCO instances: `instances.json`, with run lengths and the number of the track.

In addition to COCO's fields, images and annotations have "frame_id", "video_id" and "track_id", as
in COCO's extensions for video. Empty masks are left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from longsam.masks.exports.json_lists import write_list
from longsam.masks.exports.source import Masks, Source
from longsam.masks.record import MaskArray

FILE = "instances.json"


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    height, width = source.size
    images = (
        {
            "id": frame_idx + 1,
            "file_name": source.names.image(frame_idx),
            "height": height,
            "width": width,
            "video_id": 1,
            "frame_id": frame_idx,
        }
        for frame_idx in source.folder.frames
    )
    number = 0

    def annotations() -> Any:
        nonlocal number
        for frame in source:
            for annotation in _annotations(source, frame):
                number += 1
                yield {"id": number, **annotation}

    with open(folder / FILE, "w", encoding="ascii") as file:
        file.write('{"info":{"description":"masks of longsam"},')
        file.write(f'"videos":[{json.dumps({"id": 1, "name": source.names.video})}],')
        file.write(f'"categories":{json.dumps(categories(source))},"images":')
        write_list(file, images)
        file.write(',"annotations":')
        write_list(file, annotations())
        file.write("}\n")


def categories(source: Source) -> list[dict[str, Any]]:
    """As COCO and YouTube-VIS have them."""
    return [
        {"id": number, "name": name, "supercategory": "object"}
        for number, name in source.categories().items()
    ]


def run_lengths(masks: MaskArray) -> list[dict[str, Any]]:
    """COCO's compressed run lengths of masks, num_objects x height x width."""
    if not len(masks):
        return []
    codes = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    return [{"size": code["size"], "counts": code["counts"].decode()} for code in codes]


def _annotations(source: Source, frame: Masks) -> Any:
    line = frame.line
    extra = (("object_score", line.scores), ("predicted_iou", line.ious))
    for at, code in enumerate(run_lengths(frame.masks)):
        x0, y0, x1, y1 = line.boxes[at] or (0, 0, 0, 0)
        if not line.areas[at]:
            continue
        annotation = {
            "image_id": line.frame_idx + 1,
            "category_id": source.category_of(line.obj_ids[at]),
            "track_id": source.numbers[line.obj_ids[at]],
            "segmentation": code,
            "area": line.areas[at],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        for name, numbers in extra:
            if numbers[at] is not None:
                annotation[name] = numbers[at]
        yield annotation
