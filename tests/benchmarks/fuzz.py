"""Damaged files through all that reads them: no crash, no hang, no gigabytes.

    python tests/benchmarks/fuzz.py --cases 6000 --seed 1        # about 5 minutes on one core
    python tests/benchmarks/fuzz.py --part masks --cases 6000    # about 10 minutes

Every case is seeded: a good file (H.264 in MP4, MKV and TS, MPEG-4 in AVI, VP9 in WebM, JPEG and
PNG folders, saved states, memory banks) is changed (bytes flipped, zeroed, cut off, moved, put in
twice; of a save also values of its content, so that its checksums are right) and given to what
reads it. Cases run in processes of their own under limits of memory and time. A case is good when
it ends in frames, in a loaded state, or in one of the errors that the docstrings name. The part
"masks" does the same to mask folders (read, resumed, shown), prompts in JSON with their images, and
what detectors return; see fuzz_masks.py. Writes results/fuzz.json or results/fuzz_masks.json.
`tests/test_fuzz.py` runs shorter forms.
"""

import argparse
import json
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import fuzz_masks  # noqa: E402 (beside this file)

MEMORY = {"files": 2 << 30, "masks": 1 << 30}
"""Bytes that a process may hold beyond what it has before its first case: resident, and (four times
as much, for threads reserve much that they never touch) of address space."""

SECONDS = 30
"""For one case. A good one takes well below one."""

EXPECTED = {"ValueError", "RuntimeError", "FileNotFoundError"}
GOOD = {"frames", "no frames", "tracked", "loaded", "refused"} | {
    *("masks", "no masks", "resumed", "shown", "prompted")
}
SIDE = 32
NUM_FRAMES = 40


# Good files


def make_files(folder: Path) -> None:
    import videos

    size = (NUM_FRAMES, 48, 64)
    h264 = {"g": "12", "bf": "2"}
    videos.write_video(folder / "h264.mp4", *size, options=h264)
    videos.write_video(folder / "h264.mkv", *size, options=h264)
    videos.write_video(folder / "h264.ts", *size, options=h264)
    videos.write_video(folder / "mpeg4.avi", *size, codec="mpeg4", options={"g": "12"})
    videos.write_video(folder / "vp9.webm", *size, codec="libvpx-vp9", options={"g": "12"})
    for suffix in (".jpg", ".png"):
        videos.write_folder(folder / suffix[1:], 6, suffix, 48, 64)
    predictor = build(folder)
    state = predictor.init_state(folder / "h264.mp4")
    predictor.add_new_points_or_box(state, 0, 1, points=[[30, 20]], labels=[1])
    predictor.add_new_points_or_box(state, 3, "two", box=[10, 10, 40, 40])
    for step in predictor.propagate_in_video(state, start_frame_idx=0):
        if step[0] == 20:
            break
    predictor.save_state(state, folder / "state.pt")
    predictor.save_memory_bank(state, folder / "bank.pt")


def build(folder: Path) -> Any:
    import models

    overrides = [*models.SMALL[1:], "++model.image_size=64"]
    checkpoint = folder / "model.pt"
    if not checkpoint.exists():
        models.save_checkpoint(checkpoint, overrides=overrides)
    return models.build_ours(checkpoint, overrides=overrides)


# Damage


def damage(choose: random.Random, data: bytes) -> bytes:
    """Some bytes changed; near the start or end, where containers keep their tables, too."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8, 64])):
        if not changed:
            break
        size = min(len(changed), choose.choice([1, 1, 4, 16, 256, 4096]))
        where = choose.choice(["anywhere", "start", "end"])
        span = len(changed) - size if where == "anywhere" else min(2048, len(changed) - size)
        at = choose.randrange(span + 1)
        if where == "end":
            at = len(changed) - size - at
        part = changed[at : at + size]
        kind = choose.choice(["flip", "flip", "random", "zero", "ones", "cut", "drop", "double"])
        if kind == "flip":
            changed[at] ^= 1 << choose.randrange(8)
        elif kind == "random":
            changed[at : at + size] = choose.randbytes(size)
        elif kind in ("zero", "ones"):
            changed[at : at + size] = bytes([0 if kind == "zero" else 255]) * size
        elif kind == "cut" and choose.random() < 0.3:
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + size]
        elif kind == "double":
            changed[at:at] = part
    return bytes(changed)


def damage_content(choose: random.Random, content: Any) -> Any:
    """One value somewhere in a saved dict replaced, removed or made another type."""
    import torch

    holder, key, value = None, None, content
    for _ in range(choose.randrange(1, 8)):
        if isinstance(value, dict) and value:
            holder, key = value, choose.choice(list(value))
        elif isinstance(value, list) and value:
            holder, key = value, choose.randrange(len(value))
        else:
            break
        value = holder[key]
    assert holder is not None
    others: list[Any] = [None, -1, 0, 10**12, 1.5, "text", [], {}, torch.zeros(1), [None] * 3]
    kind = choose.choice(["replace", "replace", "remove", "tensor", "number"])
    if kind == "remove":
        del holder[key]
    elif kind == "tensor" and isinstance(value, torch.Tensor):
        holder[key] = choose.choice(
            [value[:0], value.flatten(), value.double(), value[..., :1], value * float("nan")]
        )
    elif kind == "number" and isinstance(value, int):
        holder[key] = value + choose.choice([-1, 1, 1000, -(10**6)])
    else:
        holder[key] = choose.choice(others)
    return content


# What reads them


def read_video(path: Path, reader: str) -> str:
    from longsam.frames import EndOfVideoError, open_source

    source = open_source(path, SIDE, reader=reader, frames_per_chunk=8)  # type: ignore[arg-type]
    try:
        num_frames = min(source.num_frames, 3 * NUM_FRAMES)
        count = 0
        for first, last in ((0, num_frames), (num_frames // 2, num_frames // 2 + 3), (0, 2)):
            try:
                for frame in source.read(first, min(last, source.num_frames)):
                    assert frame.shape == (SIDE, SIDE, 3), frame.shape
                    count += 1
            except EndOfVideoError:
                pass
        return "frames" if count else "no frames"
    finally:
        source.close()


def read_save(predictor: Any, path: Path, video: Path, kind: str, has_right_sums: bool) -> str:
    if kind == "state":
        state = predictor.load_state(path, video)
    else:
        state = predictor.init_state(video, memory_bank=path)
    try:
        if kind == "state":
            steps = predictor.resume_propagation(state)
        else:
            steps = predictor.propagate_in_video(state, start_frame_idx=0)
        with closing(steps):
            for _ in range(3):
                next(steps, None)
    except Exception:
        if not has_right_sums:  # else other values were put in on purpose: no matter
            raise
        return "loaded"
    finally:
        state["images"].close()
    return "tracked"


def one_case(
    seed: int, files: Path, work: Path, predictor: Any, damaged: list[str]
) -> tuple[str, str]:
    """What was read, and how it ended; an error should name the file that was damaged."""
    import torch

    from longsam import storage

    choose = random.Random(seed)
    kind = choose.choice(["video"] * 6 + ["images", "state", "bank"])
    if kind == "video":
        path = choose.choice(sorted(p for p in files.iterdir() if p.stem in VIDEOS))
        reader = choose.choice(["av", "av", "av", "decord"])
        target = work / path.name
        damaged.append(path.name)
        target.write_bytes(damage(choose, path.read_bytes()))
        return f"{path.name}, {reader}", read_video(target, reader)
    if kind == "images":
        folder = files / choose.choice(["jpg", "png"])
        shutil.rmtree(work / folder.name, ignore_errors=True)
        shutil.copytree(folder, work / folder.name)
        damaged.append(folder.name)
        for path in choose.sample(sorted((work / folder.name).iterdir()), 2):
            path.write_bytes(damage(choose, path.read_bytes()))
        return folder.name, read_video(work / folder.name, "av")
    path = files / f"{kind}.pt"
    target = work / path.name
    has_right_sums = choose.random() < 0.5
    if not has_right_sums:
        damaged.append(path.name)
        target.write_bytes(damage(choose, path.read_bytes()))
        what = f"{kind}, bytes"
    else:
        storage.write(damage_content(choose, torch.load(path, weights_only=True)), target)
        what = f"{kind}, content"
    return what, read_save(predictor, target, files / "h264.mp4", kind, has_right_sums)


VIDEOS = ("h264", "mpeg4", "vp9")


def work_on(part: str, first: int, last: int, files: Path) -> None:
    """In a process of its own: a line before and after each case."""
    import psutil
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    predictor = build(files)
    at_start = psutil.Process().memory_info()
    limit = at_start.vms + 4 * MEMORY[part]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    work = files / "damaged"
    work.mkdir(exist_ok=True)
    for seed in range(first, last):
        print(json.dumps({"seed": seed}), flush=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        what, damaged = "?", list[str]()
        try:
            if part == "files":
                what, ended = one_case(seed, files, work, predictor, damaged)
            else:
                choose = random.Random(seed)
                what, ended = fuzz_masks.one_case(choose, files, work, predictor, damaged)
        except Exception as error:
            ended = type(error).__name__
            if (
                part == "files" and ended == "TypeError" and not damaged
            ):  # a setting of another type, put in on purpose
                ended = "refused"
            elif ended not in EXPECTED:
                ended += ": " + traceback.format_exc()[-1500:]
            elif damaged and damaged[0] not in str(error):
                ended = f"unnamed {ended}: {error}"
        held = _most_resident() - at_start.rss
        if held > MEMORY[part]:
            ended = f"memory: {held >> 20} MiB, then {ended}"
        case = {"seed": seed, "what": what, "ended": ended, "mib": held >> 20}
        print(json.dumps(case), flush=True)


def _most_resident() -> int:
    """The most bytes that this process has held since its peak was set back."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) << 10


# The process beside


def run(
    first: int, count: int, files: Path, part: str = "files", most: dict[str, int] | None = None
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """So many cases; how they ended, and those that are not good.

    Args:
        first: The first seed.
        count: How many.
        files: The good files.
        part: Of which files.
        most: Under "mib", the most memory that a case took is put here.
    """
    ends: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    most = {"mib": 0} if most is None else most
    seed = first
    while seed < first + count:
        last = min(seed + 200, first + count)  # a fresh process now and then
        command = [sys.executable, __file__, "--work", part, str(seed), str(last), str(files)]
        worker = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reading = threading.Thread(target=_forward, args=(worker.stdout, lines))
        reading.start()
        seconds = 600.0  # to start
        while True:
            try:
                line = lines.get(timeout=seconds)
            except queue.Empty:
                bad.append({"seed": seed, "ended": f"no answer in {SECONDS} s"})
                ends["hang"] += 1
                worker.kill()
                seed += 1
                break
            if line is None:
                worker.wait()
                if seed < last:
                    bad.append({"seed": seed, "ended": f"exit {worker.returncode}"})
                    ends["crash"] += 1
                    seed += 1
                break
            seconds = SECONDS
            case = json.loads(line)
            seed = case["seed"]
            if "ended" in case:
                ends[case["ended"].split(":")[0]] += 1
                most["mib"] = max(most["mib"], case["mib"])
                if case["ended"].split(":")[0] not in {*EXPECTED, *GOOD}:
                    bad.append(case)
                seed += 1
        worker.kill()
        reading.join()
        worker.communicate()
    return ends, bad


def _forward(lines: Any, to: "queue.Queue[str | None]") -> None:
    for line in lines:
        to.put(line)
    to.put(None)


def main() -> None:
    import report

    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=sorted(MEMORY), default="files")
    parser.add_argument("--work", nargs=4)
    options = parser.parse_args()
    if options.work:
        part, first, last, files = options.work
        work_on(part, int(first), int(last), Path(files))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        if options.part == "masks":
            fuzz_masks.make_files(Path(folder))
        most = {"mib": 0}
        ends, bad = run(options.seed, options.cases, Path(folder), options.part, most)
    for case in bad:
        print(f"seed {case['seed']}, {case.get('what')}: {case['ended']}")
    numbers = {
        "seeds": [options.seed, options.seed + options.cases - 1],
        "ends": dict(ends.most_common()),
        "not_good": bad,
        "most_mib_above_the_start": most["mib"],
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    print(report.write("fuzz" if options.part == "files" else "fuzz_masks", numbers))


if __name__ == "__main__":
    main()
