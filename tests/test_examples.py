"""The README's code and the examples, run as a user runs them; docs/ is in tests/test_docs.py."""

import functools
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import av
import models
import numpy as np
import pytest
import saved_notebook
import torch
import videos
from PIL import Image

import longsam
from longsam.masks import MaskFolder

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def is_picture(path: Path, size: tuple[int, int]) -> None:
    """A picture with masks on it, width x height: not of one colour."""
    with Image.open(path) as picture:
        assert picture.size == size
        assert len(np.unique(np.asarray(picture))) > 50


def test_readme_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code runs as it stands; the files it names have seeded weights and five frames.

    Only the model's input is smaller, for the sake of time.
    """
    smaller = {"hydra_overrides_extra": ["++model.image_size=256"]}
    build = functools.partial(longsam.build_long_video_predictor, **smaller)
    monkeypatch.setattr(longsam, "build_long_video_predictor", build)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    models.save_checkpoint(tmp_path / "sam2.1_hiera_tiny.pt", overrides=())
    videos.write_video(tmp_path / "two_hours.mp4", 5, 480, 640)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3", "4"]


def test_resume_example(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "resume.py")
    words = [sys.executable, "-W", "error", script, "--out", str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "killed at frame 130 (exit code -9)" in result.stdout
    assert "resuming after 99." in result.stdout
    assert "All masks of 200 frames equal those of a run that was not killed" in result.stdout
    is_picture(tmp_path / "resumed.png", (3 * 320, 180))


def test_memory_bank_example(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "memory_bank.py")
    words = [sys.executable, "-W", "error", script, "--bank", str(tmp_path / "bank.pt")]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    scores = [float(score) for score in re.findall(r"mean IoU (\d\.\d\d)", result.stdout)]
    assert len(scores) == 3
    assert min(scores) > 0.7
    is_picture(tmp_path / "known.png", (3 * 256, 256))


def test_motion_example(tmp_path: Path) -> None:
    """Objects that enter and leave are found with OpenCV's background subtraction alone."""
    script = str(ROOT / "examples" / "detect_motion.py")
    words = [sys.executable, "-W", "error", script, "--out", str(tmp_path), "--frames", "250"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = re.search(r"mean IoU (\d\.\d\d), (\d+\.\d) % of visible", result.stdout)
    assert told is not None
    assert float(told[1]) > 0.8
    assert float(told[2]) < 10
    objects = re.search(r"^(\d+) objects", result.stdout, re.MULTILINE)
    assert objects is not None
    assert 3 <= int(objects[1]) <= 10
    with av.open(tmp_path / "masks" / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 250
    is_picture(tmp_path / "found.png", (320, 240))


def test_notebook(tmp_path: Path) -> None:
    """Every cell runs, and gives the kinds of outputs that are saved; what it says is right."""
    ran, saved = saved_notebook.run(tmp_path), saved_notebook.read()
    advice = "run `python tests/saved_notebook.py`"
    assert saved_notebook.kinds(ran) == saved_notebook.kinds(saved), advice
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    told = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    assert "300 frames of 320 x 240" in told
    assert "0 frames were left" in told
    assert not [o for o in outputs if o.get("name") == "stderr" and "Warning" in o["text"]]
    assert MaskFolder(tmp_path / "masks").frames == list(range(300))


def test_readme_commands_are_those_of_ci() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)\n```", readme, re.DOTALL)
    assert len(commands) == 3
    assert "examples/quickstart.py" in commands[0]
    assert commands[1] in readme.splitlines()
    assert "grep -m1 -F 'bin/pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_start_command_line(tmp_path: Path) -> None:
    """What docs/start.md does without a checkpoint; `demo` prints the second line itself."""
    start = (ROOT / "docs" / "start.md").read_text()
    (block,) = (
        block for block in re.findall(r"```sh\n(.*?)\n```", start, re.DOTALL) if "demo.mp4" in block
    )
    commands = block.splitlines()
    assert [command.split()[:2] for command in commands] == [
        ["longsam", name] for name in ("demo", "track", "show")
    ]
    for command in commands:
        words = [sys.executable, "-W", "error", "-m", *command.split()]
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        if command == commands[0]:
            assert commands[1].rsplit(" --format")[0] in result.stdout
    assert "25 of 300 frames" in result.stdout or "3 object(s)" in result.stdout


def quickstart(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "quickstart.py"), *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart_makes_its_own_video(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = quickstart("--frames", "30", "--out", str(out), "--device", "cpu")
    assert "Tracked 3 objects through 30 frames" in said
    overlap = re.search(r"overlap the true ones with a mean IoU of (\d\.\d\d)", said)
    assert overlap is not None
    assert float(overlap[1]) >= 0.8
    with av.open(out / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 30
        assert overlay.streams.video[0].codec_context.name == "h264"
    with Image.open(out / "memory.png") as plot:
        assert plot.width > 500


def test_quickstart_with_a_video_and_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = models.save_checkpoint(tmp_path / "tiny.pt", overrides=())
    video = videos.rotate(videos.write_video(tmp_path / "phone.mp4", 3), 90)
    said = quickstart(
        "--video", str(video), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"),
        "--point", "30,40", "--point", "60,70", "--config", models.CONFIG,
    )  # fmt: skip
    assert "mean IoU" not in said
    assert "Tracked 2 objects through 3 frames" in said
    with av.open(tmp_path / "out" / "overlay.mp4") as overlay:
        frame = next(overlay.decode(video=0))
    assert (frame.width, frame.height) == (120, 160)


@pytest.mark.slow
def test_released_config_at_full_size_equals_upstream(tmp_path: Path) -> None:
    """SAM 2.1 tiny at 1024 with seeded weights, 20 frames of 1280x1024: the real shapes."""
    checkpoint = models.save_checkpoint(tmp_path / "tiny.pt", overrides=())
    video = videos.write_video(tmp_path / "video.mp4", 20, 1024, 1280)
    masks = []
    for build in (models.build_upstream, models.build_ours):
        predictor = build(checkpoint, overrides=())
        state = predictor.init_state(str(video))
        predictor.add_new_points_or_box(state, 0, 1, points=[[400, 300]], labels=[1])
        predictor.add_new_mask(state, 0, 2, np.hypot(*np.mgrid[-512:512, -640:640]) < 200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            masks.append([m for _, _, m in predictor.propagate_in_video(state)])
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


UNTRAINED_YOLO = """
import sys, torch
from ultralytics import YOLO
torch.manual_seed(0)
yolo = YOLO("yolo11n.yaml")
head = yolo.model.model[-1]
with torch.no_grad():
    for scale in head.cv3:
        scale[-1].bias.fill_(-9.0)
    head.cv3[-1][-1].bias[0] = 1.0  # persons of a score of 0.73, at the coarsest scale
yolo.model.names[0] = "person"
yolo.save(sys.argv[1])
"""


def test_yolo_example(tmp_path: Path) -> None:
    """With an untrained detector that sees persons everywhere; weights would be a download."""
    videos.write_video(tmp_path / "video.mp4", 12, 96, 128)
    environment = {**os.environ, "YOLO_OFFLINE": "True", "YOLO_CONFIG_DIR": str(tmp_path)}
    weights = str(tmp_path / "yolo.pt")
    subprocess.run([sys.executable, "-c", UNTRAINED_YOLO, weights], env=environment, check=True)
    script = str(ROOT / "examples" / "detect_yolo.py")
    words = [sys.executable, script, "--video", str(tmp_path / "video.mp4")]
    words += ["--yolo", weights, "--every", "4", "--out", str(tmp_path / "out")]
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^frame 4: object \d+, person$", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^[1-9]\d* objects; masks in", result.stdout, re.MULTILINE)
    is_picture(tmp_path / "out" / "found.png", (128, 96))
    masks = MaskFolder(tmp_path / "out" / "masks")
    assert masks.frames == list(range(12))
    assert [bool(ids) for _, ids, _ in masks] == [False] * 4 + [True] * 8

    # Killed on frame 4 and taken up again, it gives the same; where its save is lost, too.
    words[1:1] = ["-u"]
    for save_every in ("3", "1000"):
        out = tmp_path / f"killed_{save_every}"
        words[words.index("--out") + 1] = str(out)
        again = [*words, "--save-every", save_every]
        with subprocess.Popen(again, stdout=subprocess.PIPE, text=True, env=environment) as run:
            assert run.stdout is not None
            assert any(line.startswith("frame 4:") for line in run.stdout)
            run.kill()
        if save_every == "1000":
            (out / "state.pt").unlink()
        result = subprocess.run(
            [*again, "--resume"], capture_output=True, text=True, env=environment
        )
        assert result.returncode == 0, result.stderr
        killed = MaskFolder(out / "masks")
        assert killed.frames == list(range(12))
        for (_, ids, expected), (_, same_ids, found) in zip(masks, killed, strict=True):
            assert list(same_ids) == list(ids)
            assert np.array_equal(found, expected)
