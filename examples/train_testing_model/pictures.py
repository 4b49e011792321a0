"""Draw what the testing model tracks: strips of frames with masks, for its README.

    python pictures.py

Each strip is a video of the evaluation (see evaluate.py), all objects clicked on frame 0.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from longsam.masks import draw
from longsam.testing import SyntheticVideo, load_predictor

STRIPS = (("easy", 3), ("easy", 0), ("hard", 0))
FRAMES = range(0, 300, 43)


def main() -> None:
    torch.set_num_threads(1)
    predictor = load_predictor()
    for difficulty, seed in STRIPS:
        video = SyntheticVideo(seed, FRAMES[-1] + 1, difficulty=difficulty)
        state = predictor.init_state(video)
        for number in range(video.num_objects):
            click = video.click(0, number)
            predictor.add_new_points_or_box(state, 0, number + 1, points=[click], labels=[1])
        tiles = [
            draw(video.frame(i), obj_ids, mask_logits)
            for i, obj_ids, mask_logits in predictor.propagate_in_video(state)
            if i in FRAMES
        ]
        path = Path(__file__).parent / "results" / f"{difficulty}_{seed}.png"
        Image.fromarray(np.concatenate(tiles, axis=1)).quantize(128).save(path)
        print(path)


if __name__ == "__main__":
    main()
