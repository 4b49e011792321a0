"""Know objects from one video in others, with no new prompt.

    python examples/memory_bank.py

Prompts each object once in a generated video, saves what the model remembers, and tracks the
objects in three other stretches of the same world, with the small model that comes with longsam.
Writes known.png beside the bank: the last frame of each stretch with its masks.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from longsam.masks import draw
from longsam.testing import SyntheticVideo, iou, load_predictor

# Upstream says so on every machine without its compiled extension.
warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
WORLD = SyntheticVideo(seed=3, num_frames=100_000)
NUM_FRAMES = 100


def stretch(first: int) -> list[np.ndarray]:
    """A separate video: some frames of the world, from a given one on."""
    return [WORLD.frame(first + i) for i in range(NUM_FRAMES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=Path("out/memory_bank/objects.pt"))
    bank = parser.parse_args().bank
    bank.parent.mkdir(parents=True, exist_ok=True)

    predictor = load_predictor()
    state = predictor.init_state(stretch(0))
    for number in range(WORLD.num_objects):
        predictor.add_new_points_or_box(state, 0, f"object {number}", box=WORLD.box(0, number))
    predictor.save_memory_bank(state, bank)
    print(f"{bank}: {WORLD.num_objects} objects, {bank.stat().st_size / 1e6:.2f} MB")

    tiles = []
    for first in (5_000, 20_000, 70_000):
        state = predictor.init_state(stretch(first), memory_bank=bank)
        scores = []
        for frame_idx, _, mask_logits in predictor.propagate_in_video(state):
            visible = WORLD.visible(first + frame_idx)
            truth = WORLD.masks(first + frame_idx)
            scores += list(iou(mask_logits[:, 0] > 0, truth)[visible])
        print(f"frames {first} to {first + NUM_FRAMES - 1}: mean IoU {np.mean(scores):.2f}")
        tiles.append(draw(WORLD.frame(first + frame_idx), state.obj_ids, mask_logits))
    Image.fromarray(np.concatenate(tiles, axis=1)).save(bank.with_name("known.png"))
    print(f"Look at {bank.with_name('known.png')}.")


if __name__ == "__main__":
    main()
