"""DAVIS: `Annotations/Full-Resolution/VIDEO/00000.png`, indexed, with DAVIS's palette.

The file of a frame is named after its image, or its number with five digits. A pixel's value is an
object's number, 0 is background. Where masks overlap, the order of the "png" format is kept if it
was written too; otherwise the smaller one is on top.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from longsam.masks.exports.source import Source, labels_of
from longsam.masks.formats import davis_palette


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    source.names.check_stems(source.folder.frames)
    if len(source.numbers) > 255:
        raise ValueError(
            f"There are {len(source.numbers)} objects, and DAVIS's images hold 255; choose another "
            "format."
        )
    numbers = source.numbers
    if max(numbers.values(), default=0) > 255:  # if an id is a large number
        numbers = {obj_id: at + 1 for at, obj_id in enumerate(numbers)}
        source.numbers.update(numbers)
    name = source.names.video
    sequence = folder / "Annotations" / "Full-Resolution" / name
    sequence.mkdir(parents=True)
    palette = davis_palette().tobytes()
    for frame in source:
        image = Image.fromarray(labels_of(frame, numbers, np.uint8))
        image.putpalette(palette)
        path = sequence / f"{source.names.stem(frame.line.frame_idx)}.png"
        image.save(path, "PNG", compress_level=3)
    sets = folder / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text(f"{name}\n", encoding="utf-8")
