"""Every command line of the README, of docs/ and of `--help`, run as it is written.

Only what a test cannot have is put in its place: the testing model for Meta's checkpoints, a stream
on loopback for the camera, an end after a few frames for long runs, and a coarse grid of points.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from davis_folders import write_davis

from longsam.cli import (
    app,
    correct,
    evaluate,
    export,
    fleet,
    frame,
    main,
    preview,
    program,
    review,
    track,
)
from longsam.masks import MaskFolder
from longsam.testing import SyntheticVideo

ROOT = Path(__file__).parents[1]
HELP = {
    module.__name__: module.EPILOG
    for module in (program, frame, preview, track, app, correct, export, review, evaluate)
}


FLEET = fleet.EPILOG
"""Its lines start a cluster of Ray, which takes a while."""


def in_text(text: str) -> list[str]:
    """Lines that begin with `longsam `, joined where a backslash ends them."""
    joined = text.replace("\\\n", " ")
    return [" ".join(line.split()) for line in re.findall(r"^\s*(longsam \w+ .*)$", joined, re.M)]


def in_readme() -> list[str]:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(longsam \w+ [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    whole = [line for line in inline if "..." not in line and "--help" not in line]
    return [line for block in blocks for line in in_text(block)] + whole


def in_docs() -> list[str]:
    texts = [path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    return [line for block in blocks for line in in_text(block)]


@pytest.fixture(scope="module")
def stream() -> Iterator[str]:
    server = Path(__file__).parent / "stream_server.py"
    process = subprocess.Popen(
        [sys.executable, server, "0", "0", "40", "20"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
    process.terminate()
    process.wait()
    process.stdout.close()


def as_a_test_runs_it(line: str, stream: str) -> list[str]:
    words = shlex.split(line)[1:]
    if "--checkpoint" in words:
        at = words.index("--checkpoint")
        words[at : at + 2] = ["--testing-model"]
    words = [stream if word.startswith("rtsp:") else word for word in words]
    if "--everything" in words:
        words += ["--points-per-side", "8"]
    if words[0] == "track" and "--both" not in words:
        words += ["--frames", "125" if words[-1] == "out" and "bees.mp4" in words else "10"]
    return words


def serves(words: list[str], folder: Path) -> bool:
    """Whether `longsam app` prints an address, and ends when it is told to."""
    with subprocess.Popen(
        [sys.executable, "-m", "longsam", *words, "--port", "0", "--quiet"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        process.terminate()
        process.wait(60)
    return address.startswith("http://127.0.0.1:")


def test_the_command_lines_run(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SyntheticVideo(2, 130, (360, 540)).write(tmp_path / "bees.mp4")
    (tmp_path / "prompts.json").write_text(
        json.dumps([{"object": 1, "points": [[60, 50]], "labels": [1]}])
    )
    for name in ("bear", "bees"):
        write_davis(tmp_path / "DAVIS", name, SyntheticVideo(5, 6, (96, 128)), resolution="480p")
    (tmp_path / "DAVIS" / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "DAVIS" / "ImageSets" / "2017" / "val.txt").write_text("bear\nbees\n")
    lines = [line for text in HELP.values() for line in in_text(text)]
    assert len(lines) >= 12
    lines += [line for line in in_readme() + in_docs() if not line.startswith("longsam fleet")]
    done: set[str] = set()
    for line in lines:
        words = as_a_test_runs_it(line, stream)
        if line in done or (words[:1] == ["demo"] and (tmp_path / words[1]).exists()):
            continue  # said in two places
        if "--resume" in words:  # of the run that the same line without it makes
            begun = [word for word in words if word != "--resume"]
            assert main([*begun, "--overwrite"]) == 0, line
        elif words[0] == "track" and (tmp_path / words[words.index("--out") + 1]).exists():
            words.append("--overwrite")
        done.add(line)
        if words[0] == "app":
            assert serves(words, tmp_path), line
        else:
            assert main(words) == 0, line
    assert MaskFolder(tmp_path / "out").frames
    assert len([line for line in done if line.startswith("longsam track")]) >= 5


@pytest.mark.slow
def test_the_fleets_command_lines_run(tmp_path: Path) -> None:
    """In a process of its own, on this machine: what needs a cluster or a bucket is left out."""
    SyntheticVideo(2, 5, (360, 540)).write(tmp_path / "bees.mp4")
    guide = (ROOT / "docs" / "guides" / "many-videos.md").read_text()
    (job,) = re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
    job = json.loads(job)
    for prompt in job["prompts"]:
        prompt["frame"] = 0
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job))
    lines = [line for line in in_text(FLEET) + in_docs() if line.startswith("longsam fleet")]
    lines += re.findall(r"--wrap '(?:exec )?(longsam fleet .*)'", guide)
    assert len(lines) >= 6
    done: list[list[str]] = []
    for number, line in enumerate(lines):
        words = as_a_test_runs_it(line, "")[1:]
        for flag in ("--address", "--gpus-per-worker", "--out"):
            if flag in words:
                at = words.index(flag)
                del words[at : at + 2]
        words = ["jobs.jsonl", *(word for word in words if not word.endswith(".jsonl"))]
        if words in done:
            continue  # the same, where there are no GPUs, cluster and bucket
        done.append(words)
        words = [sys.executable, "-m", "longsam", "fleet", *words, "--out", str(number), "--quiet"]
        command = " ".join(shlex.quote(word) if "$" not in word else word for word in words)
        slurm = {"SLURM_ARRAY_TASK_ID": "0", "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=os.environ | slurm,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, (line, run.stderr)
        assert len(MaskFolder(tmp_path / str(number) / "bees").frames) == 5
