"""Exports: each opened by a reader that others wrote, whole or not there, and from any folder."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from longsam.cli import main
from longsam.masks import MaskFolder, MaskWriter, export
from longsam.masks.exports import FORMATS
from longsam.testing import SyntheticVideo, iou

# pycocotools' own, where it decodes one mask
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (120, 160)
VIDEO = SyntheticVideo(3, 40, SIZE, "hard", num_objects=3)
IDS: list[int | str] = [7, "bee", "a<b&\n\"'é", "ring", "two"]
NUMBERS = {7: 7, "bee": 1, "a<b&\n\"'é": 2, "ring": 3, "two": 4}
FRAMES = [0, 1, 2, 3, 10, 11, 25, 39]


def masks_of(frame_idx: int) -> np.ndarray:
    """Three that move and hide each other, one with a hole, and one of two parts far apart."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(y - 60, x - 60 - frame_idx)
    ring = (distance < 28) & (distance > 12)
    two = np.zeros(SIZE, bool)
    two[4:20, 4:20] = two[100:118, 140:158] = frame_idx != 2
    return np.concatenate([VIDEO.masks(frame_idx), [ring, two]])


def write(folder: Path, **more: Any) -> Path:
    with MaskWriter(folder, **more) as writer:
        for i in FRAMES:
            scores = {7: (3.5, 0.9)}
            writer.write(i, IDS, torch.from_numpy(masks_of(i)), scores=scores, time=i / 25)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "trap 7"
    path.mkdir()
    for i in range(40):
        Image.fromarray(VIDEO.frame(i)).save(path / f"IMG_{500 + 3 * i}.JPG")
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def table(path: Path) -> dict[Any, int]:
    content = json.loads((path / "objects.json").read_text())
    return {entry["id"]: entry["number"] for entry in content["objects"]}


def test_coco_is_read_by_pycocotools_and_supervision(
    folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import supervision
    from pycocotools.coco import COCO

    out = tmp_path / "coco"
    assert run("export", folder, "--to", "coco", "--out", out, "--video", images, "--quiet") == 0
    assert "8 frames as coco" in capsys.readouterr().out
    assert table(out) == NUMBERS
    read = COCO(out / "instances.json")
    assert {c["name"] for c in read.loadCats(read.getCatIds())} == {
        "7", "bee", "a<b&?\"'é", "ring", "two"
    }  # fmt: skip
    assert len(read.getImgIds()) == len(FRAMES)
    for i in FRAMES:
        (image,) = read.loadImgs([i + 1])
        assert image["file_name"] == f"IMG_{500 + 3 * i}.JPG"
        found = {a["track_id"]: a for a in read.loadAnns(read.getAnnIds(imgIds=[i + 1]))}
        for obj_id, mask in zip(IDS, masks_of(i), strict=True):
            if not mask.any():
                assert NUMBERS[obj_id] not in found
                continue
            one = found[NUMBERS[obj_id]]
            assert np.array_equal(read.annToMask(one) > 0, mask)
            assert one["area"] == mask.sum()
            assert one.get("predicted_iou") == (0.9 if obj_id == 7 else None)
    data = supervision.DetectionDataset.from_coco(
        str(images), str(out / "instances.json"), force_masks=True
    )
    seen = 0
    for path, annotation in data.annotations.items():
        i = (int(Path(path).stem.removeprefix("IMG_")) - 500) // 3
        truth = [mask for mask in masks_of(i) if mask.any()]
        assert np.array_equal(annotation.mask, truth)
        seen += 1
    assert seen == len(FRAMES)


def test_ytvis_is_read_by_trackeval(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("trackeval").datasets
    from pycocotools import mask as coco

    out = export(folder, "ytvis", tmp_path / "gt" / "youtube_vis_x")
    table_path = out / "objects.json"
    assert table(out) == NUMBERS
    table_path.unlink()  # the reader wants one JSON in the folder
    (tmp_path / "trackers" / "youtube_vis_x").mkdir(parents=True)
    config = {
        "GT_FOLDER": f"{tmp_path}/gt/", "TRACKERS_FOLDER": f"{tmp_path}/trackers/",
        "SPLIT_TO_EVAL": "x", "PRINT_CONFIG": False, "TRACKERS_TO_EVAL": [],
    }  # fmt: skip
    read = datasets.YouTubeVIS(config)
    (sequence,) = read.seq_list
    data = read._load_raw_file(None, sequence, is_gt=True)
    assert data["num_timesteps"] == len(FRAMES)
    for at, i in enumerate(FRAMES):
        truth = {NUMBERS[o]: m for o, m in zip(IDS, masks_of(i), strict=True) if m.any()}
        assert set(data["gt_ids"][at].tolist()) == set(truth)
        for number, code in zip(data["gt_ids"][at].tolist(), data["gt_dets"][at], strict=True):
            assert np.array_equal(coco.decode(code) > 0, truth[number])


ULTRALYTICS = """
import sys
from pathlib import Path
import numpy as np
from ultralytics.data.utils import polygon2mask, verify_image_label
images, labels, target = map(Path, sys.argv[1:])
found = {}
for label in sorted(labels.iterdir()):
    image = next(images.glob(f"{label.stem}.*"))
    checked = verify_image_label((image, str(label), "", False, 5, 0, 0, False))
    rows, (h, w), segments = checked[1:4]
    for at, (row, segment) in enumerate(zip(rows, segments)):
        mask = polygon2mask((h, w), [(segment * (w, h)).reshape(-1)])
        found[f"{label.stem}/{at}/{int(row[0])}"] = mask > 0
np.savez_compressed(target, **found)
"""


def read_by_ultralytics(images: Path, labels: Path, target: Path) -> dict[tuple[str, int], Any]:
    """In a process of its own: importing it changes how Pillow opens images."""
    environment = os.environ | {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    words = [sys.executable, "-c", ULTRALYTICS, str(images), str(labels), str(target)]
    subprocess.run(words, check=True, env=environment, capture_output=True)
    masks: dict[tuple[str, int], Any] = {}
    with np.load(target) as found:
        for key, mask in found.items():
            stem, _, of_class = key.rsplit("/", 2)
            both = masks.get((stem, int(of_class)), False)
            masks[stem, int(of_class)] = both | mask
    return masks


def test_yolo_is_read_by_supervision_and_ultralytics(
    folder: Path, images: Path, tmp_path: Path
) -> None:
    import supervision

    out = export(folder, "yolo", tmp_path / "yolo", video=images)
    theirs = read_by_ultralytics(images, out / "labels", tmp_path / "theirs.npz")
    data = supervision.DetectionDataset.from_yolo(
        str(images), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    assert data.classes == ["7", "bee", "a<b&?\"'é", "ring", "two"]
    worst = 1.0
    for i in FRAMES:
        name = f"IMG_{500 + 3 * i}"
        one = data.annotations[str(images / f"{name}.JPG")]
        for at, mask in enumerate(masks_of(i)):
            of_class = one.class_id == at
            assert of_class.any() == ((name, at) in theirs) == mask.any()
            if mask.any():
                worst = min(worst, float(iou(one.mask[of_class].any(axis=0), mask)))
                worst = min(worst, float(iou(theirs[name, at], mask)))
    assert worst >= 0.98
    lines = (out / "labels" / "IMG_500.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines].count("3") == 1  # the hole costs no second polygon
    assert [line.split()[0] for line in lines].count("4") == 2  # far apart


def read_by_upstream(sequence: Path, frame_idx: int) -> dict[int, torch.Tensor]:
    """With the reader of upstream's training, where its needs are installed."""
    try:
        from training.dataset.vos_segment_loader import PalettisedPNGSegmentLoader
    except ImportError:
        return {}
    found: dict[int, torch.Tensor] = PalettisedPNGSegmentLoader(str(sequence)).load(frame_idx)
    return found


def test_davis_is_read_by_pillow_and_upstream(folder: Path, images: Path, tmp_path: Path) -> None:
    out = export(folder, "davis", tmp_path / "davis")
    (sequence,) = (out / "Annotations" / "Full-Resolution").iterdir()
    assert (out / "ImageSets" / "2017" / "val.txt").read_text() == f"{sequence.name}\n"
    assert sorted(p.name for p in sequence.iterdir()) == [f"{i:05d}.png" for i in FRAMES]
    for i in FRAMES:
        with Image.open(sequence / f"{i:05d}.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    for i in FRAMES:
        on_top = np.zeros(SIZE, int)
        areas = {at: mask.sum() for at, mask in enumerate(masks_of(i))}
        for at in sorted(areas, key=lambda at: -areas[at]):
            on_top[masks_of(i)[at]] = NUMBERS[IDS[at]]
        assert np.array_equal(np.asarray(Image.open(sequence / f"{i:05d}.png")), on_top)
        for number, mask in read_by_upstream(sequence, i).items():
            assert np.array_equal(mask.numpy(), on_top == number)
    named = export(folder, "davis", tmp_path / "named", video=images)
    (sequence,) = (named / "Annotations" / "Full-Resolution").iterdir()
    assert sequence.name == "trap 7"
    assert (sequence / "IMG_500.png").exists()


def test_davis_keeps_who_is_in_front(tmp_path: Path) -> None:
    """Where masks were written as PNGs, which know the logits."""
    logits = torch.full((2, *SIZE), -1.0)
    logits[0, 10:60, 10:60] = 2.0
    logits[1, 40:50, 40:90] = 1.0  # smaller, but less sure
    with MaskWriter(tmp_path / "m", ["rle", "png"]) as writer:
        writer.write(0, [1, 2], logits)
    out = export(tmp_path / "m", "davis", tmp_path / "d")
    (file,) = out.glob("Annotations/*/*/*.png")
    labels = np.asarray(Image.open(file))
    assert labels[45, 45] == 1
    assert labels[45, 80] == 2


def polygons(out: Path) -> Iterator[tuple[int, int, list[float]]]:
    """Number, frame and points of what is not outside."""
    from xml.etree import ElementTree

    for track in ElementTree.parse(out / "annotations.xml").getroot().iter("track"):
        for shape in track.iter("polygon"):
            if shape.get("outside") == "0":
                points = shape.get("points", "").replace(";", ",").split(",")
                yield (
                    int(track.get("id", "")),
                    int(shape.get("frame", "")),
                    list(map(float, points)),
                )


def test_cvat_comes_back(folder: Path, tmp_path: Path) -> None:
    from pycocotools import mask as coco

    out = export(folder, "cvat", tmp_path / "cvat")
    found = {(number, frame): points for number, frame, points in polygons(out)}
    for i in FRAMES:
        for obj_id, mask in zip(IDS, masks_of(i), strict=True):
            points = found.pop((NUMBERS[obj_id], i), None)
            assert (points is not None) == mask.any()
            if points is not None:
                filled = coco.decode(coco.merge(coco.frPyObjects([points], *SIZE)))
                assert iou(filled, mask) >= 0.98
    assert not found


def test_cvat_is_read_by_datumaro(folder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of packages it imports
        datumaro = pytest.importorskip("datumaro")
        out = export(folder, "cvat", tmp_path / "cvat")
        data = datumaro.Dataset.import_from(str(out), "cvat")
    labels = data.categories()[datumaro.AnnotationType.label]
    assert [label.name for label in labels] == ["7", "bee", "a<b&?\"'é", "ring", "two"]
    seen = 0
    for item in data:
        i = int(item.attributes["frame"])
        for shape in item.annotations:
            if shape.attributes["outside"]:
                assert i not in FRAMES or not masks_of(i)[shape.label].any()
                continue
            assert shape.attributes["track_id"] == NUMBERS[IDS[shape.label]]
            mask = datumaro.util.mask_tools.rles_to_mask([shape.points], SIZE[1], SIZE[0])
            assert iou(mask, masks_of(i)[shape.label]) >= 0.98
            seen += 1
    assert seen == sum(bool(mask.any()) for i in FRAMES for mask in masks_of(i))


def test_label_studio_is_read_by_its_decoder(folder: Path, images: Path, tmp_path: Path) -> None:
    decode_rle = pytest.importorskip("label_studio_brush_rle_rs").decode_rle
    out = export(folder, "labelstudio", tmp_path / "ls", video=images)
    assert not (out / "video.json").exists()
    tasks = json.loads((out / "brush.json").read_text())
    for i, task in zip(FRAMES, tasks, strict=True):
        url = task["data"]["image"]
        assert url == f"/data/local-files/?d=trap%207/IMG_{500 + 3 * i}.JPG"
        (prediction,) = task["predictions"]
        found = {int(r["id"]): r for r in prediction["result"]}
        for obj_id, mask in zip(IDS, masks_of(i), strict=True):
            result = found.pop(NUMBERS[obj_id], None)
            assert (result is not None) == mask.any()
            if result is not None:
                flat = np.asarray(decode_rle(result["value"]["rle"], False))
                assert np.array_equal(flat.reshape(*SIZE, 4)[..., 3] > 0, mask)
        assert not found


def test_label_studio_video_has_boxes(folder: Path, tmp_path: Path) -> None:
    out = export(folder, "labelstudio", tmp_path / "ls")
    (task,) = json.loads((out / "video.json").read_text())
    results = {int(r["id"]): r for r in task["predictions"][0]["result"]}
    assert set(results) == set(NUMBERS.values())
    sequence = {entry["frame"]: entry for entry in results[4]["value"]["sequence"]}
    assert list(sequence) == [1, 2, 4, 11, 12, 26, 40]
    assert [f for f, e in sequence.items() if e["enabled"]] == [1, 11]  # shown until the next
    assert sequence[1]["width"] == pytest.approx(100 * 154 / 160)


def test_napari_labels_are_read_by_ome_zarr(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Label, Reader

    out = export(folder, "napari", tmp_path / "napari")
    location = parse_url(out / "labels.ome.zarr")
    assert location is not None
    (node,) = Reader(location)()
    assert any(isinstance(spec, Label) for spec in node.specs)
    (array,) = node.data
    assert array.shape == (40, *SIZE)
    assert array.dtype == np.uint8
    assert node.metadata["properties"][1] == {"id": "bee"}
    expected = np.zeros(SIZE, int)
    areas = [mask.sum() for mask in masks_of(25)]
    for at in np.argsort(areas)[::-1]:
        expected[masks_of(25)[at]] = NUMBERS[IDS[at]]
    assert np.array_equal(array[25].compute(), expected)
    assert not array[26].compute().any()


@pytest.mark.parametrize("to", FORMATS)
def test_empty_folders_and_one_category(to: str, tmp_path: Path) -> None:
    if to == "napari":
        pytest.importorskip("zarr")
    with MaskWriter(tmp_path / "m") as writer:
        writer.write(3, [], torch.zeros(0, *SIZE))
    assert (export(tmp_path / "m", to, category="bee") / "objects.json").exists()
    assert (tmp_path / "m" / to).is_dir()


def test_one_category_keeps_the_tracks(folder: Path, tmp_path: Path) -> None:
    out = export(folder, "coco", tmp_path / "c", category="insect")
    content = json.loads((out / "instances.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["insect"]
    assert {a["category_id"] for a in content["annotations"]} == {1}
    assert {a["track_id"] for a in content["annotations"]} == set(NUMBERS.values())


def test_formats_of_polygons_say_what_happens_to_holes() -> None:
    """In `longsam export --help` too, which lists these."""
    for to in ("yolo", "cvat"):
        assert "holes are kept" in FORMATS[to]
        assert "keep holes" in " ".join((export.__doc__ or "").split())


def test_it_is_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    damaged = write(tmp_path / "damaged")
    data = (damaged / "masks.jsonl").read_bytes()
    (damaged / "masks.jsonl").write_bytes(data[: len(data) // 2])
    for to in FORMATS:
        if to == "napari":
            pytest.importorskip("zarr")
        with pytest.raises(ValueError, match=r"masks\.jsonl"):
            export(damaged, to, tmp_path / "out")
        assert {p.name for p in tmp_path.iterdir()} == {"damaged"}


def test_nothing_is_overwritten_that_is_no_export(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("export", folder, "--to", "coco", "--out", out, "--quiet") == 0
    before = (out / "instances.json").read_bytes()
    assert run("export", folder, "--to", "davis", "--out", out, "--quiet") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "instances.json").read_bytes() == before
    assert run("export", folder, "--to", "davis", "--out", out, "--overwrite", "--quiet") == 0
    assert not (out / "instances.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="is not an export of longsam"):
        export(folder, "coco", mine, overwrite=True)
    assert (mine / "thesis.tex").exists()


def test_a_hostile_folder_is_not_followed(tmp_path: Path) -> None:
    """Neither by a link where the export goes, nor to the video that it names."""
    folder = write(tmp_path / "m")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "coco").symlink_to(elsewhere)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is a link"):
            export(folder, "coco", overwrite=overwrite)
    assert not list(elsewhere.iterdir())
    lines = (folder / "frames.jsonl").read_text().splitlines()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for video in ("http://127.0.0.1:9/secret/../../x.mp4", "/etc", str(pipe), "../../../evil"):
        header = json.loads(lines[0]) | {"video": video}
        (folder / "frames.jsonl").write_text("\n".join([json.dumps(header), *lines[1:], ""]))
        out = export(folder, "davis", tmp_path / "out", overwrite=True)
        (sequence,) = (out / "Annotations" / "Full-Resolution").iterdir()
        assert sequence.resolve().is_relative_to(out.resolve())
        assert len(list(sequence.iterdir())) == len(FRAMES)


def test_images_that_do_not_fit_are_told(folder: Path, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(VIDEO.frame(0)).save(few / "1.jpg")
    with pytest.raises(ValueError, match="holds 1 images"):
        export(folder, "coco", tmp_path / "out", video=few)
    with pytest.raises(ValueError, match="no video and no folder"):
        export(folder, "coco", tmp_path / "out", video=tmp_path / "none")
    twice = tmp_path / "twice"
    twice.mkdir()
    for i in range(20):
        for suffix in ("jpg", "jpeg"):
            Image.fromarray(VIDEO.frame(i)).save(twice / f"{i}.{suffix}")
    with pytest.raises(ValueError, match="one file for both"):
        export(folder, "yolo", tmp_path / "out", video=twice)


def test_lines_are_those_of_the_frames(folder: Path) -> None:
    masks = MaskFolder(folder)
    assert [line.frame_idx for line in masks.lines()] == FRAMES
    assert [line.frame_idx for line in masks.lines([25, 1])] == [25, 1]
    with pytest.raises(KeyError):
        list(masks.lines([26]))
    assert masks.all_obj_ids() == IDS
