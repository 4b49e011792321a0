"""Follow what a YOLO detector finds, without a click.

    pip install -e '.[yolo]'
    python examples/detect_yolo.py --video street.mp4 --yolo yolo11n.pt \
        --config configs/sam2.1/sam2.1_hiera_l.yaml --checkpoint sam2.1_hiera_large.pt

After a crash the same command with --resume continues from the last save. Writes the masks, and
found.png: the last frame that the detector saw, with its objects.

Ultralytics and its weights are under the AGPL-3.0, so neither comes with longsam.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import supervision
from PIL import Image
from ultralytics import YOLO

from longsam import Autosave, build_long_video_predictor
from longsam.detections import resume_detections, track_detections
from longsam.masks import MaskWriter, draw
from longsam.testing import load_predictor

# Upstream says so on every machine without its compiled extension.
warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True, help="a file, a URL or a camera's index")
    parser.add_argument("--yolo", default="yolo11n.pt", help="weights that ultralytics reads")
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_l.yaml")
    parser.add_argument("--checkpoint", help="default: the small model that comes with longsam")
    parser.add_argument("--every", type=int, default=10, help="run the detector on every nth frame")
    parser.add_argument("--out", type=Path, default=Path("out/detect_yolo"))
    parser.add_argument("--save-every", type=int, default=500, help="frames; of files only")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last save in --out"
    )
    options = parser.parse_args()

    detector = YOLO(options.yolo)
    seen: list[np.ndarray] = []  # the frame that the detector saw last

    def detect(frame: np.ndarray) -> supervision.Detections:
        seen[:] = [frame]
        (result,) = detector(frame[..., ::-1], verbose=False)  # it takes BGR
        return supervision.Detections.from_ultralytics(result)

    if options.checkpoint:
        predictor = build_long_video_predictor(options.config, options.checkpoint)
    else:
        predictor = load_predictor()
    known: set[int] = set()
    found = None
    save = options.out / "state.pt"
    state = predictor.load_state(save) if options.resume and save.exists() else None
    with MaskWriter(options.out / "masks", "rle", resume=state or options.resume) as writer:
        if state is None:  # a new run, or one that ended before its first save
            save.unlink(missing_ok=True)
            writer.drop_after(-1)
        autosave = None
        if Path(options.video).exists():
            autosave = Autosave(save, every=options.save_every, before_save=writer.flush)
        if state is None:
            steps = track_detections(
                predictor, options.video, detect, detect_every=options.every,
                autosave=autosave, batch_objects=True,
            )  # fmt: skip
        else:
            steps = resume_detections(predictor, state, detect, autosave=autosave)
        for frame_idx, obj_ids, mask_logits, labels in steps:
            writer.write(frame_idx, obj_ids, mask_logits)
            if seen:
                found = draw(seen.pop(), obj_ids, mask_logits)
            for obj_id, label in zip(obj_ids, labels, strict=True):
                if obj_id not in known:
                    known.add(obj_id)
                    print(f"frame {frame_idx}: object {obj_id}, {label}")
    print(f"{len(known)} objects; masks in {options.out / 'masks'}")
    if found is not None:
        Image.fromarray(found).save(options.out / "found.png")
        print(f"Look at {options.out / 'found.png'}.")


if __name__ == "__main__":
    main()
