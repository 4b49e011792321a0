"""Train the testing model on generated video.

    python train.py --out out/testing_model                 # two processes on a CPU
    python train.py --out out/testing_model --device cuda --processes 1

Stops after the last step of the schedule, at --until-step, or after --minutes; with the same --out
it resumes where it stopped. Writes log.jsonl, a line every 50 steps, and testing_model.pt.
"""

import argparse
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from clips import make_batch
from objective import Objective, start_well
from sam2.build_sam import build_sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base

from longsam.testing import CONFIG, OVERRIDES


@dataclass(frozen=True)
class Stage:
    """A part of the schedule; clips are for one process."""

    steps: int
    num_frames: int
    clips: int
    objects_per_clip: int
    size: int
    hard: float


SCHEDULE = (
    Stage(600, 1, 16, 3, 128, 0.3),
    Stage(1400, 4, 6, 2, 128, 0.3),
    Stage(900, 7, 4, 3, 128, 0.4),
    Stage(1800, 6, 3, 3, 192, 0.5),
)
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.02
EMA = 0.998
SAVE_EVERY_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/testing_model"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="CPU: one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--until-step", type=int, help="default: the end of the schedule")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(random.randint(20000, 60000)))
    torch.multiprocessing.spawn(train, (options,), nprocs=options.processes)


def train(rank: int, options: argparse.Namespace) -> None:
    if options.device == "cpu":
        torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=options.processes)
    torch.manual_seed(options.seed)
    model = build_sam2_video_predictor(
        CONFIG, None, device=options.device, mode="train", hydra_overrides_extra=list(OVERRIDES)
    )
    start_well(model)
    objective = Objective(model).to(options.device)
    parameters = list(objective.parameters())
    optimizer = torch.optim.AdamW(groups(objective), lr=LEARNING_RATE, betas=(0.9, 0.98))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    step, spent = 0, 0.0
    save_path = options.out / "training.pt"
    if save_path.exists():
        saved = torch.load(save_path, weights_only=True, map_location=options.device)
        objective.load_state_dict(saved["objective"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, spent = saved["average"], saved["step"], saved["spent"]
        for parameter in optimizer.state:  # as zero_grad leaves those unused in a step
            parameter.grad = torch.zeros_like(parameter)

    total = sum(stage.steps for stage in SCHEDULE)
    started = saved_at = time.perf_counter()
    recent: list[dict[str, float]] = []
    last_step = min(total, options.until_step or total)
    while step < last_step:
        stage = stage_of(step)
        set_size(model, stage.size)
        # Every step has its own seed, so a stopped run resumes as if it had never stopped.
        rng = np.random.default_rng((options.seed, rank, step))
        batch = make_batch(
            rng,
            clips=stage.clips,
            objects_per_clip=stage.objects_per_clip,
            num_frames=stage.num_frames,
            size=stage.size,
            hard=stage.hard,
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total)
        optimizer.zero_grad(set_to_none=False)
        loss, parts, ious = objective(batch, rng)
        loss.backward()
        share_gradients(parameters, options.processes)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        with torch.no_grad():
            keep = min(EMA, step / (step + 20))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        prompted, tracked = ious[0], ious[1:]
        recent.append(
            {name: float(value) for name, value in parts.items()}
            | {"J_prompted": float(prompted.nanmean()), "norm": float(norm)}
            | ({"J_tracked": float(tracked.nanmean())} if len(tracked) else {})
        )
        now = time.perf_counter()
        out_of_time = torch.tensor(float(now - started > 60 * options.minutes))
        dist.broadcast(out_of_time, 0)
        if rank == 0 and step % 50 == 0:
            line: dict[str, Any] = {"step": step, "seconds": round(spent + now - started)}
            for name in recent[-1]:
                line[name] = round(float(np.nanmean([r[name] for r in recent if name in r])), 4)
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if step % 50 == 0:
            recent = []
        last = bool(out_of_time) or step == last_step
        if rank == 0 and (last or now - saved_at > SAVE_EVERY_SECONDS):
            saved_at = now
            state = {
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step,
                "spent": spent + now - started,
            }
            write(save_path, state)
            half = {
                name: value.half() if value.is_floating_point() else value
                for name, value in average.items()
            }
            write(options.out / "testing_model.pt", {"model": half})
        if last:
            break
    dist.destroy_process_group()


def groups(objective: Objective) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for biases, norms and embeddings."""
    matrices = [p for p in objective.parameters() if p.ndim >= 2 and min(p.shape[:2]) > 4]
    of_matrices = {id(p) for p in matrices}
    others = [p for p in objective.parameters() if id(p) not in of_matrices]
    return [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def stage_of(step: int) -> Stage:
    for stage in SCHEDULE:
        if step < stage.steps:
            return stage
        step -= stage.steps
    raise ValueError("the schedule is over")


def set_size(model: SAM2Base, size: int) -> None:
    """Make the model take images of another size, as with another image_size in its config."""
    cells = size // model.backbone_stride
    model.image_size, model.sam_image_embedding_size = size, cells
    prompts = model.sam_prompt_encoder
    prompts.input_image_size, prompts.image_embedding_size = (size, size), (cells, cells)
    prompts.mask_input_size = (4 * cells, 4 * cells)


def learning_rate(step: int, total: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return LEARNING_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))


def share_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    """Average the gradients over the processes."""
    if processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for p, g in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
        p.grad = g.view_as(p)


def write(path: Path, content: Any) -> None:
    """Write so that a stop halfway leaves the old file."""
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
