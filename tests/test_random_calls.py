"""Promise 1 under random calls: where ours does not warn, it returns what upstream returns."""

import random
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import videos

from longsam import memory

NUM_FRAMES, HEIGHT, WIDTH = 60, 64, 80
OBJECTS = ("a", "b", 3)
SMALL = [*models.SMALL[1:], "++model.image_size=64"]
SEQUENCES = 12

# A short reach, so that in 60 frames much is forgotten.
OPTIONS = {
    "short reach": ("++model.num_maskmem=3", "++model.max_obj_ptrs_in_encoder=4"),
    "two conditioning frames": (
        "++model.max_cond_frames_in_attn=2",
        "++model.max_obj_ptrs_in_encoder=6",
    ),
    "corrections condition": (
        "++model.add_all_frames_to_correct_as_cond=true",
        "++model.max_obj_ptrs_in_encoder=4",
        "++model.num_maskmem=4",
    ),
    "stride": (
        "++model.memory_temporal_stride_for_eval=2",
        "++model.num_maskmem=4",
        "++model.max_obj_ptrs_in_encoder=3",
    ),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("random") / "video.mp4"
    return videos.write_video(path, NUM_FRAMES, HEIGHT, WIDTH, options={"g": "20", "bf": "2"})


class Pair:
    """Upstream and ours, given the same calls."""

    def __init__(self, upstream: Any, ours: Any, video: Path, frames_per_chunk: int):
        self.upstream, self.theirs = upstream, upstream.init_state(str(video))
        self.ours = ours
        self.mine = ours.init_state(video, frames_per_chunk=frames_per_chunk)
        self.log: list[str] = []
        self.forgot = False

    def call(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.log.append(f"{name}{args} {kwargs}")
        expected = self._result(self.upstream, self.theirs, name, args, kwargs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = self._result(self.ours, self.mine, name, args, kwargs)
        self.forgot = any("forgotten" in str(warning.message) for warning in caught)
        if self.forgot:
            return
        if name == "remove_object" and not isinstance(result, Exception):
            remembered = {frame_idx for frame_idx, _ in result[1]}
            expected = expected[0], [item for item in expected[1] if item[0] in remembered]
        elif name != "propagate_in_video" and isinstance(result, tuple):
            rows = [
                row
                for row, obj_id in enumerate(result[1])
                if not memory.is_forgotten(self.mine, obj_id, result[0])
            ]
            expected, result = ((f, ids, masks[rows]) for f, ids, masks in (expected, result))
        assert same(expected, result), "\n".join(self.log)

    @staticmethod
    def _result(predictor: Any, state: Any, name: str, args: Any, kwargs: Any) -> Any:
        try:
            if name != "propagate_in_video":
                return copied(getattr(predictor, name)(state, *args, **kwargs))
            (count,) = args
            passed = islice(predictor.propagate_in_video(state, **kwargs), count)
            return [copied(step) for step in passed]
        except (RuntimeError, ValueError, AssertionError) as error:
            return error


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Exception):
        return type(a) is type(b) and str(a) == str(b)
    return bool(a == b)


def calls(choose: random.Random, pair: Pair) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Random calls, mostly near where tracking has got to."""
    here = 0
    for _ in range(choose.randrange(8, 25)):
        near = [here, here - 1, here - 3, here + 1, here + 2, 0, choose.randrange(NUM_FRAMES)]
        frame_idx = min(max(choose.choice(near), 0), NUM_FRAMES - 1)
        obj_id = choose.choice(OBJECTS)
        kind = choose.choices(["click", "mask", "pass", "clear", "remove", "reset"],
                              [6, 3, 10, 1, 1, 0.3])[0]  # fmt: skip
        if kind == "click":
            point = [choose.randrange(WIDTH), choose.randrange(HEIGHT)]
            yield (
                "add_new_points_or_box",
                (frame_idx, obj_id),
                {
                    "points": [point],
                    "labels": [choose.choice([1, 1, 0])],
                    "clear_old_points": choose.random() < 0.5,
                },
            )
        elif kind == "mask":
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[10 : choose.randrange(20, 60), 10 : choose.randrange(20, 70)] = True
            yield "add_new_mask", (frame_idx, obj_id, mask), {}
        elif kind == "pass":
            yield (
                "propagate_in_video",
                (choose.choice([3, 10, 30, 100]),),
                {
                    "start_frame_idx": choose.choice([None, here, min(here + 1, NUM_FRAMES - 1)]),
                    "max_frame_num_to_track": choose.choice([None, None, 0, 5, 20]),
                    "reverse": choose.random() < 0.35,
                },
            )
            here = next(reversed(pair.mine["longsam"].recent), 0)
        elif kind == "clear" and obj_id in pair.mine["obj_ids"]:
            prompted = pair.mine["point_inputs_per_obj"][pair.mine["obj_id_to_idx"][obj_id]]
            yield "clear_all_prompts_in_frame", (choose.choice([*prompted, frame_idx]), obj_id), {}
        elif kind == "remove":
            yield "remove_object", (obj_id,), {}
        elif kind == "reset":
            yield "reset_state", (), {}


def build_pair(checkpoint: Path, options: tuple[str, ...]) -> tuple[Any, Any]:
    upstream = models.build_upstream(checkpoint, *options, overrides=SMALL)
    ours = models.build_ours(checkpoint, *options, overrides=SMALL)
    # What upstream raises a dtype error for on a CPU is tested in test_exact.py.
    forward = upstream.memory_attention.forward
    upstream.memory_attention.forward = lambda memory, **kwargs: forward(
        memory=memory.float(), **kwargs
    )
    return upstream, ours


def run_sequence(upstream: Any, ours: Any, video: Path, choose: random.Random) -> tuple[int, bool]:
    """How many calls were equal, and whether a warning of forgotten frames ended the sequence."""
    pair = Pair(upstream, ours, video, frames_per_chunk=choose.choice([1, 2, 8]))
    exact_calls = 0
    for name, args, kwargs in calls(choose, pair):
        pair.call(name, *args, **kwargs)
        if pair.forgot:
            break  # from here on ours is documented to differ
        exact_calls += 1
    return exact_calls, pair.forgot


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_random_calls(options: tuple[str, ...], video: Path, tmp_path: Path) -> None:
    checkpoint = models.save_checkpoint(tmp_path / "model.pt", overrides=[*SMALL, *options])
    upstream, ours = build_pair(checkpoint, options)
    exact_calls = sum(
        run_sequence(upstream, ours, video, random.Random(seed))[0] for seed in range(SEQUENCES)
    )
    assert exact_calls > 5 * SEQUENCES
