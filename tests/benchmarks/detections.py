"""Objects from a detector over 20,000 frames: what is found, what is false, and memory.

    python tests/benchmarks/detections.py

A live source (a generator of frames, 240 x 320, a still camera, three objects that come and go) is
tracked with the testing model and `track_detections`, once with each of two detectors, each in a
process of its own, into results/detections.json:

- truth: the true boxes, their sides moved by 5 % at random; one in ten is missed, and one call in
  fifty adds a box around nothing. Objects of which less than half a percent of the frame shows are
  not seen.
- motion: OpenCV's background subtraction, as in examples/detect_motion.py.

A stretch is a time over which an object shows without a break (at least a thousandth of the frame);
it counts as found when a mask with an IoU above 0.5 is on it at some time, and is counted when it
lasts 30 frames or more. A false object is one whose mask was never on a true one.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from longsam.detections import track_detections
from longsam.testing import SyntheticVideo, iou, load_predictor

EVERY = 5
LEAST_STRETCH = 30


class NoisyTruth:
    """The true boxes of the frames that it is asked about, not quite."""

    def __init__(self, video: SyntheticVideo):
        self._video = video
        self._rng = np.random.default_rng(0)
        self._frame_idx = 0

    def __call__(self, frame: np.ndarray) -> Any:
        masks = self._video.masks(self._frame_idx)
        shown = [n for n, mask in enumerate(masks) if mask.mean() > 0.005]
        boxes = [np.array(self._video.box(self._frame_idx, n)) for n in shown]
        self._frame_idx += EVERY
        boxes = [box for box in boxes if self._rng.random() > 0.1]
        if self._rng.random() < 0.02:
            x, y = self._rng.random(2) * [280, 200]
            boxes.append(np.array([x, y, x + 40, y + 40]))
        sides = [np.tile(box[2:] - box[:2], 2) for box in boxes]
        moved = [
            box + 0.05 * side * self._rng.standard_normal(4)
            for box, side in zip(boxes, sides, strict=True)
        ]
        return np.array(moved).reshape(-1, 4)


def run(detector_name: str, num_frames: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    video = SyntheticVideo(7, num_frames, (240, 320), num_objects=3, still_background=True)
    if detector_name == "truth":
        detector: Any = NoisyTruth(video)
    else:
        from detect_motion import MotionDetector

        detector = MotionDetector()
    predictor = load_predictor()
    states: list[Any] = []
    init_state = predictor.init_state

    def watched(*args: Any, **options: Any) -> Any:
        states.append(init_state(*args, **options))
        return states[-1]

    predictor.init_state = watched  # type: ignore[method-assign]
    process = psutil.Process()
    resident, held, counts = [], [], []
    best: dict[int, float] = {}
    lasted: Counter[int] = Counter()
    stretch: list[list[Any]] = [[0, False] for _ in range(3)]  # frames so far, found
    stretches: list[tuple[int, bool]] = []
    tracked = visible = 0
    for frame_idx, obj_ids, mask_logits, _ in track_detections(
        predictor, iter(video), detector, detect_every=EVERY, batch_objects=True
    ):
        resident.append(process.memory_info().rss)
        usage = predictor.memory_usage(states[0])["total"]["cpu"]
        held.append(usage)
        counts.append(len(obj_ids))
        lasted.update(obj_ids)
        truth, shows = video.masks(frame_idx), video.visible(frame_idx)
        masks = (mask_logits[:, 0] > 0).numpy()
        for number in range(3):
            if not shows[number]:
                if stretch[number][0]:
                    stretches.append(tuple(stretch[number]))
                stretch[number] = [0, False]
                continue
            visible += 1
            stretch[number][0] += 1
            ious = [float(iou(mask, truth[number])) for mask in masks]
            for obj_id, score in zip(obj_ids, ious, strict=True):
                best[obj_id] = max(best.get(obj_id, 0.0), score)
            if max(ious, default=0.0) > 0.5:
                tracked += 1
                stretch[number][1] = True
    stretches += [tuple(one) for one in stretch if one[0]]
    counted = [found for length, found in stretches if length >= LEAST_STRETCH]
    false = [obj_id for obj_id in lasted if best.get(obj_id, 0.0) <= 0.5]
    tenth = num_frames // 10
    return {
        "frames": len(resident),
        "stretches": len(counted),
        "stretches_found": sum(counted),
        "visible_objects_with_a_mask": round(tracked / visible, 4),
        "objects": len(lasted),
        "false_objects": len(false),
        "share_of_false_objects": round(len(false) / max(1, len(lasted)), 4),
        "frames_of_false_objects": sum(lasted[obj_id] for obj_id in false),
        "most_objects_at_once": max(counts),
        "mean_objects_by_tenth": by_tenth(counts, tenth, np.mean, 2),
        "most_state_mb_by_tenth": by_tenth(np.array(held) / 1e6, tenth, np.max, 2),
        "most_resident_mb_by_tenth": by_tenth(np.array(resident) / 1e6, tenth, np.max, 1),
    }


def by_tenth(values: Any, size: int, of: Any, digits: int) -> list[float]:
    return [round(float(of(values[at : at + size])), digits) for at in range(0, 10 * size, size)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.frames)))
        return
    command = [sys.executable, __file__, "--frames", str(options.frames), "--one"]
    processes = {
        name: subprocess.Popen(
            [*command, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for name in ("truth", "motion")
    }
    numbers = {}
    for name, process in processes.items():
        numbers[name] = json.loads(process.communicate()[0])
        print(name, json.dumps(numbers[name], indent=1), flush=True)
    print(report.write("detections", numbers))


if __name__ == "__main__":
    main()
