"""Many videos on Ray: a worker that is killed costs no frame, and objects may be split."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longsam.masks import MaskFolder
from longsam.testing import SyntheticVideo, load_predictor

EXAMPLES = Path(__file__).parents[1] / "examples"
NUM_FRAMES = 60

DRIVER = """
import json, os, signal
import fleet_ray, ray

jobs = json.loads({jobs!r})
options = fleet_ray.parse(["--save-every", "10"])
ray.init(num_cpus=2, log_to_driver=False, configure_logging=False, include_dashboard=False)
killed = []

def kill_once(progress):
    done, _, pid = progress.get("first", (0, 0, 0))
    if done > 20 and not killed:
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)

rows = fleet_ray.run(jobs, options, kill_once)
parts = fleet_ray.split_objects(jobs[1])
for part in parts:
    part["out"] += "_split"
for row in fleet_ray.run(parts, options):
    assert isinstance(row, dict), row
fleet_ray.merge(parts, fleet_ray.Path(jobs[1]["out"] + "_merged"))
print(json.dumps([len(killed), *[r if isinstance(r, dict) else str(r) for r in rows]]))
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_frame(tmp_path: Path) -> None:
    video = SyntheticVideo(3, NUM_FRAMES)
    video.write(tmp_path / "video.mp4")
    prompts = [
        {"frame": 0, "object": number + 1, "box": video.box(0, number)}
        for number in range(video.num_objects)
    ]
    jobs = [
        {
            "name": name,
            "video": str(tmp_path / file),
            "prompts": prompts,
            "out": str(tmp_path / name),
        }
        for name, file in (("first", "video.mp4"), ("second", "video.mp4"), ("third", "none.mp4"))
    ]
    code = DRIVER.format(jobs=json.dumps(jobs))
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    num_killed, first, second, third = json.loads(result.stdout.splitlines()[-1])
    assert num_killed == 1
    assert first["frames"] == second["frames"] == NUM_FRAMES
    assert first["from"] > 0, "the worker was killed before it had saved"
    assert second["from"] == 0
    assert "FileNotFoundError" in third

    predictor = load_predictor()
    state = predictor.init_state(tmp_path / "video.mp4")
    for prompt in prompts:
        predictor.add_new_points_or_box(state, 0, prompt["object"], box=prompt["box"])
    folders = [MaskFolder(tmp_path / name / "masks") for name in ("first", "second")]
    merged = MaskFolder(tmp_path / "second_merged" / "masks")
    for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
        for folder in (*folders, merged):
            _, ids, masks = folder.read(frame_idx)
            assert ids == obj_ids
            assert np.array_equal(masks, (mask_logits[:, 0] > 0).numpy())
