"""What saving costs, and that no frame is lost to it.

    python tests/benchmarks/saving.py

Three parts, into results/saving.json:

- killed: a run with the testing model is killed with SIGKILL at ten random frames and goes on from
  its save each time; the masks on disk are compared with those of a run that was not killed.
- cost: the released tiny config with seeded weights at 1024 x 1024, one object: size of a save and
  of a snapshot when the window is full, seconds for one, and seconds a frame of tracking.
- prompts: a box on every second of 4,000 frames, with max_prompt_frames=16 and (400 frames) without
  a limit: bytes of the state and milliseconds for a prompt and two frames.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from longsam import Autosave, LongVideoPredictor
from longsam.masks import MaskWriter, read_masks
from longsam.testing import SyntheticVideo, load_predictor

VIDEO = SyntheticVideo(1, 600)
MIB = 2**20


def run(folder: Path, kill_at: int | None) -> None:
    """Track and save; from the save, if there is one. Killed at a frame if one is given."""
    torch.set_num_threads(1)
    predictor = load_predictor()
    save_path = folder / "state.pt"
    if save_path.exists():
        state = predictor.load_state(save_path, VIDEO)
        writer = MaskWriter(folder / "masks", "rle", resume=state)
        pass_over = predictor.resume_propagation
    else:
        state = predictor.init_state(VIDEO)
        for number in range(VIDEO.num_objects):
            predictor.add_new_mask(state, 0, number, VIDEO.masks(0)[number])
        writer = MaskWriter(folder / "masks", "rle", resume=(folder / "masks").exists())
        pass_over = predictor.propagate_in_video
    with writer:
        for frame_idx, obj_ids, mask_logits in pass_over(
            state, autosave=Autosave(save_path, 25, writer.flush)
        ):
            writer.write(frame_idx, obj_ids, mask_logits)
            if frame_idx == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def killed() -> dict[str, Any]:
    rng = random.Random(0)
    frames = sorted(rng.sample(range(1, len(VIDEO)), 10))
    codes = []
    with tempfile.TemporaryDirectory() as folder:
        for name, kills in (("whole", []), ("killed", frames)):
            (Path(folder) / name).mkdir()
            for kill_at in [*kills, None]:
                command = [sys.executable, "-W", "ignore", __file__, "--one", f"{folder}/{name}"]
                command += [] if kill_at is None else ["--kill-at", str(kill_at)]
                codes.append(subprocess.run(command, stderr=subprocess.DEVNULL).returncode)
        assert codes == [0, *[-signal.SIGKILL] * len(frames), 0], codes
        whole, other = (list(read_masks(Path(folder) / n / "masks")) for n in ("whole", "killed"))
    different = [
        frame_idx
        for (frame_idx, ids, masks), (_, other_ids, others) in zip(whole, other, strict=True)
        if list(ids) != list(other_ids) or not np.array_equal(masks, others)
    ]
    return {
        "frames": len(whole),
        "objects": VIDEO.num_objects,
        "save_every": 25,
        "killed_at": frames,
        "frames_that_differ": len(different),
    }


def cost() -> dict[str, Any]:
    import models

    warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
    video = SyntheticVideo(3, 10**6, (720, 1280), num_objects=3)
    seconds, saves = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = models.save_checkpoint(folder / "tiny.pt", overrides=())
        predictor = models.build_ours(checkpoint, overrides=())
        state = predictor.init_state(video)
        predictor.add_new_mask(state, 0, 1, video.masks(0)[0])
        started = time.perf_counter()
        for frame_idx, _, _ in predictor.propagate_in_video(state):
            if frame_idx > 8:  # from then on all memories are read
                seconds.append(time.perf_counter() - started)
            if frame_idx == 33:
                break
            started = time.perf_counter()
        for _ in range(5):
            started = time.perf_counter()
            predictor.save_state(state, folder / "state.pt")
            saves.append(time.perf_counter() - started)
        size = (folder / "state.pt").stat().st_size
        usage = predictor.memory_usage(state)
        kept = len(state["output_dict_per_obj"][0]["non_cond_frame_outputs"]) + 1
    kinds = ("memory_features", "masks", "object_pointers", "prompts")
    held = sum(usage[kind]["cpu"] for kind in kinds)
    frame, save = statistics.median(seconds), statistics.median(saves)
    return {
        "model": "sam2.1_hiera_t, seeded weights, 1024 x 1024, one object",
        "threads": torch.get_num_threads(),
        "kept_frames": kept,
        "save_mib": round(size / MIB, 2),
        "save_mib_a_kept_frame": round(size / MIB / kept, 4),
        "held_in_memory_mib": round(held / MIB, 2),
        "snapshot_mib": round(size / MIB, 2),
        "seconds_a_save": round(save, 3),
        "first_save_with_hash_of_weights_seconds": round(saves[0], 3),
        "seconds_a_frame": round(frame, 3),
        "autosave_every_500_share_of_time": round(save / (500 * frame), 6),
    }


def prompts(num_frames: int) -> dict[str, Any]:
    results = {}
    for limit in (16, None):
        torch.set_num_threads(1)
        video = SyntheticVideo(1, num_frames, num_objects=1)
        predictor = load_predictor(hydra_overrides_extra=["++model.image_size=128"])
        state = predictor.init_state(video, max_prompt_frames=limit)
        milliseconds, sizes = [], []
        frames = num_frames if limit else num_frames // 10
        prompted = 0
        for frame_idx in range(0, frames, 2):
            started = time.perf_counter()
            if video.visible(frame_idx)[0]:
                predictor.add_new_points_or_box(state, frame_idx, 1, box=video.box(frame_idx, 0))
                prompted += 1
            for _ in predictor.propagate_in_video(state, frame_idx, max_frame_num_to_track=1):
                pass
            milliseconds.append(1e3 * (time.perf_counter() - started))
            sizes.append(state_bytes(predictor, state))
        block = max(1, len(sizes) // 10)
        name = "no limit" if limit is None else f"max_prompt_frames={limit}"
        results[name] = {
            "frames": frames,
            "prompted": prompted,
            "ms_for_two_frames_by_tenth": [
                round(statistics.median(milliseconds[at : at + block]), 1)
                for at in range(0, len(sizes), block)
            ],
            "state_kib_by_tenth": [
                round(max(sizes[at : at + block]) / 1024) for at in range(0, len(sizes), block)
            ],
        }
        print(name, results[name], flush=True)
    return results


def state_bytes(predictor: LongVideoPredictor, state: Any) -> int:
    """All but the frame buffer."""
    usage = predictor.memory_usage(state)
    return usage["total"]["cpu"] - usage["frame_buffer"]["cpu"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=4000, help="every second is prompted")
    parser.add_argument("--parts", default="killed,cost,prompts", help="the others stay")
    parser.add_argument("--one", type=Path)
    parser.add_argument("--kill-at", type=int)
    options = parser.parse_args()
    if options.one:
        run(options.one, options.kill_at)
        return
    numbers = report.numbers_so_far("saving")
    for name, measure in (
        ("cost", cost),
        ("killed", killed),
        ("prompts", lambda: prompts(options.frames)),
    ):
        if name in options.parts.split(","):
            numbers[name] = measure()
            print(name, numbers[name], flush=True)
    print(report.write("saving", numbers))


if __name__ == "__main__":
    main()
