"""What tests must know of a session's inside and of its options, in one place.

It serves the options as they were up to commit 44bcd0b (`snapshot_every`, ...) too, so that a test
of what was wrong there can be run on that commit.
"""

import copy
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import longsam
from longsam import memory

IS_OLD = not hasattr(longsam, "Snapshots")

if IS_OLD:

    @dataclasses.dataclass(frozen=True)
    class Snapshots:
        """Stands in for `longsam.Snapshots`."""

        every: int = 300
        folder: str | os.PathLike[str] | None = None
        max_bytes: int | None = None

else:
    Snapshots = longsam.Snapshots  # type: ignore[misc]


def open_session(
    predictor: Any, video: Any, *, snapshots: Snapshots | None = None, **options: Any
) -> Any:
    """A state of upstream's predictor, which knows no snapshots, or of ours."""
    if snapshots is None or not isinstance(predictor, longsam.LongVideoPredictor):
        return predictor.init_state(str(video) if isinstance(video, Path) else video, **options)
    if IS_OLD:
        return predictor.init_state(
            video,
            snapshot_every=snapshots.every,
            snapshot_dir=snapshots.folder,
            max_snapshot_bytes=snapshots.max_bytes,
            **options,
        )
    return predictor.init_state(video, snapshots=snapshots, **options)


def rewind(predictor: Any, state: Any, frame_idx: int) -> None:
    """Ours rewinds; upstream, which forgets nothing, has no need to."""
    if isinstance(predictor, longsam.LongVideoPredictor):
        predictor.rewind(state, frame_idx)


def close(predictor: Any, state: Any) -> None:
    if isinstance(predictor, longsam.LongVideoPredictor):
        if IS_OLD:
            state["images"].close()
        else:
            predictor.close(state)


def _memory(state: Any) -> Any:
    return state["longsam"] if IS_OLD else state["longsam"].memory


def window(state: Any) -> int:
    return int(_memory(state).window)


def reach(state: Any) -> int:
    return int(_memory(state).reach)


def is_forgotten(state: Any, obj_id: Any, frame_idx: int) -> bool:
    if IS_OLD:
        return memory.is_forgotten(state, obj_id, frame_idx)
    return bool(_memory(state).is_forgotten(state, obj_id, frame_idx))


def outputs(state: Any, obj_id: Any) -> dict[int, Any]:
    """By frame index what either predictor's state holds of an object, conditioning or not."""
    per_obj = state["output_dict_per_obj"][state["obj_id_to_idx"][obj_id]]
    return {**per_obj["non_cond_frame_outputs"], **per_obj["cond_frame_outputs"]}


def frames_tracked(state: Any, obj_id: Any) -> dict[int, Any]:
    tracked: dict[int, Any] = state["frames_tracked_per_obj"][state["obj_id_to_idx"][obj_id]]
    return tracked


def prompt_frames(state: Any) -> Iterator[tuple[Any, int]]:
    """(object id, frame) of everything that was prompted and not cleared."""
    for inputs in ("point_inputs_per_obj", "mask_inputs_per_obj"):
        for obj_idx, of_object in state[inputs].items():
            for frame_idx in of_object:
                yield state["obj_idx_to_id"][obj_idx], frame_idx


def waiting_frames(state: Any) -> Iterator[tuple[Any, int]]:
    """(object id, frame) of the prompts that no pass has taken up yet."""
    for obj_idx, outputs in state["temp_output_dict_per_obj"].items():
        for by_frame in outputs.values():
            for frame_idx in by_frame:
                yield state["obj_idx_to_id"][obj_idx], frame_idx


def float_memory(upstream: Any) -> Any:
    """Upstream's predictor, fixed as ours is for objects that are prompted on later frames.

    What it raises for them on a CPU is tested in test_exact.py.
    """
    upstream = copy.deepcopy(upstream)
    forward = upstream.memory_attention.forward
    upstream.memory_attention.forward = lambda memory, **kwargs: forward(
        memory=memory.float(), **kwargs
    )
    return upstream
