"""Follow whatever moves in front of a still camera, without a click and without weights.

    python examples/detect_motion.py                         # a generated video
    python examples/detect_motion.py --video hall.mp4 --checkpoint sam2.1_hiera_large.pt

OpenCV's background subtraction proposes boxes; longsam.detections turns them into objects. Any
callable that returns boxes works too, such as a trained detector (see detect_yolo.py). Writes the
masks, a video with them drawn on it, and found.png: the frame with the most objects.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from longsam import build_long_video_predictor
from longsam.detections import track_detections
from longsam.frames import open_source
from longsam.masks import MaskFolder, MaskWriter, draw
from longsam.testing import SyntheticVideo, iou, load_predictor

# Upstream says so on every machine without its compiled extension.
warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")


class MotionDetector:
    """Boxes around what differs from a background learned from the frames seen so far.

    Args:
        min_area: The smallest share of the frame that a thing covers.
        history: How many frames the background is learned from.
        warm_up: For how many frames at the start it only learns.
    """

    def __init__(self, min_area: float = 0.005, history: int = 200, warm_up: int = 10):
        self.min_area = min_area
        self._left_to_learn = warm_up
        self._background = cv2.createBackgroundSubtractorMOG2(
            history=history, varThreshold=40, detectShadows=False
        )

    def __call__(self, frame: np.ndarray) -> Any:
        moving = self._background.apply(frame)
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        height, width = moving.shape
        self._left_to_learn -= 1
        if self._left_to_learn >= 0 or (moving > 0).mean() > 0.5:  # or the camera moved
            return None
        _, _, found, _ = cv2.connectedComponentsWithStats((moving > 0).astype(np.uint8))
        boxes = [
            (x, y, x + w, y + h)
            for x, y, w, h, area in found[1:]
            # What touches the edge is entering or leaving: wait until all of it is visible.
            if area > self.min_area * height * width
            and x > 0
            and y > 0
            and x + w < width
            and y + h < height
        ]
        return np.array(boxes, float).reshape(-1, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", help="default: a generated one")
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_l.yaml")
    parser.add_argument("--checkpoint", help="default: the small model that comes with longsam")
    parser.add_argument("--every", type=int, default=5, help="run the detector on every nth frame")
    parser.add_argument("--frames", type=int, default=300, help="of the generated video")
    parser.add_argument("--out", type=Path, default=Path("out/detect_motion"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    world = None
    video = options.video
    if video is None:
        world = SyntheticVideo(7, options.frames, (240, 320), still_background=True)
        video = options.out / "video.mp4"
        world.write(video)
    if options.checkpoint:
        predictor = build_long_video_predictor(options.config, options.checkpoint)
    else:
        predictor = load_predictor()

    scores, missed = [], 0
    first_frame_of: dict[int, int] = {}
    with MaskWriter(options.out / "masks", ("rle", "overlay"), video=video) as writer:
        for frame_idx, obj_ids, mask_logits, _ in track_detections(
            predictor, video, MotionDetector(), detect_every=options.every
        ):
            writer.write(frame_idx, obj_ids, mask_logits)
            for obj_id in obj_ids:
                if obj_id not in first_frame_of:
                    first_frame_of[obj_id] = frame_idx
                    print(f"frame {frame_idx}: object {obj_id}")
            if world is not None and frame_idx >= 50:
                masks = (mask_logits[:, 0] > 0).cpu().numpy()
                for truth in world.masks(frame_idx)[world.visible(frame_idx)]:
                    best = max((float(iou(mask, truth)) for mask in masks), default=0.0)
                    scores.append(best)
                    missed += best < 0.5
    print(f"{len(first_frame_of)} objects; masks and overlay in {options.out / 'masks'}")
    folder = MaskFolder(options.out / "masks")
    most = max(folder.lines(), key=lambda line: len(line.obj_ids)).frame_idx
    frames = open_source(video, None)
    (image,) = frames.read(most, most + 1)
    frames.close()
    _, obj_ids, masks = folder.read(most)
    Image.fromarray(draw(image, obj_ids, masks)).save(options.out / "found.png")
    print(f"Look at {options.out / 'found.png'}, frame {most}.")
    if scores:
        print(
            f"from frame 50 on: mean IoU {np.mean(scores):.2f}, "
            f"{100 * missed / len(scores):.1f} % of visible objects without a mask"
        )


if __name__ == "__main__":
    main()
