"""`longsam track --everything`: found, kept, resumed, and what it is refused with."""

import json
import re
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longsam import LongVideoPredictor
from longsam.cli import main, results
from longsam.detections import everything, track_detections
from longsam.frames import open_source
from longsam.masks import MaskFolder, MaskWriter
from longsam.testing import SyntheticVideo, iou, load_predictor

SIZE = (96, 128)
MODEL = ("--testing-model", "--device", "cpu", "--quiet")
LOOK: dict[str, Any] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.5,
}
"""Upstream's default thresholds are for the released models: the testing one is less sure."""

FLAGS = [
    word
    for name, value in LOOK.items()
    for word in (f"--{name.replace('_', '-')}", str(value))
]  # fmt: skip


class Late(SyntheticVideo):
    """Nothing but grey on the first 8 frames."""

    def frame(self, index: int) -> Any:
        return np.full((*SIZE, 3), 128, np.uint8) if index < 8 else super().frame(index)


VIDEO = Late(2, 36, SIZE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("everything") / "video.mp4"
    VIDEO.write(path)
    return path


def track(video: Path, out: Path, *words: object) -> int:
    line = ["track", video, "--out", out, *MODEL, *words]
    return main([str(word) for word in line])


def find(video: Path, out: Path, *words: object) -> int:
    return track(video, out, "--everything", *FLAGS, "--detect-every", 5, *words)


@pytest.fixture(scope="module")
def whole(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run that nothing has interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert find(video, out) == 0
    return out


def files(out: Path) -> dict[str, bytes]:
    """The files of a run; a save says when it was written."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in {"state.pt", "writer.lock"}
    }


def test_all_is_found_and_kept(whole: Path) -> None:
    """As tests/test_everything.py measures: every object, from when it is there, by one id."""
    folder = MaskFolder(whole)
    assert folder.frames == list(range(36))
    found = shown = 0
    best: dict[Any, float] = {}
    for i in range(36):
        _, obj_ids, masks = folder.read(i)
        if i < 10:  # looked for on every fifth frame
            assert obj_ids == []
            continue
        ious = iou(masks[:, None], VIDEO.masks(i)[None])
        for number in np.flatnonzero(VIDEO.visible(i)):
            shown += 1
            found += ious[:, number].max(initial=0) > 0.5
        for obj_id, one in zip(obj_ids, ious.max(axis=1, initial=0), strict=True):
            best[obj_id] = max(best.get(obj_id, 0), one)
    assert found / shown > 0.9
    assert sorted(best) == [1, 2]
    assert VIDEO.num_objects == 2
    assert min(best.values()) > 0.5


def test_scores_boxes_and_times_are_written(whole: Path, video: Path) -> None:
    """As the library gives them; the time of frames without an object too."""
    predictor = load_predictor()
    state = predictor.init_state(video)
    detector = everything(predictor, **LOOK)
    steps = track_detections(
        predictor, video, detector, state=state, detect_every=5, min_hits=1, min_score=0
    )
    folder = MaskFolder(whole)
    for (i, obj_ids, mask_logits, _), line in zip(steps, folder.lines(), strict=True):
        _, written, masks = folder.read(i)
        assert (line.frame_idx, written) == (i, obj_ids)
        assert np.array_equal(masks, (mask_logits[:, 0] > 0).numpy())
        assert line.time == pytest.approx(i / 30, abs=1e-6)
        scores = predictor.scores(state, i) if obj_ids else {}
        for obj_id, score, one in zip(obj_ids, line.scores, line.ious, strict=True):
            assert score == pytest.approx(scores[obj_id].object_score, rel=1e-4)
            assert one == pytest.approx(scores[obj_id].predicted_iou, rel=1e-4)
        assert [box is None for box in line.boxes] == [area == 0 for area in line.areas]


@pytest.mark.slow
def test_killed_and_resumed_gives_the_files_of_one_run(
    whole: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["--everything", *FLAGS, "--detect-every", "5", "--save-every", "3", *MODEL[:-1]]
    command = [sys.executable, "-m", "longsam", "track", str(video), "--out", str(out), *words]
    for until in (7, 21):  # while nothing is there, and in a pass
        process = subprocess.Popen(
            [*command, *(["--resume"] if out.exists() else [])],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        progress = ""
        while not any(int(n) >= until for n in re.findall(r"\b(\d+)/36", progress)):
            progress += (character := process.stderr.read(1))
            assert character, progress
        process.kill()
        assert process.wait() == -9
        process.stderr.close()
    assert (out / "state.pt").exists()
    assert track(video, out, "--resume") == 0  # the flags are in run.json
    assert files(out) == files(whole)


@pytest.mark.parametrize("stop", [3, 10, 11, 24])
def test_stopped_and_resumed(whole: Path, video: Path, tmp_path: Path, stop: int) -> None:
    """Stopped without objects, after the frame on which they are found, and in a pass."""
    out = tmp_path / "out"
    assert find(video, out, "--frames", stop) == 0
    assert len(MaskFolder(out)) == stop
    assert find(video, out, "--resume", "--frames", stop + 1) == 0
    assert track(video, out, "--resume") == 0
    assert files(out) == files(whole)


def test_a_run_of_some_frames(video: Path, tmp_path: Path, whole: Path) -> None:
    assert find(video, tmp_path / "out", "--start", 10, "--end", 30, "--step", 2) == 0
    folder = MaskFolder(tmp_path / "out")
    assert folder.frames == list(range(10, 30, 2))
    assert folder.obj_ids(10) == [1, 2]
    assert np.array_equal(folder.read(10).masks, MaskFolder(whole).read(10).masks)
    assert folder.time(28) == pytest.approx(28 / 30, abs=1e-6)


def test_what_is_too_small_or_too_many(video: Path, tmp_path: Path, whole: Path) -> None:
    """Areas are those that are found, in pixels; a mask of just that area is within the bounds."""
    with closing(open_source(video, None)) as source:
        (frame,) = source.read(10, 11)
    small, large = sorted(map(int, everything(load_predictor(), **LOOK)(frame).masks.sum((1, 2))))
    both = MaskFolder(whole).read(10).masks
    at = {"small": int(both.sum((1, 2)).argmin()), "large": int(both.sum((1, 2)).argmax())}

    def found(*words: object) -> set[str]:
        """Which of the two are tracked; there may be others, which lay on those left out."""
        assert (
            find(video, tmp_path / "out", "--start", 10, "--frames", 1, "--overwrite", *words) == 0
        )
        masks = MaskFolder(tmp_path / "out").read(10).masks
        return {name for name, i in at.items() if any(np.array_equal(m, both[i]) for m in masks)}

    assert found("--min-area", small, "--max-area", large) == {"small", "large"}
    assert found("--min-area", small + 1) == {"large"}
    assert found("--min-area", large) == {"large"}
    assert found("--min-area", large + 1) == set()
    assert found("--max-area", large - 1) == {"small"}
    assert found("--max-area", small - 1) == set()
    assert len(found("--max-objects", 1)) == 1
    assert found("--min-hits", 2) == set()


@pytest.mark.slow
def test_memory_stays_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the state holds after the window is full, and what a save of it takes."""
    video = SyntheticVideo(2, 160, SIZE)
    video.write(tmp_path / "long.mp4")
    held: list[tuple[int, int]] = []
    scores = LongVideoPredictor.scores

    def watched(self: LongVideoPredictor, state: Any, frame_idx: int) -> Any:
        held.append((len(state.obj_ids), sum(self.memory_usage(state)["total"].values())))
        return scores(self, state, frame_idx)

    monkeypatch.setattr(LongVideoPredictor, "scores", watched)
    out, sizes = tmp_path / "out", []
    words = ("--memory-window", 16, "--max-objects", 2, "--detect-every", 10)
    for until in (80, 160):
        resume = ("--resume",) if sizes else ()
        assert find(tmp_path / "long.mp4", out, *words, *resume, "--frames", until) == 0
        sizes.append((out / "state.pt").stat().st_size)
    assert len(MaskFolder(out)) == 160
    assert max(num for num, _ in held) == 2
    early, late = held[40:80], held[120:]
    assert max(size for _, size in late) <= 1.02 * max(size for _, size in early)
    assert sizes[1] < 1.1 * sizes[0]


def test_the_run_says_how_it_was_made(whole: Path) -> None:
    noted = json.loads((whole / "run.json").read_text())
    assert noted["prompts"] == []
    assert noted["everything"] == {
        **LOOK, "detect_every": 5, "min_area": None, "max_area": None, "min_hits": 1,
        "retire_after": 100, "max_objects": None, "points_per_batch": 64,
    }  # fmt: skip
    assert noted["is_finished"]
    assert not (whole / "snapshots").exists()


def test_what_is_refused(
    whole: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each, and the folder stays as it is."""
    cut, prompted = tmp_path / "cut", tmp_path / "prompted"
    assert find(video, cut, "--frames", 3) == 0
    assert track(video, prompted, "--box", "40,30,90,70@10", "--frames", 3) == 0
    folders = (whole, cut, prompted)
    before = [files(folder) for folder in folders]
    capsys.readouterr()
    resume = ["track", str(video), *MODEL, "--resume", "--out"]
    for words, code, why in (
        (["correct", str(whole), "--point", "5,5@20:1"], 1, "one of --everything"),
        ([*resume, str(cut), "--detect-every", "9"], 2, "has 5, so it would not be resumed"),
        ([*resume, str(cut), "--min-area", "9"], 2, "has the default, so it would"),
        ([*resume, str(cut), "--point", "5,5"], 2, "cannot be combined with --everything"),
        ([*resume, str(cut), "--both"], 2, "--both cannot be combined"),
        ([*resume, str(prompted), "--everything"], 2, "tracks what its prompts name"),
        ([*resume, str(prompted), "--min-hits", "2"], 2, "tracks what its prompts name"),
    ):
        assert main(words) == code
        said = capsys.readouterr()
        assert why in said.err
        assert said.err.count("\n") == 1
        assert said.out == ""
        assert [files(folder) for folder in folders] == before
    assert track(video, whole, "--resume") == 0
    assert capsys.readouterr().out.strip() == f"The run in {whole} is finished."


def test_a_run_of_many_objects_is_told_in_few_lines(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        writer.write(0, range(1, 31), np.ones((30, *SIZE), bool))
    lines = list(results.summary(tmp_path))
    assert lines[0] == "object 1: seen on 1 frames, empty on 0"
    assert lines[20:] == ["and 10 more objects"]


def test_a_stream(tmp_path: Path) -> None:
    """Objects are found on its first frame, and have scores."""
    SyntheticVideo(2, 12, SIZE).write(tmp_path / "video.ts")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((tmp_path / "video.ts").read_bytes())

        def log_message(self, *message: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/video.ts"
        words = ["--mode", "every", "--everything", *FLAGS, "--frames", "6", *MODEL]
        assert main(["track", url, "--out", str(tmp_path / "out"), *words]) == 0
        assert main(["track", url, "--out", str(tmp_path / "no"), *words, "--resume"]) == 1
        server.shutdown()
    folder = MaskFolder(tmp_path / "out")
    assert folder.frames == list(range(6))
    assert folder.obj_ids(0) == folder.obj_ids(5) == [1, 2]
    assert None not in folder.scores(5)
