"""Upstream's own programs with our predictor in place of theirs: are the results equal?

    git clone https://github.com/facebookresearch/sam2
    python tests/benchmarks/real_clients.py --sam2 sam2        # about 10 minutes on one core

- vos: `tools/vos_inference.py` of that checkout, its two functions, imported from there and run on
  the frames of its notebook's video (200 JPEGs of 960 x 540), with both predictors; the PNGs they
  write are compared byte for byte.
- notebook: the calls of its `video_predictor_example.ipynb`, example after example, on the same
  frames: every mask returned or yielded is compared. Its correction on frame 150 comes after a pass
  over the whole video; it is exact with `memory_window=200`, or after `rewind(state, 150)`.

With a small model of seeded weights, whose masks are of both signs (the testing model, which knows
no bedrooms, soon sees nothing there). Writes results/real_clients.json.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import models

from longsam import Snapshots


def vos(tool: Any, frames: Path, predictors: dict[str, Any]) -> dict[str, Any]:
    """Both functions of the tool; of two objects one comes 40 frames later in the second."""
    found = {}
    for function, later in (("vos_inference", 0), ("vos_separate_inference_per_object", 40)):
        outputs = {}
        for name, predictor in predictors.items():
            with tempfile.TemporaryDirectory() as work:
                folder = Path(work)
                (folder / "videos").mkdir()
                shutil.copytree(frames, folder / "videos" / "bedroom")
                masks = folder / "masks" / "bedroom"
                masks.mkdir(parents=True)
                for frame_idx in {0, later}:
                    labels = np.zeros((540, 960), np.uint8)
                    if frame_idx == 0:
                        labels[120:430, 180:330] = 1
                    if frame_idx == later:
                        labels[150:400, 380:520] = 2
                    image = Image.fromarray(labels, mode="P")
                    image.putpalette(tool.DAVIS_PALETTE)
                    image.save(masks / f"{frame_idx:05d}.png")
                getattr(tool, function)(
                    predictor=predictor,
                    base_video_dir=str(folder / "videos"),
                    input_mask_dir=str(folder / "masks"),
                    output_mask_dir=str(folder / "out"),
                    video_name="bedroom",
                )
                written = sorted((folder / "out").rglob("*.png"))
                outputs[name] = [(path.name, path.read_bytes()) for path in written]
                shares = [float((np.asarray(Image.open(path)) > 0).mean()) for path in written]
        found[function] = {
            "pngs": len(outputs["longsam"]),
            "equal": sum(a == b for a, b in zip(*outputs.values(), strict=True)),
            "mean_share_of_object_pixels": round(float(np.mean(shares)), 3),
        }
    return found


def notebook(predictor: Any, frames: Path, rewinds: bool = False, **options: Any) -> list[Any]:
    """All masks of the notebook's calls, in order."""
    masks: list[Any] = []
    state = predictor.init_state(video_path=str(frames), **options)

    def prompt(frame_idx: int, obj_id: int, **prompts: Any) -> None:
        given = {name: np.array(value, np.float32) for name, value in prompts.items()}
        if "labels" in given:
            given["labels"] = given["labels"].astype(np.int32)
        keep(predictor.add_new_points_or_box(state, frame_idx, obj_id, **given))

    def track() -> None:
        for step in predictor.propagate_in_video(state):
            keep(step)

    def keep(step: Any) -> None:
        masks.append((step[0], list(step[1]), step[2].clone()))

    # Example 1: an object from clicks, corrected on frame 150.
    predictor.reset_state(state)
    prompt(0, 1, points=[[210, 350]], labels=[1])
    prompt(0, 1, points=[[210, 350], [250, 220]], labels=[1, 1])
    track()
    if rewinds:
        predictor.rewind(state, 150)
    prompt(150, 1, points=[[82, 410]], labels=[0])
    track()
    # Example 2: from a box, then a box and a click.
    predictor.reset_state(state)
    prompt(0, 4, box=[300, 0, 500, 400])
    prompt(0, 4, points=[[460, 60]], labels=[1], box=[300, 0, 500, 400])
    track()
    # Example 3: two objects.
    predictor.reset_state(state)
    prompt(0, 2, points=[[200, 300]], labels=[1])
    prompt(0, 2, points=[[200, 300], [275, 175]], labels=[1, 0])
    prompt(0, 3, points=[[400, 150]], labels=[1])
    track()
    return masks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sam2", type=Path, required=True, help="a checkout of upstream")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spec = importlib.util.spec_from_file_location(
        "vos_inference", options.sam2 / "tools" / "vos_inference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    frames = options.sam2 / "notebooks" / "videos" / "bedroom"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = models.save_checkpoint(Path(folder) / "small.pt")
        predictors = {
            "upstream": models.build_upstream(checkpoint),
            "longsam": models.build_ours(checkpoint),
        }
    numbers: dict[str, Any] = vos(tool, frames, predictors)
    expected = notebook(predictors["upstream"], frames)
    for name, settings in (
        ("notebook, memory_window=200", {"memory_window": 200}),
        ("notebook, rewind", {"rewinds": True, "snapshots": Snapshots(50)}),
    ):
        mine = notebook(predictors["longsam"], frames, **settings)
        numbers[name] = {
            "masks": len(mine),
            "equal": sum(
                a[:2] == b[:2] and torch.equal(a[2], b[2])
                for a, b in zip(mine, expected, strict=True)
            ),
            "mean_share_of_object_pixels": round(
                float(np.mean([(m > 0).float().mean() for _, _, m in mine])), 3
            ),
        }
    print(numbers)
    print(report.write("real_clients", numbers))


if __name__ == "__main__":
    main()
