"""The fuzzer's cases of mask folders, prompts in JSON and what detectors return; see fuzz.py."""

import argparse
import contextlib
import io
import json
import random
import shutil
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

SIZE = (48, 64)
NUM_FRAMES = 8
IDS: list[int | str] = [1, "bee", "left ant"]
ODD: list[Any] = [
    None, -1, 0, 1, 2, 255, 256, 10**6, 10**18, 10**30, 1.5, 1e300, float("nan"), True, "", "text",
    "..", "../../x", "\ud800", "0" * 9000, [], {}, [[]], [1], [1, "bee"], [None] * 3, [2**40] * 2,
    [65_536, 65_536], [100_000, 100_000], {"id": 1}, "http://127.0.0.1:9/x.mp4", "/dev/zero",
]  # fmt: skip
"""What takes the place of a value in JSON."""


def make_files(folder: Path) -> None:
    """A finished mask folder, one whose writer was killed, and prompts with their mask."""
    import numpy as np
    import torch
    from PIL import Image

    from longsam.masks import FORMATS, MaskWriter

    for name, formats in (("finished", FORMATS), ("killed", FORMATS), ("rle", "rle")):
        writer = MaskWriter(folder / name, formats)
        for i in range(NUM_FRAMES):
            small = torch.randn(3, 1, 5, 6, generator=torch.Generator().manual_seed(i))
            masks = torch.nn.functional.interpolate(small, SIZE, mode="bilinear")
            image = np.full((*SIZE, 3), 20 * i, np.uint8)
            ids = IDS[: 1 + i % 3] if i < 3 else IDS
            writer.write(i, ids, masks[: len(ids)], image=image)
        writer.flush()
        if name == "killed":  # as it would leave the files
            shutil.copytree(folder / name, folder / "copy")
        writer.close()
    shutil.rmtree(folder / "killed")
    (folder / "copy").rename(folder / "killed")
    prompts = folder / "prompts"
    prompts.mkdir()
    Image.fromarray(np.eye(*SIZE, dtype=np.uint8) * 255).save(prompts / "mask.png")
    entries = [
        {"frame": 0, "object": 1, "points": [[30, 20], [2, 3]], "labels": [1, 0]},
        {"frame": 2, "object": "bee", "box": [10, 10, 40, 40]},
        {"frame": 1, "object": 3, "mask": "mask.png"},
    ]
    (prompts / "prompts.json").write_text(json.dumps(entries))


def one_case(
    choose: random.Random, files: Path, work: Path, predictor: Any, damaged: list[str]
) -> tuple[str, str]:
    """What was read, and how it ended; an error should name the folder or file."""
    kind = choose.choice(["folder"] * 7 + ["prompts"] * 2 + ["detections"])
    if kind == "folder":
        return _folder(choose, files, work, damaged)
    if kind == "prompts":
        return "prompts", _prompts(choose, files, work, predictor, damaged)
    return "detections", _detections(choose, files, predictor)


def _folder(choose: random.Random, files: Path, work: Path, damaged: list[str]) -> tuple[str, str]:
    from fuzz import damage

    source = files / choose.choice(["finished", "killed", "rle"])
    folder = work / "masks"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    damaged.append(str(folder))
    for _ in range(choose.choice([1, 1, 2])):
        names = ["frames.jsonl"] * 3 + ["masks.jsonl"] * 3 + ["png", "object_png", "overlay"]
        name = choose.choice(names)
        paths = [path for path in sorted(folder.rglob(f"{name}*")) if path.is_file()]
        paths = paths or sorted(folder.glob(f"{name}/**/*.png")) or [folder / "frames.jsonl"]
        path = choose.choice(paths)
        data = path.read_bytes()
        if path.suffix == ".jsonl" and choose.random() < 0.6:
            path.write_bytes(_damage_lines(choose, data))
        elif path.suffix == ".png" and choose.random() < 0.3:
            path.write_bytes(_another_png(choose))
        else:
            path.write_bytes(damage(choose, data))
    how = choose.choice(["read", "read", "read", "resume", "resume", "show"])
    what = f"{source.name}, {how}"
    if how == "read":
        return what, _read(choose, folder)
    if how == "resume":
        return what, _resume(choose, folder)
    from longsam.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(["show", str(folder)])
    if code:
        raise ValueError(said.getvalue())
    return what, "shown"


def _read(choose: random.Random, folder: Path) -> str:
    from longsam.masks import MaskFolder

    masks = MaskFolder(folder, choose.choice([None, None, "rle", "png", "object_png"]))
    masks.all_obj_ids()
    count = 0
    for frame_idx in masks.frames:
        for read in (masks.areas, masks.boxes, masks.scores, masks.ious, masks.time):
            read(frame_idx)
        count += masks.read(frame_idx).masks.any()
    return "masks" if count else "no masks"


def _resume(choose: random.Random, folder: Path) -> str:
    import numpy as np
    import torch

    from longsam.masks import MaskFolder, MaskWriter

    formats = ("rle",) if not (folder / "png").exists() else ("rle", "png", "object_png", "overlay")
    with MaskWriter(folder, formats, resume=True) as writer:
        if len(writer) > 1 and choose.random() < 0.6:
            last = choose.choice([-1, 0, len(writer) // 2])
            try:
                writer.drop_after(last, keep_aside=choose.random() < 0.5)
            except ValueError as error:
                if "holds no masks of frame" not in str(error):
                    raise
        for i in range(2):
            image = np.zeros((*SIZE, 3), np.uint8)
            writer.write(100 + i, [1, "new"], torch.ones(2, *SIZE), image=image)
    masks = MaskFolder(folder, "rle")  # what was written now is whole
    assert masks.read(101).masks.all()
    return "resumed"


def _damage_lines(choose: random.Random, data: bytes) -> bytes:
    """One line of JSON with a value of another kind, or two lines in each other's place."""
    lines = data.split(b"\n")[:-1] or [b"{}"]
    at = choose.randrange(len(lines))
    if choose.random() < 0.2:
        other = choose.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif choose.random() < 0.1:
        opening = choose.choice([b"[", b'{"a":', b'"'])
        lines[at] = b'{"frame":1,"ids":' + opening * choose.choice([10, 2000, 100_000]) + b"}"
    else:
        try:
            content = json.loads(lines[at])
        except ValueError:  # damaged before
            content = {}
        lines[at] = json.dumps(_change(choose, content), separators=(",", ":")).encode()
    return b"\n".join([*lines, b""])


def _change(choose: random.Random, content: Any) -> Any:
    """One value somewhere in JSON replaced, removed or doubled."""
    holder, key = {"": content}, ""
    root: Any = holder
    for _ in range(choose.randrange(1, 6)):
        value: Any = holder[key]
        if isinstance(value, dict) and value:
            holder, key = value, choose.choice(sorted(value))
        elif isinstance(value, list) and value:
            holder, key = value, choose.randrange(len(value))  # type: ignore[assignment]
        else:
            break
    kind = choose.choice(["replace"] * 4 + ["remove", "double", "letters"])
    value = holder[key]
    if kind == "remove" and holder is not root:
        del holder[key]
    elif kind == "double" and isinstance(value, list):
        holder[key] = value * choose.choice([2, 50])
    elif kind == "letters" and isinstance(value, str):
        letters = [chr(choose.randrange(32, 127)) for _ in range(choose.choice([1, 5, 4000]))]
        holder[key] = "".join(letters)
    else:
        holder[key] = choose.choice(ODD)
    return root[""]


def _another_png(choose: random.Random) -> bytes:
    """A PNG with right checksums that claims some size, mode and content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    width, height = choose.choice(
        [(64, 48), (48, 64), (1, 1), (0, 5), (2**31 - 1,) * 2, (9000,) * 2]
    )
    depth, colour = choose.choice([(1, 0), (8, 3), (8, 0), (16, 2), (8, 6), (3, 9), (1, 3)])
    start = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, choose.choice([0, 0, 1, 7]))
    content = zlib.compress(bytes(choose.choice([10, 9000, 10**7])))
    text = b"longsam\0" + zlib.compress(bytes(10**6))
    parts = [chunk(b"IHDR", start)]
    if choose.random() < 0.3:
        parts.append(chunk(b"zTXt", b"longsam\0" + text))
    parts += [chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _prompts(
    choose: random.Random, files: Path, work: Path, predictor: Any, damaged: list[str]
) -> str:
    from fuzz import damage

    from longsam import prompts
    from longsam.cli import prompt_flags

    folder = work / "prompts"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(files / "prompts", folder)
    damaged.append(str(folder))
    path = folder / choose.choice(["prompts.json"] * 4 + ["mask.png"])
    data = path.read_bytes()
    if path.suffix == ".json" and choose.random() < 0.7:
        path.write_text(json.dumps(_change(choose, json.loads(data))))
    elif path.suffix == ".png" and choose.random() < 0.5:
        path.write_bytes(_another_png(choose))
    else:
        path.write_bytes(damage(choose, data))
    found = prompts.numbered(prompt_flags.from_json(folder / "prompts.json"))
    if path.suffix == ".json":
        damaged.clear()  # a prompt that is read, but says what no video has, is named by its values
    with predictor.init_state(files / "h264.mp4") as state:
        prompts.check(found, state.source)
        for _ in prompts.add(predictor, state, found):
            pass
    return "prompted"


def _detections(choose: random.Random, files: Path, predictor: Any) -> str:
    import numpy as np
    import torch

    from longsam.detections import track_detections

    oddness = choose.choice([0, 0, 0.02, 0.2])

    def number() -> Any:
        odd = [float("nan"), float("inf"), -5, 0, 1e300, -1e9, 2**70, "7", None, [], 1 + 2j]
        return choose.choice(odd) if choose.random() < oddness else choose.uniform(0, 64)

    def detector(_: Any) -> Any:
        count = choose.choice([0, 1, 1, 2, 5])
        boxes: Any = [
            [number() for _ in range(3 if choose.random() < oddness / 4 else 4)]
            for _ in range(count)
        ]
        if choose.random() < 0.6:  # in order, so that some are good
            with contextlib.suppress(TypeError):
                boxes = [
                    [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])] for box in boxes
                ]
        scores: Any = choose.choice([None, [0.9] * count])
        labels: Any = choose.choice([None, ["a"] * count, list(range(count))])
        kind = choose.choice(["tuple"] * 6 + ["list", "none"])
        if choose.random() < oddness:
            scores = choose.choice([[number() for _ in range(count)], 0.9, "high", [[]] * count])
            labels = choose.choice([[["list"]] * count, [np.nan] * count, 5, "cat"])
            kind = choose.choice(["tuple", "array", "tensor", "text", "number"])
        if kind == "array":
            return np.array(boxes, object)
        if kind == "tensor":
            return torch.full((count, 4), float(choose.choice([0.0, 5.0, float("nan")])))
        others = {"list": boxes, "text": "cat", "none": None, "number": 5}
        return others.get(kind, (boxes, scores, labels))

    min_hits = choose.choice([1, 2])
    steps = track_detections(
        predictor, files / "h264.mp4", detector, detect_every=2, min_hits=min_hits, max_objects=4
    )
    with closing(steps):
        for frame_idx, obj_ids, mask_logits, labels in steps:
            assert len(obj_ids) == len(mask_logits) == len(labels)
            if frame_idx == 6:
                break
    return "tracked"


def main() -> None:
    """One case, to look into it: `python fuzz_masks.py SEED FOLDER`."""
    import fuzz

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    fuzz.make_files(options.folder)
    make_files(options.folder)
    (options.folder / "damaged").mkdir()
    choose, damaged = random.Random(options.seed), list[str]()
    predictor = fuzz.build(options.folder)
    print(one_case(choose, options.folder, options.folder / "damaged", predictor, damaged))


if __name__ == "__main__":
    main()
