"""Kill a run in the middle, resume from its last save, and compare with a run that was not killed.

    python examples/resume.py

The run tracks a generated video with the small model that comes with longsam, writes masks, and
saves its state every 50 frames. It is killed with SIGKILL, as a power cut or the system would.
Writes resumed.png: the first frame, the one of the kill, and the last, with the resumed masks.
"""

import argparse
import multiprocessing
import os
import signal
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from longsam import Autosave
from longsam.masks import MaskFolder, MaskWriter, draw
from longsam.testing import SyntheticVideo, load_predictor

# Upstream says so on every machine without its compiled extension.
warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
NUM_FRAMES = 200
VIDEO = SyntheticVideo(seed=5, num_frames=NUM_FRAMES, frame_size=(180, 320))


def start(out: Path, kill_at: int | None = None) -> None:
    """Track from frame 0; die at a frame if one is given."""
    predictor = load_predictor()
    state = predictor.init_state(out / "video.mp4")
    for number in range(VIDEO.num_objects):
        click = VIDEO.click(0, number)
        predictor.add_new_points_or_box(state, 0, number + 1, points=[click], labels=[1])
    folder = out / ("killed" if kill_at else "whole")
    with MaskWriter(folder) as writer:
        autosave = Autosave(out / "state.pt", every=50, before_save=writer.flush)
        steps = predictor.propagate_in_video(state, autosave=autosave)
        for frame_idx, obj_ids, mask_logits in steps:
            writer.write(frame_idx, obj_ids, mask_logits)
            if frame_idx == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def resume(out: Path) -> None:
    """Load the last save and track the rest."""
    predictor = load_predictor()
    state = predictor.load_state(out / "state.pt")
    on_disk = MaskFolder(out / "killed").frames[-1]
    with MaskWriter(out / "killed", resume=state) as writer:
        print(f"Masks were on disk up to frame {on_disk}; resuming after {writer.last_frame_idx}.")
        autosave = Autosave(out / "state.pt", every=50, before_save=writer.flush)
        steps = predictor.resume_propagation(state, autosave=autosave)
        for frame_idx, obj_ids, mask_logits in steps:
            writer.write(frame_idx, obj_ids, mask_logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/resume"))
    parser.add_argument("--kill-at", type=int, default=130)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    VIDEO.write(options.out / "video.mp4")

    process = multiprocessing.get_context("spawn").Process(
        target=start, args=(options.out, options.kill_at)
    )
    process.start()
    process.join()
    print(f"The run was killed at frame {options.kill_at} (exit code {process.exitcode}).")
    resume(options.out)
    start(options.out)

    killed, whole = (MaskFolder(options.out / name) for name in ("killed", "whole"))
    assert killed.frames == whole.frames == list(range(NUM_FRAMES))
    for frame_idx in whole.frames:
        assert np.array_equal(killed.read(frame_idx).masks, whole.read(frame_idx).masks)
    print(f"All masks of {NUM_FRAMES} frames equal those of a run that was not killed.")

    shown = [killed.read(frame_idx) for frame_idx in (0, options.kill_at, NUM_FRAMES - 1)]
    tiles = [draw(VIDEO.frame(frame_idx), ids, masks) for frame_idx, ids, masks in shown]
    Image.fromarray(np.concatenate(tiles, axis=1)).save(options.out / "resumed.png")
    print(f"Look at {options.out / 'resumed.png'}.")


if __name__ == "__main__":
    main()
