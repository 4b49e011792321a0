"""J and F as others compute them, and evaluations of folders such as DAVIS's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from davis_folders import write_davis, write_sav
from PIL import Image

from longsam import LongVideoPredictor
from longsam.cli import main
from longsam.policies import Samurai
from longsam.testing import (
    ObjectScore,
    SyntheticVideo,
    boundary_f,
    davis_videos,
    evaluate,
    iou,
    load_predictor,
    score_masks,
)

FIRST = SyntheticVideo(2, 20, (96, 128), num_objects=3)
SECOND = SyntheticVideo(5, 16, (96, 128), num_objects=2)
LATE = {2: 7}
"""Of `FIRST`: object 2 is annotated from frame 7 on."""


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    write_davis(root, "first", FIRST, late=LATE, void_rows=30)
    write_davis(root, "second", SECOND, annotated=range(0, 16, 3))
    return root


@pytest.fixture(scope="module")
def evaluated(
    predictor: LongVideoPredictor, davis: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[ObjectScore]]]:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    return out, evaluate(predictor, davis, out, memory=["none", "samurai"])


of_pycocotools = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# The measures ------------------------------------------------------------------------------------


def pairs() -> list[tuple[Any, Any, Any]]:
    """Masks and truths of several sizes: alike, moved, empty, full; and void pixels."""
    rng = np.random.default_rng(0)

    def blobs(height: int, width: int) -> Any:
        small = Image.fromarray(rng.random((6, 9)).astype(np.float32))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) > 0.55

    found = []
    for height, width in ((48, 64), (101, 37), (240, 427)):
        truth = blobs(height, width)
        empty, full = np.zeros_like(truth), np.ones_like(truth)
        void = rng.random(truth.shape) < 0.02
        for mask in (truth, np.roll(truth, (2, 3), (0, 1)), blobs(height, width), empty, full):
            found += [(mask, truth, void), (mask, empty, void), (mask, full, void)]
    return found


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_j_and_f_are_those_of_esdft_segmetric() -> None:
    metrics = pytest.importorskip("segmetric.metrics")  # divides 0 by 0, and puts 1 there
    for mask, truth, void in pairs():
        for given in (None, void):
            assert iou(mask, truth, given) == pytest.approx(
                float(metrics.db_eval_iou(truth, mask, given)), abs=1e-12
            )
            assert boundary_f(mask, truth, given) == pytest.approx(
                float(metrics.db_eval_boundary(truth, mask, given)), abs=1e-12
            )


@of_pycocotools
def test_j_and_f_are_those_of_trackeval() -> None:
    measure = pytest.importorskip("trackeval").metrics.JAndF
    from pycocotools import mask as coco

    def encoded(mask: Any) -> list[list[Any]]:
        return [[coco.encode(np.asfortranarray(mask.astype(np.uint8)))]]

    for mask, truth, _ in pairs():
        codes = encoded(truth), encoded(mask)
        assert iou(mask, truth) == pytest.approx(measure._compute_j(*codes, 1, 1, 1).item())
        assert boundary_f(mask, truth) == pytest.approx(
            measure._compute_f(*codes, 0, 0, 0.008).item(), abs=1e-12
        )


def test_boundary_f_by_hand() -> None:
    """A square of 10 moved by 2: with a tolerance of a pixel only what crosses is near."""
    truth = np.zeros((60, 80), bool)
    truth[20:30, 20:30] = True
    assert boundary_f(truth, truth) == 1
    assert boundary_f(np.zeros_like(truth), truth) == 0
    assert boundary_f(np.zeros_like(truth), np.zeros_like(truth)) == 1
    moved = np.roll(truth, 1, 1)
    assert boundary_f(moved, truth) == 1  # 0.8 pixels are rounded up to 1
    assert boundary_f(np.roll(truth, 2, 1), truth) < 1
    both = torch.from_numpy(np.stack([truth, moved]))
    assert boundary_f(both, truth).tolist() == [1, 1]
    assert boundary_f(np.roll(truth, 5, 1), truth, tolerance=0.05).tolist() == 1
    with pytest.raises(ValueError, match="must end in the same height, width"):
        boundary_f(truth, truth[:-1])
    with pytest.raises(ValueError, match="must end in the same height, width"):
        iou(truth, truth, truth[:-1])
    with pytest.raises(ValueError, match="tolerance is 8"):
        boundary_f(truth, truth, tolerance=8)


# Evaluations -------------------------------------------------------------------------------------


def test_masks_are_those_of_objects_tracked_from_their_first_frame(
    predictor: LongVideoPredictor, davis: Path, evaluated: Any
) -> None:
    """Alone each, where it is the surest."""
    out, _ = evaluated
    logits = np.full((20, 3, 96, 128), -np.inf)
    for obj, start in ((0, 0), (1, 0), (2, 7)):
        state = predictor.init_state(str(davis / "JPEGImages" / "first"))
        mask = FIRST.masks(start)[obj].copy()
        mask[:30] = False
        predictor.add_new_mask(state, start, 1, mask)
        for frame_idx, _, found in predictor.propagate_in_video(state, progress_bar=False):
            logits[frame_idx, obj] = found[0, 0].numpy()
    labels = np.where(logits.max(axis=1) > 0, logits.argmax(axis=1) + 1, 0)
    for frame_idx in range(20):
        with Image.open(out / "masks" / "none" / "first" / f"{frame_idx:05d}.png") as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), labels[frame_idx])
    kept = sorted(path.name for path in (out / "masks" / "samurai" / "second").iterdir())
    assert kept == [f"{i:05d}.png" for i in range(0, 16, 3)]


@of_pycocotools
def test_scores_are_those_of_trackeval(davis: Path, evaluated: Any, tmp_path: Path) -> None:
    """Which counts all frames that it is given, so it is given those that count."""
    trackeval = pytest.importorskip("trackeval")
    out, scores = evaluated
    counted = {
        ("first", "1"): range(1, 19),
        ("first", "2"): range(1, 19),
        ("first", "3"): range(8, 19),
        ("second", "1"): range(3, 15, 3),
        ("second", "2"): range(3, 15, 3),
    }
    for memory, of_objects in scores.items():
        assert [(one.video, one.obj_id) for one in of_objects] == list(counted)
        for one in of_objects:
            frames = counted[one.video, one.obj_id]
            assert one.num_frames == len(frames)
            given = tmp_path / memory / one.video / one.obj_id
            truth = davis / "Annotations" / one.video
            masks = out / "masks" / memory / one.video
            for source, target in ((truth, given / "gt"), (masks, given / "t" / "x" / "data")):
                (target / "video").mkdir(parents=True)
                for i in frames:
                    only(source / f"{i:05d}.png", target / "video" / f"{i:05d}.png", one.obj_id)
            dataset = trackeval.datasets.DAVIS(
                {
                    "GT_FOLDER": str(given / "gt"), "TRACKERS_FOLDER": str(given / "t"),
                    "PRINT_CONFIG": False,
                }
            )  # fmt: skip
            raw = dataset.get_raw_seq_data("x", "video")
            data = dataset.get_preprocessed_seq_data(raw, "general")
            theirs = trackeval.metrics.JAndF().eval_sequence(data)
            ours = {"J-Mean": one.j, "F-Mean": one.f, "J&F": one.j_and_f}
            assert ours == pytest.approx({key: theirs[key] for key in ours})
    assert all(one.j > 0.5 for one in scores["none"])


def only(source: Path, target: Path, obj_id: str) -> None:
    """A copy with one object, and void."""
    with Image.open(source) as image:
        labels = np.asarray(image)
    kept = np.where((labels == int(obj_id)) | (labels == 255), labels, 0)
    Image.fromarray(kept.astype(np.uint8)).save(target)


def test_means_are_over_objects(evaluated: Any) -> None:
    out, scores = evaluated
    content = json.loads((out / "results.json").read_text())
    assert content["about"]["dtype"] == "float32"
    for memory, of_objects in scores.items():
        found = content["memory"][memory]
        assert found["num_objects"] == len(of_objects) == 5
        assert found["J"] == pytest.approx(np.mean([one.j for one in of_objects]))
        assert found["J&F"] == pytest.approx(np.mean([one.j_and_f for one in of_objects]))
    assert content["memory"]["none"]["policy"] is None
    assert content["memory"]["samurai"]["policy"]["options"]["motion_weight"] == 0.25


def test_folders_of_objects_as_in_sav(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    write_sav(tmp_path / "sav", "sav_000", SECOND)
    scores = evaluate(predictor, tmp_path / "sav", tmp_path / "out")["none"]
    assert [(one.obj_id, one.num_frames) for one in scores] == [("000", 2), ("001", 2)]
    for obj, one in enumerate(scores):
        found = []
        for i in (4, 8):
            path = tmp_path / "out" / "masks" / "none" / "sav_000" / f"{obj:03d}" / f"{i:05d}.png"
            with Image.open(path) as image:
                found.append(iou(np.asarray(image), SECOND.masks(i)[obj]))
        assert one.j == pytest.approx(np.mean(found))
        assert one.j > 0.5


def test_resolutions(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", SECOND, resolution="480p")
    write_davis(tmp_path, "a", FIRST, resolution="Full-Resolution")
    (video,) = davis_videos(tmp_path)
    assert len(video.images) == 16
    full = {"images": "JPEGImages/Full-Resolution", "annotations": "Annotations/Full-Resolution"}
    (video,) = davis_videos(tmp_path, **full)
    assert len(video.images) == 20
    assert video.first_frames() == {"1": 0, "2": 0, "3": 0}


KILLED = """
import os, signal, sys
from longsam.testing import evaluate, load_predictor
done = 0
def progress(memory, video, num_frames):
    global done
    done += num_frames
    if done == 30:
        os.kill(os.getpid(), signal.SIGKILL)
evaluate(load_predictor(), sys.argv[1], sys.argv[2], progress=progress)
"""


def test_killed_and_called_again(
    predictor: LongVideoPredictor, davis: Path, evaluated: Any, tmp_path: Path
) -> None:
    """In the second of two videos: only that one is tracked again."""
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, davis, out], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    masks = out / "masks" / "none"
    assert sorted(path.name for path in masks.iterdir()) == ["first", "second.partial"]
    written = (masks / "first" / "00019.png").stat().st_mtime_ns
    done: list[tuple[str, int]] = []
    scores = evaluate(
        predictor,
        davis,
        out,
        progress=lambda _, video, num_frames: done.append((video, num_frames)),
    )
    assert scores["none"] == evaluated[1]["none"]
    assert done == [("first", 20), *[("second", 1)] * 16]
    assert sorted(path.name for path in masks.iterdir()) == ["first", "second"]
    assert (masks / "first" / "00019.png").stat().st_mtime_ns == written


def test_masks_that_were_not_scored_are(
    predictor: LongVideoPredictor, davis: Path, evaluated: Any, tmp_path: Path
) -> None:
    """As after a kill between the two."""
    out = tmp_path / "out"
    shutil.copytree(evaluated[0], out)
    content = json.loads((out / "results.json").read_text())
    del content["memory"]["none"]["videos"]["first"]
    (out / "results.json").write_text(json.dumps(content))
    assert evaluate(predictor, davis, out)["none"] == evaluated[1]["none"]
    (out / "masks" / "none" / "first" / "00003.png").write_bytes(b"\x89PNG")
    del content["memory"]["none"]
    (out / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"00003\.png cannot be read.* Remove .*first to track"):
        evaluate(predictor, davis, out)


def test_results_made_otherwise_are_refused(
    predictor: LongVideoPredictor, davis: Path, evaluated: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(evaluated[0], out)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match="made with the dtype float32, not bfloat16"),
    ):
        evaluate(predictor, davis, out)
    with pytest.raises(ValueError, match=r"has samurai with .*, not with .*0\.5"):
        evaluate(predictor, davis, out, memory={"samurai": Samurai(motion_weight=0.5)})
    shutil.copytree(davis / "Annotations", tmp_path / "other")
    with pytest.raises(ValueError, match=r"made with the annotations .*; write to another folder"):
        evaluate(predictor, davis, out, annotations=str(tmp_path / "other"))
    other = load_predictor()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"made with the weights .*; write to another folder"):
        evaluate(other, davis, out)
    for text in ("{", "[]", '{"about": {}, "memory": {"none": {"videos": 3}}}', "[" * 100_000):
        (out / "results.json").write_text(text)
        with pytest.raises(ValueError, match=r"results\.json is damaged"):
            evaluate(predictor, davis, out)
    (out / "results.json").unlink()
    with pytest.raises(ValueError, match=r"holds masks, but no results\.json"):
        evaluate(predictor, davis, out)


# What is refused ---------------------------------------------------------------------------------


def test_folders_that_are_not_as_davis(tmp_path: Path) -> None:
    def refused(error: Any, match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            davis_videos(tmp_path, **options)

    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        davis_videos(tmp_path / "nowhere")
    refused(FileNotFoundError, "has no folder JPEGImages; name the one")
    write_davis(tmp_path, "a", SECOND)
    refused(ValueError, "has no video 'b'", videos=["b"])
    refused(FileNotFoundError, "Nothing is not a folder", images="Nothing")
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind).rename(tmp_path / f"{kind}_x")
    assert len(davis_videos(tmp_path)) == 1
    (tmp_path / "JPEGImages_y").mkdir()
    refused(FileNotFoundError, "has JPEGImages_x and JPEGImages_y; name the one")
    refused(ValueError, "has masks, but .* has no folder a", images="JPEGImages_y")
    (tmp_path / "JPEGImages_y" / "a").mkdir()
    refused(ValueError, "holds no JPEGs", images="JPEGImages_y")
    (tmp_path / "JPEGImages_y").rename(tmp_path / "y")
    masks = tmp_path / "Annotations_x" / "a"
    shutil.copy(masks / "00000.png", masks / "other.png")
    refused(ValueError, r"other\.png belongs to no frame")
    for path in masks.iterdir():
        path.unlink()
    refused(ValueError, "holds no PNGs")


def test_truths_that_cannot_be_used(
    predictor: LongVideoPredictor, davis: Path, tmp_path: Path
) -> None:
    shutil.copytree(davis, tmp_path / "davis")
    masks = tmp_path / "davis" / "Annotations" / "second"

    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            evaluate(predictor, tmp_path / "davis", tmp_path / "out", videos=["second"])

    Image.new("RGB", (128, 96)).save(masks / "00000.png")
    refused(r"00000\.png cannot be read as a mask: its pixels are RGB")
    os.unlink(masks / "00000.png")
    os.mkfifo(masks / "00000.png")
    refused(r"00000\.png is not a file")
    os.unlink(masks / "00000.png")
    for path in masks.iterdir():
        Image.new("L", (128, 96), 255).save(path)
    refused("No object of second shows on its annotated frames")
    for path in masks.iterdir():
        Image.new("L", (64, 48), 1).save(path)
    refused("have 64x48 pixels, its frames 128x96")
    with pytest.raises(ValueError, match="memory_policy is 'sam3'"):
        evaluate(predictor, davis, tmp_path / "out", memory=["sam3"])
    with pytest.raises(ValueError, match=r"memory '\.\./x' names a folder"):
        evaluate(predictor, davis, tmp_path / "out", memory={"../x": None})
    with pytest.raises(ValueError, match="memory is empty"):
        evaluate(predictor, davis, tmp_path / "out", memory=[])


def test_masks_of_others_are_scored(davis: Path, tmp_path: Path) -> None:
    (first, second) = davis_videos(davis)
    truth = davis / "Annotations"
    assert {one.j_and_f for one in score_masks(second, truth / "second")} == {1.0}
    shutil.copytree(truth / "first", tmp_path / "masks")
    Image.new("P", (12, 9)).save(tmp_path / "masks" / "00004.png")
    with pytest.raises(ValueError, match=r"00004\.png is \(9, 12\), and the truth \(96, 128\)"):
        score_masks(first, tmp_path / "masks")
    (tmp_path / "masks" / "00004.png").unlink()
    with pytest.raises(ValueError, match=r"00004\.png is not a file"):
        score_masks(first, tmp_path / "masks")


# The command line --------------------------------------------------------------------------------


def test_the_command_line(
    davis: Path, evaluated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val.txt").write_text("first\n\nsecond\n")
    words = [
        "evaluate", str(davis), "--testing-model", "--device", "cpu", "--quiet",
        "--memory", "none,samurai", "--out", str(tmp_path / "out"),
        "--videos", str(tmp_path / "val.txt"),
    ]  # fmt: skip
    shutil.copytree(evaluated[0] / "masks" / "samurai", tmp_path / "kept")
    assert main(words) == 0
    printed = capsys.readouterr().out
    for memory, of_objects in evaluated[1].items():
        mean = 100 * np.mean([one.j_and_f for one in of_objects])
        assert f"{memory:12} {mean:6.2f}" in printed
    content = (tmp_path / "out" / "results.json").read_bytes()
    assert main(words) == 0
    assert capsys.readouterr().out == printed
    assert (tmp_path / "out" / "results.json").read_bytes() == content
    assert main([*words[:-1], "third"]) == 1
    assert "has no video 'third'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--memory", "none,sam3"])
    assert "'sam3' is not one of none, upstream" in capsys.readouterr().err


def test_ctrl_c_says_how_to_continue(
    davis: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", str(davis), "--testing-model", "--quiet", "--out", str(tmp_path / "out")]
    propagate = LongVideoPredictor.propagate_in_video

    def interrupted(*given: Any, **options: Any) -> Any:
        for number, step in enumerate(propagate(*given, **options)):
            if number == 3:
                signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(LongVideoPredictor, "propagate_in_video", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        assert main(words) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "The same command continues" in capsys.readouterr().out
