"""Label Studio: `brush.json`, a task per frame with brush masks, and for videos also `video.json`.

`video.json` is one task with a box for each object and frame, since Label Studio has no masks in
videos. `labeling_config.xml` and `labeling_config_video.xml` are the projects' settings. Frames are
named as files of local storage, in a folder of the video's name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from longsam.masks.exports.json_lists import compact, write_list
from longsam.masks.exports.source import Source
from longsam.masks.exports.spools import Spools
from longsam.masks.record import MaskArray

_RUN_BITS = (3, 4, 8, 16)


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    with open(folder / "brush.json", "w", encoding="ascii") as file:
        write_list(file, _tasks(source))
        file.write("\n")
    labels = "".join(
        f"    <Label value={quoteattr(name)}/>\n" for name in source.categories().values()
    )
    (folder / "labeling_config.xml").write_text(
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n</View>\n',
        encoding="utf-8",
    )
    if source.names.are_original:
        return
    _write_video(source, folder)
    (folder / "labeling_config_video.xml").write_text(
        '<View>\n  <Video name="video" value="$video"/>\n'
        '  <VideoRectangle name="box" toName="video"/>\n'
        f'  <Labels name="tag" toName="video">\n{labels}  </Labels>\n</View>\n',
        encoding="utf-8",
    )


def encoded(mask: MaskArray) -> list[int]:
    """Label Studio's run lengths of a mask: those of an RGBA image, in bits (thi.ng/rle-pack).

    Args:
        mask: bool, height x width.
    """
    pixels = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]])
    bits = [f"{4 * pixels.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for start, length in zip(starts.tolist(), (4 * np.diff(starts)).tolist(), strict=False):
        value = f"{255 if pixels[start] else 0:08b}"
        while length:
            run = min(length, 1 << _RUN_BITS[-1])
            kind = next(at for at, size in enumerate(_RUN_BITS) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{_RUN_BITS[kind]}b}{value}")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _tasks(source: Source) -> Iterator[dict[str, Any]]:
    height, width = source.size
    names, labels = source.categories(), source.labels()
    for frame in source:
        results = [
            {
                "id": str(source.numbers[obj_id]),
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": encoded(mask),
                    "brushlabels": [names[source.category_of(obj_id)]],
                },
                "meta": {"text": [labels[source.numbers[obj_id]]]},
            }
            for obj_id, mask, area in zip(
                frame.line.obj_ids, frame.masks, frame.line.areas, strict=True
            )
            if area
        ]
        image = _url(source.names.video, source.names.image(frame.line.frame_idx))
        yield {
            "data": {"image": image, "frame": frame.line.frame_idx},
            "predictions": [{"model_version": "longsam", "result": results}],
        }


def _url(*parts: str) -> str:
    return "/data/local-files/?d=" + quote("/".join(parts), errors="surrogateescape")


def _write_video(source: Source, folder: Path) -> None:
    spools = Spools(folder / "spools")
    _spool(source, spools)
    names = source.categories()
    frames = source.folder.frames
    with open(folder / "video.json", "w", encoding="ascii") as file:
        data = {"video": _url(source.folder.video or f"{source.names.video}.mp4")}
        file.write(f'[{{"data":{compact(data)},"predictions":[{{"model_version":"longsam",')
        file.write('"result":[')
        for position, (obj_id, number) in enumerate(source.numbers.items()):
            fields = {
                "id": str(number),
                "type": "videorectangle",
                "from_name": "box",
                "to_name": "video",
            }
            value = {
                "framesCount": frames[-1] + 1,
                "labels": [names[source.category_of(obj_id)]],
            }
            file.write(("," if position else "") + "\n" + compact(fields)[:-1])
            file.write(f',"value":{compact(value)[:-1]},"sequence":[')
            spools.copy(str(number), file)
            file.write("]}}")
        file.write("]}]}]\n")
    spools.close()


def _spool(source: Source, spools: Spools) -> None:
    """Collect each object's boxes; frames count from 1; the last before a gap is not enabled."""
    height, width = source.size
    waiting: dict[int, dict[str, Any]] = {}
    begun: set[int] = set()

    def add(number: int, enabled: bool) -> None:
        entry = compact({**waiting.pop(number), "enabled": enabled})
        spools.add(str(number), ("," if number in begun else "") + entry)
        begun.add(number)

    for line in source.folder.lines():
        frame = line.frame_idx + 1
        for number in [n for n, entry in waiting.items() if entry["frame"] < frame - 1]:
            add(number, False)
        for obj_id, box in zip(line.obj_ids, line.boxes, strict=True):
            number = source.numbers[obj_id]
            if number in waiting:
                add(number, box is not None)
            if box is None:
                continue
            x0, y0, x1, y1 = box
            shares = (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height)
            percent = dict(
                zip(("x", "y", "width", "height"), (round(100 * s, 4) for s in shares), strict=True)
            )
            waiting[number] = {"frame": frame, "rotation": 0, **percent}
            if line.time is not None:
                waiting[number]["time"] = line.time
    for number in list(waiting):
        add(number, False)
