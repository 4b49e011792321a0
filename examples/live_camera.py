"""A camera or a stream, masks drawn over it, and objects added by clicks.

    python examples/live_camera.py --source 0 --checkpoint sam2.1_hiera_tiny.pt
    python examples/live_camera.py --source rtsp://host/path --checkpoint ...
    python examples/live_camera.py                            # a generated video, the small model

A click adds an object; a right click marks what does not belong to the last object. Space pauses
the picture, r forgets all objects, q or Esc quits. The last picture is written to --out.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from longsam import LiveVideo, LongVideoPredictor, build_long_video_predictor
from longsam.frames import EndOfStreamError
from longsam.masks import draw
from longsam.testing import SyntheticVideo, load_predictor

# Upstream says so on every machine without its compiled extension.
warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
WINDOW = "longsam"


@dataclass
class Window:
    """What the user did since the last look."""

    clicks: list[tuple[int, int, bool]] = field(default_factory=list)  # x, y, is it the object
    key: str = "\xff"  # none
    image: np.ndarray | None = None  # what was shown last

    def __post_init__(self) -> None:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.setMouseCallback(WINDOW, self._on_mouse)

    def _on_mouse(self, event: int, x: int, y: int, flags: int, parameter: Any) -> None:
        if event in (cv2.EVENT_LBUTTONDOWN, cv2.EVENT_RBUTTONDOWN):
            self.clicks.append((x, y, event == cv2.EVENT_LBUTTONDOWN))

    @property
    def is_over(self) -> bool:
        return self.key in "q\x1b"

    def show(self, image: np.ndarray) -> None:
        """Draw a frame (RGB) and note what the user does; space pauses."""
        self.image = image
        cv2.imshow(WINDOW, image[..., ::-1])
        self.key = chr(cv2.waitKey(1) & 0xFF)
        while self.key == " " and chr(cv2.waitKey(50) & 0xFF) != " ":
            pass

    def take_clicks(self) -> list[tuple[int, int, bool]]:
        clicks, self.clicks = self.clicks, []
        return clicks


def run(predictor: LongVideoPredictor, live: LiveVideo, window: Window) -> int:
    """Track until the source ends or the user does; returns how many frames had masks."""
    state = predictor.init_state(live)
    at = num_objects = num_tracked = 0

    def take_up_clicks() -> None:
        nonlocal num_objects
        for x, y, is_object in window.take_clicks():
            num_objects += is_object
            if num_objects:
                predictor.add_new_points_or_box(
                    state, at, num_objects, [[x, y]], [int(is_object)], clear_old_points=False
                )

    while True:
        while not num_objects:  # nothing to track yet: show the picture and wait for a click
            window.show(live.frame)
            take_up_clicks()
            if window.is_over:
                return num_tracked
            if not num_objects:
                try:
                    at = predictor.advance(state)
                except EndOfStreamError:
                    return num_tracked
        steps = predictor.propagate_in_video(state, start_frame_idx=at)
        for _, obj_ids, mask_logits in steps:
            num_tracked += 1
            window.show(draw(live.frame, obj_ids, mask_logits))
            if window.is_over:
                return num_tracked
            if window.key == "r":
                predictor.reset_state(state)
                num_objects = 0
                break
            take_up_clicks()  # they apply from the next frame on
        else:
            return num_tracked


def generated(num_frames: int) -> Iterator[np.ndarray]:
    """30 frames a second, like a camera."""
    due = time.monotonic()
    for frame in SyntheticVideo(3, num_frames, (480, 640)):
        due += 1 / 30
        time.sleep(max(0.0, due - time.monotonic()))
        yield frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="a camera's index or a URL; default: a generated video")
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_t.yaml")
    parser.add_argument("--checkpoint", help="default: the small model that comes with longsam")
    parser.add_argument("--frames", type=int, default=600, help="of the generated video")
    parser.add_argument("--out", type=Path, default=Path("out/live_camera.png"))
    options = parser.parse_args()
    source: Any = options.source
    if source is None:
        source = generated(options.frames)
    elif source.isdigit():
        source = int(source)
    if options.checkpoint:
        predictor = build_long_video_predictor(options.config, options.checkpoint)
    else:
        predictor = load_predictor()
    with LiveVideo(source, mode="newest") as live:
        window = Window()
        num_tracked = run(predictor, live, window)
    cv2.destroyAllWindows()
    print(f"{num_tracked} frames tracked, {live.num_dropped} dropped")
    if window.image is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(window.image).save(options.out)
        print(f"Look at {options.out}.")


if __name__ == "__main__":
    main()
