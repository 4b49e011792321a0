"""Upstream, longsam, simple-sam2 and Hugging Face transformers on the same files.

    pip install simple-sam2 transformers
    python tests/benchmarks/peers.py

One object is clicked on frame 0 of a generated video (480 x 640, H.264) and tracked to its end with
the testing model at 192 x 192, so that what differs is what is done around the model. Each run is a
process of its own, one thread, one after another. Times count from before the video is opened
(after imports and building the model). Written is what lies on disk afterwards and is not the
input. transformers is given all frames as its documentation does. It allows no model as narrow as
the testing model (its attention takes memories of 64 channels only, and wider features), so longsam
is run a second time as wide; these two have random weights. Writes results/peers.json.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import models

from longsam.testing import (
    CHECKPOINT,
    CONFIG,
    OVERRIDES,
    SyntheticVideo,
    iou,
    load_predictor,
)
from longsam.testing.model import IMAGE_SIZE

SEED = 102
SIZE = (480, 640)
Masks = Iterator[tuple[int, Any]]
"""Frame index and mask, bool or logits."""


def click() -> tuple[float, float]:
    return SyntheticVideo(SEED, 1, SIZE).click(0, 0)


def wide() -> list[str]:
    """The testing model's overrides, but as wide as transformers needs it."""
    wider = []
    for override in OVERRIDES:
        name, _, value = override.partition("=")
        is_width = value in ("64", "256") or (value == "32" and ".memory_" in name)
        wider.append(f"{name}={2 * int(value)}" if is_width else override)
    return wider


def longsam(*, is_wide: bool = False) -> Callable[[Path, Path], Masks]:
    predictor = models.build_ours(None, overrides=wide()) if is_wide else load_predictor()

    def track(video: Path, folder: Path) -> Masks:
        yield from followed(predictor, predictor.init_state(video))

    return track


def upstream(is_async: bool) -> Callable[[Path, Path], Masks]:
    predictor = models.build_upstream(CHECKPOINT, overrides=OVERRIDES)

    def track(video: Path, folder: Path) -> Masks:
        if not is_async:
            yield from followed(predictor, predictor.init_state(str(video)))
            return
        frames = folder / "frames"  # it loads in the background from JPEGs only
        frames.mkdir()
        import cv2

        capture = cv2.VideoCapture(str(video))
        number = 0
        while (read := capture.read())[0]:
            cv2.imwrite(str(frames / f"{number:06d}.jpg"), read[1])
            number += 1
        state = predictor.init_state(str(frames), async_loading_frames=True)
        yield from followed(predictor, state)

    return track


def followed(predictor: Any, state: Any) -> Masks:
    predictor.add_new_points_or_box(state, 0, 1, points=[click()], labels=[1])
    for frame_idx, _, mask_logits in predictor.propagate_in_video(state):
        yield frame_idx, mask_logits[0, 0] > 0


def simple_sam2() -> Callable[[Path, Path], Masks]:
    """Its masks come all at once, as PNGs, when it is done."""
    from PIL import Image
    from simple_sam2 import SAM2Service

    predictor = models.build_upstream(CHECKPOINT, overrides=OVERRIDES)

    def track(video: Path, folder: Path) -> Masks:
        service = SAM2Service(CONFIG, str(CHECKPOINT), storage_dir=str(folder), device="cpu")
        service._predictor = predictor  # it cannot be told of a smaller model
        with contextlib.redirect_stdout(sys.stderr):
            service.init_video("video", str(video))
            x, y = click()
            service.add_prompts("video", 0, 1, pos_points=[[int(x), int(y)]])
            service.propagate_and_save("video", obj_labels={"1": "object"})
        for path in sorted((folder / "video" / "masks").iterdir()):
            yield int(path.name.split("_")[0]), np.asarray(Image.open(path)) > 0

    return track


def transformers() -> Callable[[Path, Path], Masks]:
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    width, cells = 128, IMAGE_SIZE // 16
    trunk = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 32,
        "image_size": [IMAGE_SIZE, IMAGE_SIZE],
        "blocks_per_stage": [1, 2, 3, 1],
        "embed_dim_per_stage": [32, 64, 128, 256],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [4, 5],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": trunk,
        "backbone_channel_list": [256, 128, 64, 32],
        "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2],
        "fpn_hidden_size": width,
    }
    torch.manual_seed(0)
    model = Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config={"hidden_size": width, "image_size": IMAGE_SIZE},
            mask_decoder_config={"hidden_size": width},
            image_size=IMAGE_SIZE,
            memory_attention_hidden_size=width,
            memory_attention_num_layers=2,
            memory_attention_feed_forward_hidden_size=4 * width,
            memory_attention_rope_feat_sizes=[cells, cells],
            memory_encoder_hidden_size=width,
            memory_encoder_output_channels=64,
            mask_downsampler_embed_dim=width,
            memory_fuser_embed_dim=width,
            memory_fuser_intermediate_dim=4 * width,
        )
    ).eval()
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = Sam2VideoProcessor(
        Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), target_size=IMAGE_SIZE
    )

    def track(video: Path, folder: Path) -> Masks:
        import av

        with av.open(str(video)) as container, torch.inference_mode():
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            session = processor.init_video_session(video=frames, inference_device="cpu")
            processor.add_inputs_to_inference_session(
                session, 0, 1, input_points=[[[list(click())]]], input_labels=[[[1]]]
            )
            model(inference_session=session, frame_idx=0)
            for out in model.propagate_in_video_iterator(session):
                (masks,) = processor.post_process_masks([out.pred_masks], [SIZE], binarize=True)
                yield out.frame_idx, masks[0, 0]

    return track


RUNS: dict[str, Callable[[], Callable[[Path, Path], Masks]]] = {
    "longsam": longsam,
    "upstream": lambda: upstream(False),
    "upstream, async_loading_frames": lambda: upstream(True),
    "simple-sam2": simple_sam2,
    "transformers": transformers,
    "longsam, as wide": lambda: longsam(is_wide=True),
}


RANDOM = ("transformers", "longsam, as wide")


def run(name: str, video: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    track = RUNS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        first, count = None, 0
        kept: dict[int, Any] = {}
        for frame_idx, mask in track(video, Path(folder)):
            if first is None:
                first = time.perf_counter() - started
            count += 1
            if frame_idx % 10 == 0:
                kept[frame_idx] = np.packbits(np.asarray(mask, bool))
        total = time.perf_counter() - started
        written = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    truth = SyntheticVideo(SEED, count, SIZE)
    scores = [
        float(iou(np.unpackbits(bits).reshape(SIZE).astype(bool), truth.masks(frame_idx)[0]))
        for frame_idx, bits in kept.items()
        if frame_idx > 0 and truth.visible(frame_idx)[0]
    ]
    return {
        "frames": count,
        "seconds_to_first_mask": round(first or 0, 2),
        "seconds": round(total, 1),
        "frames_per_second": round(count / total, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "peak_mb_before": round(before / 1e3),
        "written_mb": round(written / 1e6, 1),
        "J": round(float(np.mean(scores)), 4) if name not in RANDOM else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", default="300,3000,30000")
    parser.add_argument("--longsam-only-from", type=int, default=10_000)
    parser.add_argument("--one")
    parser.add_argument("--video", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.video)))
        return
    numbers: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("simple-sam2", "transformers")}
    }
    with tempfile.TemporaryDirectory() as folder:
        for length in map(int, options.lengths.split(",")):
            video = Path(folder) / f"{length}.mp4"
            SyntheticVideo(SEED, length, SIZE).write(video)
            for name in RUNS:
                if length >= options.longsam_only_from and name != "longsam":
                    continue
                command = [sys.executable, __file__, "--one", name, "--video", str(video)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                result = subprocess.run(command, capture_output=True, text=True, env=environment)
                lines = result.stdout.splitlines() or result.stderr.splitlines()[-1:]
                failed = result.returncode != 0
                row = {"failed": lines[-1]} if failed else json.loads(lines[-1])
                numbers.setdefault(f"{length} frames", {})[name] = row
                print(length, name, row, flush=True)
            video.unlink()
    print(report.write("peers", numbers))


if __name__ == "__main__":
    main()
