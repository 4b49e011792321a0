"""A mask folder from somebody else: it cannot crash, fill the memory or reach outside."""

import http.server
import json
import os
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from longsam.cli import main
from longsam.masks import MaskFolder, MaskWriter, read_masks, rle

SIZE = (48, 64)
IDS: list[int | str] = [1, "bee"]


def masks(frame_idx: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frame_idx)
    return torch.rand(2, *SIZE, generator=generator) > 0.7


def make(folder: Path, formats: Any = "rle", num_frames: int = 4) -> Path:
    with MaskWriter(folder, formats) as writer:
        for i in range(num_frames):
            writer.write(i, IDS, masks(i))
    return folder


def change_line(path: Path, number: int, line: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = line
    path.write_bytes(b"\n".join(lines))


LINE = b'{"frame":2,"areas":[1],"ids":["a"],"rle":[0,1]'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"frame":2,"ids":[1,"bee"],"areas":[1,\xff],"rle":[0,1]}', "not UTF-8"),
        (b'{"frame":2,"ids":[1,"bee"],"areas":[1,1],"rle":[0,1]', r"not of the form"),
        (b'{"frame":2,"ids":[1,"bee",}', r"not JSON"),
        (b"[1, 2]", "not of the form"),
        (b'{"frame":2,"ids":7,"areas":[],"rle":[0,1]}', '"ids" a list'),
        (b'{"frame":2,"ids":[1.5],"areas":[1],"rle":[0,1]}', "object id 1.5 is of type float"),
        (b'{"frame":2,"ids":[true],"areas":[1],"rle":[0,1]}', "True is of type bool"),
        (b'{"frame":2,"ids":[1,1],"areas":[1,1],"rle":[0,1]}', "there twice"),
        (b'{"frame":2,"ids":[1],"areas":[1e999],"rle":[0,1]}', '"areas" must have a number'),
        (b'{"frame":2,"ids":[1],"areas":[-1],"rle":[0,1]}', '"areas" must have a number'),
        (b'{"frame":2,"ids":[1],"areas":[1],"rle":[0]}', '"rle" must be two numbers'),
        (b'{"frame":2,"ids":[1],"areas":[1],"rle":[0,99999999]}', "at most 16777216"),
        (LINE + b"}", '"boxes" must have a box, or null'),
        (LINE + b',"boxes":[null]}', "has None for a mask of 1 pixels"),
        (LINE + b',"boxes":[[0,0,1]]}', "a box is"),
        (LINE + b',"boxes":[[0,0,1,1e999]]}', "a box is"),
        (LINE + b',"boxes":[[0,0,0,1]]}', "holds no mask of 1 pixels"),
        (LINE + b',"boxes":[[60,0,65,1]]}', "holds no mask of 1 pixels"),
        (LINE.replace(b"[1],", b"[5],") + b',"boxes":[[0,0,1,1]]}', "holds no mask of 5 pixels"),
        (LINE.replace(b"[1],", b"[0],") + b',"boxes":[[0,0,1,1]]}', "holds no mask of 0 pixels"),
        (LINE + b',"boxes":[[0,0,1,1]],"scores":[NaN]}', '"scores" must have a number'),
        (LINE + b',"boxes":[[0,0,1,1]],"scores":[1e999]}', '"scores" must have a number'),
        (LINE + b',"boxes":[[0,0,1,1]],"scores":[true]}', '"scores" must have a number'),
        (LINE + b',"boxes":[[0,0,1,1]],"ious":[1,2]}', '"ious" must have a number'),
        (LINE + b',"boxes":[[0,0,1,1]],"ious":"1"}', '"ious" must have a number'),
        (LINE + b',"boxes":[[0,0,1,1]],"time":Infinity}', '"time" must be seconds'),
        (LINE + b',"boxes":[[0,0,1,1]],"time":"1"}', '"time" must be seconds'),
        (b'{"frame":2,"ids":[1],"areas":[1],"rle":' + b"[" * 9999 + b"}", "nested too deeply|JSON"),
        (b'{"frame":2,"ids":[' + b"9" * 9000 + b'],"areas":[1],"rle":[0,1]}', "not JSON"),
    ],
)
def test_a_damaged_line_of_the_index_is_named(line: bytes, why: str, tmp_path: Path) -> None:
    path = make(tmp_path) / "frames.jsonl"
    change_line(path, 4, line)
    with pytest.raises(ValueError, match=rf"frames\.jsonl, line 4: .*({why})"):
        list(read_masks(tmp_path))


def test_a_line_that_never_ends(tmp_path: Path) -> None:
    path = make(tmp_path) / "frames.jsonl"
    with path.open("ab") as file:
        file.write(b'{"frame":4,"ids":["' + b"a" * (3 << 20))
    with pytest.raises(ValueError, match=r"frames\.jsonl, line 6: longer than 1048576 bytes"):
        MaskFolder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("longsam_masks", 1, "no index of masks of version 3"),
        ("size", [100_000, 100_000], "100000x100000 pixels"),
        ("size", [16_384, 16_384], "at most 67108864"),
        ("size", [0, 5], "5x0 pixels"),
        ("size", ["48", 64], '"size" must be a height and a width'),
        ("formats", "rle", '"formats" must be a list'),
        ("formats", ["rle", "rle"], "may occur once"),
        ("formats", ["gif"], "may occur once"),
        ("video", 5, '"video" must be a path'),
        ("frame_rate", [1, 0], '"frame_rate" must be two numbers'),
    ],
)
def test_a_damaged_header_is_named(key: str, value: Any, why: str, tmp_path: Path) -> None:
    path = make(tmp_path) / "frames.jsonl"
    header = json.loads(path.read_bytes().split(b"\n")[0])
    change_line(path, 1, json.dumps(header | {key: value}).encode())
    with pytest.raises(ValueError, match=rf"frames\.jsonl, line 1: .*{why}"):
        MaskFolder(tmp_path)
    with pytest.raises(ValueError, match=r"frames\.jsonl, line 1"):
        MaskWriter(tmp_path, resume=True)
    assert not (tmp_path / "writer.lock").exists()


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ({"size": [65_536, 65_536], "counts": "PPPPPP4"}, "but masks are"),
        ({"size": [100_000, 100_000], "counts": "PPPPPPP0"}, "but masks are"),
        ({"size": list(SIZE), "counts": "1"}, "covers 1 pixels"),  # other people's memory
        ({"size": list(SIZE), "counts": ""}, "covers 0 pixels"),
        ({"size": list(SIZE), "counts": "P"}, "is damaged"),
        ({"size": list(SIZE), "counts": "\u0001"}, "is damaged"),
        ({"size": list(SIZE), "counts": "\u00e9"}, "as text"),
        ({"size": list(SIZE), "counts": [48 * 64]}, "as text"),
        ({"size": list(SIZE), "counts": "oooooooo0"}, "more than 35 bits"),
        ({"size": list(SIZE), "counts": "oooooo0"}, "longer than the mask"),
        ({"size": list(SIZE), "counts": "O"}, "negative"),
        ([], "must be an object"),
    ],
)
def test_run_lengths_that_lie(segmentation: Any, why: str, tmp_path: Path) -> None:
    """Some ended the process (a size beyond 32 bits), or showed memory of others."""
    make(tmp_path)
    objects = [{"id": i, "area": 1, "segmentation": segmentation} for i in IDS]
    line = json.dumps({"frame": 3, "objects": objects}).encode()
    rewrite_last(tmp_path, line)
    with pytest.raises(ValueError, match=rf"masks\.jsonl, line 4: .*{why}"):
        MaskFolder(tmp_path).read(3)


def rewrite_last(folder: Path, line: bytes) -> None:
    """Put another line in the place of the last frame's masks."""
    lines = (folder / "masks.jsonl").read_bytes().split(b"\n")[:-1]
    start = sum(len(before) + 1 for before in lines[:-1])
    (folder / "masks.jsonl").write_bytes(b"\n".join([*lines[:-1], line, b""]))
    index = (folder / "frames.jsonl").read_bytes().split(b"\n")[:-1]
    last = json.loads(index[-1]) | {"rle": [start, len(line) + 1]}
    index[-1] = json.dumps(last, separators=(",", ":")).encode()
    (folder / "frames.jsonl").write_bytes(b"\n".join([*index, b""]))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"frame":3,"objects":7}', "not the masks of frame 3"),
        (b'{"frame":2,"objects":[]}', "not the masks of frame 3"),
        (b'{"frame":3,"objects":[]}', "other objects"),
        (b'{"frame":3,"objects":[1,2]}', "other objects"),
        (b'{"frame":3,"objects":[{"id":1},{"id":"bee"}]}', "must be an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b"7", "not a JSON object"),
    ],
)
def test_damaged_masks_are_named(line: bytes, why: str, tmp_path: Path) -> None:
    make(tmp_path)
    rewrite_last(tmp_path, line)
    with pytest.raises(ValueError, match=rf"masks\.jsonl, line 4: .*{why}"):
        MaskFolder(tmp_path).read(3)


def test_run_lengths_are_read_as_pycocotools_reads_them() -> None:
    rng = np.random.default_rng(5)
    for height, width, density in [(1, 1, 1.0), (7, 5, 0.5), (300, 200, 0.01), (90, 3, 0.0)]:
        for _ in range(20):
            mask = rng.random((height, width)) < density
            code = coco.encode(np.asfortranarray(mask, np.uint8))
            segmentation = {"size": [height, width], "counts": code["counts"].decode()}
            assert np.array_equal(rle.decode(segmentation, (height, width)), mask)
    mask = np.zeros((2000, 2000), bool)  # long runs, and long ones after short ones
    mask[5:7, 1900:] = mask[:, 3] = True
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    segmentation = {"size": [2000, 2000], "counts": code["counts"].decode()}
    assert np.array_equal(rle.decode(segmentation, (2000, 2000)), mask)


def test_many_objects_of_a_large_frame_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        writer.write(0, [1, 2], torch.zeros(2, 1000, 1000))
    with pytest.raises(ValueError, match=r"frames\.jsonl: the masks of frame 0 take 2000000 bytes"):
        MaskFolder(tmp_path, max_frame_bytes=1_999_999).read(0)
    assert MaskFolder(tmp_path, max_frame_bytes=2_000_000).read(0).masks.shape == (2, 1000, 1000)


@pytest.mark.parametrize("format", ["png", "object_png"])
def test_images_that_lie(format: str, tmp_path: Path) -> None:
    make(tmp_path, format)
    folder = tmp_path / format / ("bee" if format == "object_png" else "")
    mode = "P" if format == "png" else "1"

    def refused(why: str) -> None:
        with pytest.raises(ValueError, match=rf"000002\.png .*{why}"):
            MaskFolder(tmp_path).read(2)

    path = folder / "000002.png"
    Image.new(mode, (30_000, 30_000)).save(path)
    refused("has 30000x30000 pixels, but the masks have 64x48")
    Image.new("RGB", (64, 48)).save(path, "PNG")
    refused("is damaged: its pixels are 'RGB'")
    Image.new("L", (64, 48)).save(path, "JPEG")
    refused("is no PNG")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")  # would be run by Ghostscript
    refused("is no PNG")
    Image.new(mode, (64, 48)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:50])
    refused("is damaged")
    path.write_bytes(b"")
    refused("is no PNG")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"000002\.png"):
        MaskFolder(tmp_path).read(2)


def test_the_table_of_objects_cannot_name_other_files(tmp_path: Path) -> None:
    make(tmp_path, ["png", "object_png"])
    path = tmp_path / "frames.jsonl"
    line = path.read_bytes().split(b"\n")[1]
    assert b'"new":[{"id":1,"name":"1","number":1},{"id":"bee","name":"bee","number":2}]' in line
    change_line(path, 2, line.replace(b'"name":"bee"', b'"name":"../../bee"'))
    with pytest.raises(ValueError, match=r"frames\.jsonl, line 2: .* must be 'bee'"):
        MaskFolder(tmp_path)
    change_line(path, 2, line.replace(b'"number":2', b'"number":0'))
    with pytest.raises(ValueError, match=r"frames\.jsonl, line 2: .* must be from 1 to 255"):
        MaskFolder(tmp_path)
    change_line(path, 2, line.replace(b'"new"', b'"old"'))
    with pytest.raises(ValueError, match=r"frames\.jsonl: no line has the number of object 1"):
        MaskFolder(tmp_path, "png").read(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("masks.jsonl", "frames.jsonl"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is not a regular file"):
            list(read_masks(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize(
    "name", ["masks.jsonl", "png", "object_png", "overlay.ends", "writer.lock"]
)
def test_nothing_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).symlink_to(victim if "." in name else tmp_path)
    formats = ["rle", "png", "object_png", "overlay"]
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match=f"{name} is a link to "):
        MaskWriter(folder, formats).write(0, IDS, masks(0), image=image)
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim"]


@pytest.fixture
def server() -> Iterator[types.SimpleNamespace]:
    """Counts who comes."""
    found = types.SimpleNamespace(requests=[], url="")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        found.url = f"http://127.0.0.1:{http_server.server_port}/video.mp4"
        yield found
        http_server.shutdown()
        thread.join()


def test_show_opens_no_url_and_no_device_that_the_folder_names(
    server: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path) / "frames.jsonl"
    header = json.loads(path.read_bytes().split(b"\n")[0])
    videos = [
        server.url,
        f"concat:{server.url}",
        "/dev/zero",
        "//host/share/video.mp4",
        r"\\host\a",
    ]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        videos.append(str(tmp_path / "pipe"))
    for video in videos:
        change_line(path, 1, json.dumps(header | {"video": video}).encode())
        assert main(["show", str(tmp_path)]) == 0
        assert "masks are shown without their frames (--video FILE)" in capsys.readouterr().out
    assert server.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_show_writes_through_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    make(tmp_path / "out")
    (tmp_path / "out" / "contact_sheet.png").symlink_to(victim)
    assert main(["show", str(tmp_path / "out")]) == 1
    assert "contact_sheet.png is a link to" in capsys.readouterr().err
    assert victim.read_text() == "precious"


def test_show_of_odd_sizes_and_names(tmp_path: Path) -> None:
    with MaskWriter(tmp_path / "out") as writer:
        for i in range(3):
            writer.write(i, ["$x^{", "_a", "\ud800", "b" * 900], torch.ones(4, 2, 30_000))
    assert main(["show", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.height < 3000


def test_masks_need_neither_the_model_nor_sam2(tmp_path: Path) -> None:
    make(tmp_path)
    code = f"""
import sys, types
package = types.ModuleType("longsam")
package.__path__ = [{str(Path(__file__).parents[1] / "longsam")!r}]
sys.modules["longsam"] = package
from longsam.masks import read_masks
assert len(list(read_masks({str(tmp_path)!r}))) == 4
loaded = [name for name in sys.modules if name.startswith(("sam2", "longsam.")) ]
assert all(name.startswith("longsam.masks") for name in loaded), loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
