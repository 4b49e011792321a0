"""Track two objects through a video of any length and look at the memory that it takes.

    python examples/quickstart.py                                  # a video made on the spot
    python examples/quickstart.py --video bees.mp4 --checkpoint sam2.1_hiera_tiny.pt \
        --point 410,220 --point 90,300

Writes overlay.mp4 and memory.png to the folder --out and prints what it did.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import psutil
import torch
from tqdm import tqdm

from longsam import LongVideoPredictor, build_long_video_predictor

COLOURS = ((255, 160, 0), (0, 170, 255))
Image = npt.NDArray[np.uint8]


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    video, points = options.video, options.point
    if video is None:
        video = options.out / "input.mp4"
        points = make_video(video, options.frames)
        print(f"Made {video}: {options.frames} frames of 640x360, H.264, two moving objects.")

    predictor = build(options)
    started = time.perf_counter()
    state = predictor.init_state(video)
    height, width = state["video_height"], state["video_width"]
    points = points or [(width / 3, height / 2), (2 * width / 3, height / 2)]
    for obj_id, point in enumerate(points, start=1):
        predictor.add_new_points_or_box(state, 0, obj_id, points=[point], labels=[1])

    process = psutil.Process()
    state_bytes, resident_bytes, first_mask_seconds = [], [], 0.0
    with OverlayWriter(video, options.out / "overlay.mp4") as overlay:
        for _, _, mask_logits in predictor.propagate_in_video(state):
            first_mask_seconds = first_mask_seconds or time.perf_counter() - started
            overlay.write((mask_logits[:, 0] > 0).cpu().numpy())
            state_bytes.append(sum(predictor.memory_usage(state)["total"].values()))
            resident_bytes.append(process.memory_info().rss)
    seconds = time.perf_counter() - started

    plot(options.out / "memory.png", state_bytes, resident_bytes)
    settled = min(100, len(state_bytes) - 1)
    print(
        f"Tracked {len(points)} objects through {len(state_bytes)} frames in {seconds:.0f} s "
        f"({len(state_bytes) / seconds:.1f} frames/s, overlay and drawing included); "
        f"the first mask came after {first_mask_seconds:.2f} s.\n"
        f"The state held {state_bytes[settled] / 1e6:.2f} MB after {settled} frames and "
        f"{state_bytes[-1] / 1e6:.2f} MB at the end. The process took "
        f"{resident_bytes[settled] / 1e6:.0f} MB after {settled} frames and "
        f"{resident_bytes[-1] / 1e6:.0f} MB at the end.\n"
        f"Look at {options.out / 'overlay.mp4'} and {options.out / 'memory.png'}."
    )


def parse_arguments() -> argparse.Namespace:
    def point(text: str) -> tuple[float, float]:
        x, y = text.split(",")
        return float(x), float(y)

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a video; default: one is made")
    a_pixel = "a pixel of an object in frame 0; one option for each object"
    parser.add_argument("--point", type=point, action="append", metavar="X,Y", help=a_pixel)
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_t.yaml")
    parser.add_argument("--checkpoint", help="weights for the config; default: random ones")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--frames", type=int, default=400, help="length of the video that is made")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"))
    return parser.parse_args()


def build(options: argparse.Namespace) -> LongVideoPredictor:
    # Upstream says so on every machine without its compiled extension; it fills small holes.
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    if options.checkpoint:
        return build_long_video_predictor(options.config, options.checkpoint, device=options.device)
    print(
        "No --checkpoint was given: the model has seeded random weights and a small input "
        "(256 x 256). It shows speed and memory; its masks mean nothing."
    )
    torch.manual_seed(1)
    return build_long_video_predictor(
        options.config,
        device=options.device,
        hydra_overrides_extra=["++model.image_size=256"],
    )


def make_video(path: Path, num_frames: int) -> list[tuple[float, float]]:
    """Encode a video of a ball and a box that move over a texture; returns where they start."""
    height, width = 360, 640
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 6)
    texture = cv2.normalize(texture, None, 40, 160, cv2.NORM_MINMAX)

    def centres(i: int) -> list[tuple[float, float]]:
        return [
            (width * (0.5 + 0.38 * np.cos(i / 40)), height * (0.5 + 0.3 * np.sin(i / 23))),
            (width * (0.5 - 0.38 * np.cos(i / 55)), height * (0.5 + 0.3 * np.sin(i / 31))),
        ]

    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in tqdm(range(num_frames), desc="making a video"):
            image = np.roll(texture, i // 2, axis=1).copy()
            ball, box = centres(i)
            cv2.circle(image, (int(ball[0]), int(ball[1])), 45, (220, 60, 50), -1, cv2.LINE_AA)
            corners = cv2.boxPoints((box, (90, 70), i * 1.5)).astype(int)
            cv2.fillPoly(image, [corners], (60, 90, 220), cv2.LINE_AA)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    return centres(0)


class OverlayWriter:
    """Draws masks over the frames of a video, in order from frame 0, and encodes the result."""

    def __init__(self, video: Path, path: Path):
        self._frames = self._read(video)
        self._output = av.open(path, "w")
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> "OverlayWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._output.mux(self._stream.encode(None))
        self._output.close()

    def write(self, masks: npt.NDArray[np.bool_]) -> None:
        """Add the next frame with its masks, num_objects x height x width."""
        image = next(self._frames)
        for mask, colour in zip(masks, COLOURS * len(masks), strict=False):
            image[mask] = image[mask] // 2 + np.array(colour, np.uint8) // 2
            outlines, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(image, outlines, -1, colour, 2)
        height, width, _ = (2 * (size // 2) for size in image.shape)  # H.264 wants even sizes
        if self._stream is None:
            self._stream = self._output.add_stream("libx264", rate=30, options={"crf": "23"})
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
        image = np.ascontiguousarray(image[:height, :width])
        self._output.mux(self._stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

    @staticmethod
    def _read(video: Path) -> Iterator[Image]:
        with av.open(video) as container:
            for frame in container.decode(video=0):
                image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield np.ascontiguousarray(image)


def plot(path: Path, state_bytes: list[int], resident_bytes: list[int]) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot(np.array(resident_bytes) / 1e6, label="resident memory of the process")
    axes.plot(np.array(state_bytes) / 1e6, label="inference state")
    axes.set(xlabel="frame", ylabel="MB", title="Memory while tracking", ylim=(0, None))
    axes.legend(loc="center right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
