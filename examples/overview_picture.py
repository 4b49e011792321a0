"""Draw the README's moving picture: masks over a video, beside the memory that both take.

    python examples/overview_picture.py

Left, the small model of longsam.testing tracks three objects through a generated video. Right,
peak memory up to the first mask over the length of the video, upstream beside longsam, from
tests/benchmarks/results/length.json. Writes docs/pictures/overview.webp; takes about three
minutes of CPU time.
"""

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from longsam.masks import draw
from longsam.testing import SyntheticVideo, load_predictor

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "tests" / "benchmarks" / "results" / "length.json"
SIZE = (270, 480)
NUM_FRAMES = 240
EVERY = 4  # frames of the video for one of the picture
COLOURS = {"upstream": "tab:red", "longsam": "tab:blue"}

Picture = npt.NDArray[np.uint8]


def overlays() -> Iterator[Picture]:
    """Frames of a generated video with the masks that the testing model gives them."""
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    video = SyntheticVideo(seed=14, num_frames=NUM_FRAMES, frame_size=SIZE, num_objects=3)
    predictor = load_predictor()
    state = predictor.init_state(video, batch_objects=True)
    for number in range(video.num_objects):
        click = video.click(0, number)
        predictor.add_new_points_or_box(state, 0, number + 1, points=[click], labels=[1])
    for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state, progress_bar=False):
        if frame_idx % EVERY == 0:
            yield draw(video[frame_idx], obj_ids, mask_logits)


def curves() -> dict[str, list[tuple[int, float, bool]]]:
    """For each library: frames of the video, GB, and whether it was stopped at the limit."""
    runs = json.loads(RESULT.read_text())["numbers"]["first_mask"]
    return {
        library: [
            (run["num_frames_of_the_video"], run["peak_rss_mb"] / 1e3,
             run["stopped_above_the_limit"])
            for run in runs if run["library"] == library
        ]
        for library in COLOURS
    }  # fmt: skip


def chart(found: dict[str, list[tuple[int, float, bool]]], share: float) -> Picture:
    """The curves up to a share of their length, over a logarithmic axis of frames."""
    height, width = SIZE
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.subplots()
    first, last = (found["longsam"][at][0] for at in (0, -1))
    now = first * (last / first) ** share
    for library, points in found.items():
        done = [point for point in points if not point[2]]
        stop = next((point for point in points if point[2]), None)
        lengths, memory = ([point[at] for point in (*done, *([stop] if stop else []))]
                           for at in (0, 1))  # fmt: skip
        end = min(now, lengths[-1])
        xs = np.geomspace(first, end, 100)
        ys = np.interp(np.log(xs), np.log(lengths), memory)
        axes.plot(xs, ys, color=COLOURS[library], linewidth=2, label=library)
        is_stopped = stop is not None and now >= stop[0]
        axes.plot(end, ys[-1], "X" if is_stopped else "o", color=COLOURS[library], markersize=8)
        if is_stopped and stop is not None:
            where = (stop[0] * 1.15, stop[1] * 0.93)
            axes.annotate("stopped", where, color=COLOURS[library], fontsize=9)
    axes.set_xscale("log")
    axes.set(
        xlim=(first * 0.9, last * 1.1), ylim=(0, 20), xlabel="frames of the video (720p)",
        ylabel="peak memory, GB",
    )  # fmt: skip
    axes.set_xticks([100, 300, 1000, 3000, 10_000], ["100", "300", "1,000", "3,000", "10,000"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=9)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "overview.webp")
    options = parser.parse_args()
    found = curves()
    left = list(overlays())
    grown = np.clip(np.linspace(0.02, 1.25, len(left)), 0, 1)  # the last fifth is a still picture
    pictures = [
        Image.fromarray(np.hstack([overlay, chart(found, share)]))
        for overlay, share in zip(left, grown, strict=True)
    ]
    pictures[0].save(
        options.out,
        save_all=True,
        append_images=pictures[1:],
        duration=100,
        loop=0,
        quality=70,
        method=6,
    )
    print(f"{options.out}: {len(pictures)} pictures, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
