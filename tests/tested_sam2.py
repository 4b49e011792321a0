"""Writes longsam/_tested_sam2.json: hashes of the installed upstream's files that tracking uses.

    python tests/tested_sam2.py     # once the whole suite has passed with another upstream

These are the modules that are imported when the testing model tracks, and the released configs. So
an edit of what only images need (the image predictor, the mask generator) raises no warning.
"""

import json
import sys
from pathlib import Path

import sam2

from longsam._installed_sam2 import TESTED, file_hash
from longsam.testing import SyntheticVideo, load_predictor


def used_files() -> list[str]:
    folder = Path(sam2.__file__).parent
    predictor = load_predictor()
    state = predictor.init_state(SyntheticVideo(seed=0, num_frames=2))
    predictor.add_new_points_or_box(state, 0, 1, points=[[100, 100]], labels=[1])
    list(predictor.propagate_in_video(state))
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "sam2"]
    files = {Path(module.__file__) for module in modules if module.__file__}
    files.update(folder.glob("configs/sam2/*.yaml"), folder.glob("configs/sam2.1/*.yaml"))
    return sorted(file.relative_to(folder).as_posix() for file in files)


def hashes() -> dict[str, str | None]:
    return {name: file_hash(Path(sam2.__file__).parent / name) for name in used_files()}


if __name__ == "__main__":
    TESTED.write_text(json.dumps(hashes(), indent=1) + "\n")
    print(f"{TESTED} written.")
