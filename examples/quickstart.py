"""Track objects through a video of any length and look at the memory that it takes.

    python examples/quickstart.py                                  # a video made on the spot
    python examples/quickstart.py --video bees.mp4 --checkpoint sam2.1_hiera_tiny.pt \
        --point 410,220 --point 90,300

Without --checkpoint the small model of longsam.testing tracks; it was trained on such videos only.
Writes overlay.mp4 and memory.png to the folder --out and prints what it did.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import psutil

from longsam import LongVideoPredictor, build_long_video_predictor
from longsam.masks import draw
from longsam.testing import SyntheticVideo, iou, load_predictor

Image = npt.NDArray[np.uint8]


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    video, points = options.video, options.point
    truth = None
    if video is None:
        video = options.out / "input.mp4"
        truth = make_video(video, options.frames)
        points = [truth.click(0, number) for number in range(truth.num_objects)]
        print(f"Made {video}: {options.frames} frames of 640x360, H.264, three moving objects.")

    predictor = build(options)
    started = time.perf_counter()
    state = predictor.init_state(video)
    height, width = state["video_height"], state["video_width"]
    points = points or [(width / 3, height / 2), (2 * width / 3, height / 2)]
    for obj_id, point in enumerate(points, start=1):
        predictor.add_new_points_or_box(state, 0, obj_id, points=[point], labels=[1])

    process = psutil.Process()
    state_bytes, resident_bytes, first_mask_seconds, scores = [], [], 0.0, []
    with OverlayWriter(video, options.out / "overlay.mp4") as overlay:
        for frame_idx, _, mask_logits in predictor.propagate_in_video(state):
            first_mask_seconds = first_mask_seconds or time.perf_counter() - started
            masks = (mask_logits[:, 0] > 0).cpu().numpy()
            overlay.write(masks)
            if truth is not None:
                visible = truth.visible(frame_idx)
                scores += list(iou(masks, truth.masks(frame_idx))[visible])
            state_bytes.append(sum(predictor.memory_usage(state)["total"].values()))
            resident_bytes.append(process.memory_info().rss)
    seconds = time.perf_counter() - started

    plot(options.out / "memory.png", state_bytes, resident_bytes)
    if scores:
        print(f"The masks overlap the true ones with a mean IoU of {np.mean(scores):.2f}.")
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
    parser.add_argument("--checkpoint", help="weights for the config; default: a small model")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--frames", type=int, default=400, help="length of the video that is made")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"))
    return parser.parse_args()


def build(options: argparse.Namespace) -> LongVideoPredictor:
    # Upstream says so on every machine without its compiled extension; it fills small holes.
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    if options.checkpoint:
        return build_long_video_predictor(options.config, options.checkpoint, device=options.device)
    print("No --checkpoint was given: tracking with the small model that comes with longsam.")
    return load_predictor(options.device or "cpu")


def make_video(path: Path, num_frames: int) -> SyntheticVideo:
    """Encode a video of three objects that move over a texture; it knows its true masks."""
    video = SyntheticVideo(seed=14, num_frames=num_frames, frame_size=(360, 640), num_objects=3)
    video.write(path)
    return video


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
        image = draw(next(self._frames), range(1, len(masks) + 1), masks)
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
