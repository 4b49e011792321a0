"""Memory and time to the first mask over the length of a video, upstream beside longsam.

    python tests/benchmarks/length.py            # about 10 minutes on 2 idle cores, 24 GiB

Two measurements, each run in a process of its own on the same 720p H.264 files:
first mask: from `init_state` to the first mask of a pass, at SAM 2's own input size of 1024, where
    a frame takes what it takes with a released model. The model itself is a small one with seeded
    weights, so that little but frames is measured.
full pass: resident memory while the whole video is tracked, at an input size of 256, so that a pass
    over 10,000 frames ends.
A process that exceeds --limit-gb is stopped, and that is noted. Writes results/length.json and
results/length.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

LENGTHS = (100, 300, 1000, 3000, 10_000)


def track(library: str, video: Path, image_size: int, num_frames: int) -> None:
    """The measured process: prints a line of JSON every 50 frames."""
    import warnings

    import models
    import torch

    warnings.simplefilter("ignore")
    process = psutil.Process()

    def report(**numbers: Any) -> None:
        print(json.dumps({"rss": process.memory_info().rss, **numbers}), flush=True)

    torch.manual_seed(0)
    build = {"upstream": models.build_upstream, "longsam": models.build_ours}[library]
    size = f"++model.image_size={image_size}"
    predictor = build(None, overrides=[*models.SMALL[1:], size])
    report(step="built")
    started = time.perf_counter()
    state = predictor.init_state(str(video))
    predictor.add_new_points_or_box(state, 0, 1, points=[[640, 360]], labels=[1])
    for frame_idx, _, _ in predictor.propagate_in_video(
        state, max_frame_num_to_track=num_frames - 1
    ):
        if frame_idx == 0:
            report(step="first mask", seconds=time.perf_counter() - started)
        elif frame_idx % 50 == 0:
            report(step="frame", frame=frame_idx)
    report(step="end", seconds=time.perf_counter() - started)


def measure(library: str, video: Path, image_size: int, num_frames: int, limit: float) -> Any:
    """Run `track` in a process and watch its memory."""
    command = [sys.executable, __file__, "--track", library, str(video)]
    command += [str(image_size), str(num_frames)]
    worker = psutil.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    )
    peak, stopped = 0, False
    while worker.poll() is None:
        try:
            peak = max(peak, worker.memory_info().rss)
        except psutil.Error:
            break
        if peak > limit:
            stopped = True
            worker.kill()
        time.sleep(0.02)
    assert worker.stdout is not None
    lines = [json.loads(line) for line in worker.stdout]
    assert stopped or worker.wait() == 0, f"{library} failed on {video}"
    first = next((line for line in lines if line["step"] == "first mask"), None)
    end = next((line for line in lines if line["step"] == "end"), None)
    return {
        "library": library,
        "num_frames_of_the_video": int(video.stem),
        "num_frames_tracked": num_frames,
        "image_size": image_size,
        "stopped_above_the_limit": stopped,
        "seconds_to_first_mask": first and round(first["seconds"], 3),
        "seconds": end and round(end["seconds"], 2),
        "rss_mb_before": round(lines[0]["rss"] / 1e6),
        "rss_mb_at_first_mask": first and round(first["rss"] / 1e6),
        "peak_rss_mb": round(peak / 1e6),
        "rss_mb_every_50_frames": [
            round(line["rss"] / 1e6) for line in lines if line["step"] == "frame"
        ],
    }


def make_videos(folder: Path) -> dict[int, Path]:
    import av
    import videos

    files = {max(LENGTHS): folder / f"{max(LENGTHS)}.mp4"}
    options = {"g": "250", "bf": "0", "preset": "ultrafast", "crf": "28"}
    videos.write_video(files[max(LENGTHS)], max(LENGTHS), 720, 1280, options=options)
    for length in LENGTHS[:-1]:
        files[length] = folder / f"{length}.mp4"
        with av.open(files[max(LENGTHS)]) as whole, av.open(files[length], "w") as part:
            stream = whole.streams.video[0]
            copy = part.add_stream_from_template(stream)
            for _, packet in zip(range(length), whole.demux(stream), strict=False):
                packet.stream = copy
                part.mux(packet)
    return files


def plot(numbers: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (memory, first) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = {"upstream": "tab:red", "longsam": "tab:blue"}
    for library, colour in colours.items():
        runs = [run for run in numbers["first_mask"] if run["library"] == library]
        done = [run for run in runs if not run["stopped_above_the_limit"]]
        lengths = [run["num_frames_of_the_video"] for run in done]
        memory.loglog(
            lengths,
            [run["peak_rss_mb"] / 1e3 for run in done],
            "o-",
            color=colour,
            label=library,
        )
        first.loglog(
            lengths,
            [run["seconds_to_first_mask"] for run in done],
            "o-",
            color=colour,
            label=library,
        )
        stopped = [run["num_frames_of_the_video"] for run in runs if run not in done]
        if stopped:
            limit = numbers["limit_gb"]
            label = f"{library}: stopped at {limit:.0f} GB"
            memory.loglog(stopped, [limit] * len(stopped), "x", color=colour, label=label)
    memory.set(ylabel="GB", title="Peak memory up to the first mask")
    first.set(ylabel="s", title="Time to the first mask")
    for axes in (memory, first):
        axes.set_xlabel("frames of the video (720p)")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    import report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-gb", type=float, default=18)
    parser.add_argument("--track", nargs=4, metavar=("LIBRARY", "VIDEO", "SIZE", "FRAMES"))
    options = parser.parse_args()
    if options.track:
        library, video, image_size, num_frames = options.track
        track(library, Path(video), int(image_size), int(num_frames))
        return
    numbers: dict[str, Any] = {"limit_gb": options.limit_gb, "first_mask": [], "full_pass": []}
    with tempfile.TemporaryDirectory() as folder:
        files = make_videos(Path(folder))
        for kind, image_size in (("first_mask", 1024), ("full_pass", 256)):
            for length, video in files.items():
                if kind == "full_pass" and length in (100, 300):
                    continue
                for library in ("upstream", "longsam"):
                    tracked = 1 if kind == "first_mask" else length
                    limit = options.limit_gb * 1e9
                    run = measure(library, video, image_size, tracked, limit)
                    numbers[kind].append(run)
                    shown = {k: v for k, v in run.items() if k != "rss_mb_every_50_frames"}
                    print(kind, json.dumps(shown), flush=True)
    for runs in (numbers["first_mask"], numbers["full_pass"]):
        runs.sort(key=lambda run: (run["num_frames_of_the_video"], run["library"]))
    print(report.write("length", numbers))
    plot(numbers, report.RESULTS / "length.png")


if __name__ == "__main__":
    main()
