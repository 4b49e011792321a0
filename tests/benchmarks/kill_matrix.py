"""Runs that write masks, killed at random moments and resumed: are the files those of one run?

    python tests/benchmarks/kill_matrix.py --kills 40

Each format, and all of them together, through the API and through the command line. The testing
model tracks a short generated video and saves its state every 5 frames. The process is killed with
SIGKILL after some frame has been handed to the writer and a random time of up to two frames more
(every fourth kill at once after a save), and resumed, until the run has been killed so often; a run
that comes to its end meanwhile begins again in a new folder. Then every file is compared with that
of a run that was not killed: all but the overlay byte for byte; of the overlay, whose encoder
starts again, the number of frames and their time stamps, and the PSNR. Writes
results/kill_matrix.json; `tests/test_mask_kills.py` runs a shorter form.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

FORMATS = {
    "rle": ["rle"],
    "png": ["png"],
    "object_png": ["object_png"],
    "overlay": ["overlay"],
    "all": ["rle", "png", "object_png", "overlay"],
}
NUM_FRAMES = 30
SAVE_EVERY = 5
SEED = 2
SIZE = (96, 128)
LEAST_PSNR = 35


def make_video(folder: Path) -> Path:
    from longsam.testing import SyntheticVideo

    path = folder / "video.mp4"
    if not path.exists():
        SyntheticVideo(SEED, NUM_FRAMES, SIZE).write(path)
    return path


# The process that is killed


def track(way: str, formats: list[str], video: Path, out: Path, kill: list[float] | None) -> None:
    """Track to the end, or resume; killed so many seconds after a frame or a save if asked to.

    Args:
        way: "api" or "cli".
        formats: The writer's.
        video: The video.
        out: Where the masks and the state go.
        kill: The number of frames written here after which to kill, the seconds more, and whether
            it is a save that is waited for, rather than a frame.
    """
    import torch

    from longsam import LongVideoPredictor
    from longsam.masks import MaskWriter

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    num_written = 0

    def die() -> None:
        time.sleep(kill[1] if kill else 0)
        os.kill(os.getpid(), signal.SIGKILL)

    def note_write(*given: Any, **named: Any) -> None:
        nonlocal num_written
        write(*given, **named)
        num_written += 1
        if kill and num_written == kill[0] and not kill[2]:
            threading.Thread(target=die).start()

    def note_save(*given: Any, **named: Any) -> None:
        save(*given, **named)
        if kill and num_written >= kill[0] and kill[2]:
            threading.Thread(target=die).start()

    write, save = MaskWriter.write, LongVideoPredictor.save_state
    MaskWriter.write = note_write  # type: ignore[method-assign]
    LongVideoPredictor.save_state = note_save  # type: ignore[method-assign]
    (track_by_api if way == "api" else track_by_cli)(formats, video, out)


def clicks() -> list[tuple[float, float]]:
    from longsam.testing import SyntheticVideo

    video = SyntheticVideo(SEED, NUM_FRAMES, SIZE)
    return [video.click(0, number) for number in range(video.num_objects)]


def track_by_api(formats: list[str], video: Path, out: Path) -> None:
    from longsam import Autosave
    from longsam.masks import MaskWriter
    from longsam.testing import load_predictor

    predictor = load_predictor()
    save = out / "state.pt"
    if save.exists():
        state = predictor.load_state(save, video)
        writer = MaskWriter(out, formats, video=video, resume=state)
        run = predictor.resume_propagation
    else:
        state = predictor.init_state(video)
        for number, click in enumerate(clicks()):
            predictor.add_new_points_or_box(state, 0, number + 1, points=[click], labels=[1])
        writer = MaskWriter(out, formats, video=video, resume=True)
        writer.drop_after(-1)
        run = predictor.propagate_in_video
    autosave = Autosave(save, every=SAVE_EVERY, before_save=writer.flush)
    with writer:
        for step in run(state, autosave=autosave, progress_bar=False):
            writer.write(*step)


def track_by_cli(formats: list[str], video: Path, out: Path) -> None:
    from longsam.cli import main

    words = ["track", str(video), "--testing-model", "--device", "cpu", "--quiet"]
    for x, y in clicks():
        words += ["--point", f"{x:.0f},{y:.0f}"]
    words += ["--out", str(out), "--format", ",".join(formats), "--save-every", str(SAVE_EVERY)]
    code = main([*words, *(["--resume"] if (out / "frames.jsonl").exists() else [])])
    if code:
        raise SystemExit(code)


# The process beside


def one_process(
    way: str, formats: list[str], video: Path, out: Path, kill: list[float] | None
) -> int:
    command = [sys.executable, "-W", "ignore", __file__, "--track"]
    command.append(json.dumps([way, formats, str(video), str(out), kill]))
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode not in ((0, -signal.SIGKILL) if kill else (0,)):
        raise RuntimeError(
            f"{way} {formats} killed at {kill}: {child.returncode}, {child.stderr[-3000:]}"
        )
    return child.returncode


def kill_and_resume(
    way: str, name: str, video: Path, folder: Path, num_kills: int, choose: random.Random
) -> dict[str, Any]:
    """One cell of the matrix."""
    formats = FORMATS[name]
    whole = folder / f"{way}-whole-{name}"
    started = time.monotonic()
    one_process(way, formats, video, whole, None)
    seconds_a_frame = min(0.5, (time.monotonic() - started) / NUM_FRAMES)
    cell: dict[str, Any] = {"kills": 0, "after_a_save": 0, "runs": 0, "different": []}
    while cell["kills"] < num_kills:
        out = folder / f"{way}-killed-{name}"
        shutil.rmtree(out, ignore_errors=True)
        code = -1
        while code:
            kill = None
            if cell["kills"] < num_kills:
                after_a_save = cell["kills"] % 4 == 3
                more = 0.0 if after_a_save else choose.uniform(0, 2 * seconds_a_frame)
                kill = [choose.randrange(1, 13), more, after_a_save]
            code = one_process(way, formats, video, out, kill)
            if code and kill:
                cell["kills"] += 1
                cell["after_a_save"] += int(kill[2])
        cell["runs"] += 1
        cell["different"] += compare(whole, out, cell)
    return cell


def compare(whole: Path, out: Path, cell: dict[str, Any]) -> list[str]:
    """The files that differ."""
    # Snapshots are named and made anew by each process; what was dropped is in one of them only.
    files = [
        {
            p.relative_to(folder): p
            for p in folder.rglob("*")
            if p.is_file() and not p.relative_to(folder).parts[0].startswith(("snap", "dropped-"))
        }
        for folder in (whole, out)
    ]
    different = [str(path) for path in files[0].keys() ^ files[1].keys()]
    for path in files[0].keys() & files[1].keys() - {Path("state.pt"), Path("overlay.mp4")}:
        if files[0][path].read_bytes() != files[1][path].read_bytes():
            different.append(str(path))
    if Path("overlay.mp4") in files[0].keys() & files[1].keys():
        times, psnr = compare_overlays(whole / "overlay.mp4", out / "overlay.mp4")
        cell["least_psnr"] = round(min(psnr, cell.get("least_psnr", 999.0)), 1)
        if not times or psnr < LEAST_PSNR:
            different.append("overlay.mp4")
    return sorted(different)


def compare_overlays(whole: Path, other: Path) -> tuple[bool, float]:
    """Whether frames and time stamps are the same, and the least PSNR of a frame."""
    import av
    import numpy as np

    times: list[list[Any]] = []
    frames: list[list[Any]] = []
    for path in (whole, other):
        with av.open(path) as video:
            decoded = list(video.decode(video=0))
        times.append([frame.time for frame in decoded])
        frames.append([frame.to_ndarray(format="rgb24").astype(float) for frame in decoded])
    errors = [np.mean((a - b) ** 2) for a, b in zip(*frames, strict=False)]
    psnr = 10 * np.log10(255**2 / max(*errors, 1e-9))
    return times[0] == times[1], float(psnr)


def matrix(ways: list[str], names: list[str], num_kills: int, seed: int) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = make_video(folder)
        for way in ways:
            for format in names:
                choose = random.Random(f"{seed} {way} {format}")
                cells[f"{way}, {format}"] = kill_and_resume(
                    way, format, video, folder, num_kills, choose
                )
                print(f"{way}, {format}", cells[f"{way}, {format}"], flush=True)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40, help="in each cell")
    parser.add_argument("--ways", default="api,cli")
    parser.add_argument("--formats", default=",".join(FORMATS), help="cells measured before stay")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--track")
    options = parser.parse_args()
    if options.track:
        way, formats, video, out, kill = json.loads(options.track)
        track(way, formats, Path(video), Path(out), kill)
        return
    import report

    started = time.perf_counter()
    cells = matrix(options.ways.split(","), options.formats.split(","), options.kills, options.seed)
    before = report.numbers_so_far("kill_matrix")
    numbers = {
        "frames": NUM_FRAMES,
        "save_every": SAVE_EVERY,
        "seed": options.seed,
        "minutes": round((time.perf_counter() - started) / 60 + before.get("minutes", 0), 1),
        "cells": before.get("cells", {}) | cells,
    }
    print(report.write("kill_matrix", numbers))


if __name__ == "__main__":
    main()
