"""Upstream's predictor and ours, driven through the same random calls by hypothesis.

Where ours does not warn that frames it would need are forgotten, all that is returned is compared
exactly: masks, ids, frame indices, errors and their messages. After such a warning masks are
documented to differ until `reset_state`; from there on everything but the masks is compared, until
upstream refuses a pass because the object's last conditioning prompt was cleared, where ours has
one more.
"""

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import models
import numpy as np
import torch
import videos
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from longsam import _upstream, memory

COUNTS: Counter[str] = Counter()
"""Calls made: of each kind, and compared exactly ("exact") or but for masks ("by shape")."""

OBJECTS = ("a", "b", 3)
IMAGE_SIZE = [*models.SMALL[1:], "++model.image_size=64"]

# A short reach, so that in few frames much is forgotten.
MODELS = {
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
    "signed pointers": (
        "++model.use_signed_tpos_enc_to_obj_ptrs=false",
        "++model.only_obj_ptrs_in_the_past_for_eval=false",
        "++model.num_maskmem=2",
        "++model.max_obj_ptrs_in_encoder=5",
    ),
}

VIDEOS: dict[str, Callable[[Path], Path]] = {
    "60 frames": lambda path: videos.write_video(path / "60.mp4", 60, 64, 80, options={"g": "20"}),
    "25 frames, upright": lambda path: videos.write_video(path / "25.mp4", 25, 96, 54),
    "9 images": lambda path: videos.write_folder(path / "9", 9, height=48, width=70),
    "1 frame": lambda path: videos.write_video(path / "1.mp4", 1, 64, 64),
}

_FOLDER = tempfile.TemporaryDirectory(prefix="longsam-state-machine-")


@cache
def video(name: str) -> Path:
    return VIDEOS[name](Path(_FOLDER.name))


@cache
def predictors(name: str) -> tuple[Any, Any]:
    """Upstream's and ours, with the same weights."""
    options = MODELS[name]
    checkpoint = models.save_checkpoint(
        Path(_FOLDER.name) / f"{name}.pt", overrides=[*IMAGE_SIZE, *options]
    )
    upstream = models.build_upstream(checkpoint, *options, overrides=IMAGE_SIZE)
    ours = models.build_ours(checkpoint, *options, overrides=IMAGE_SIZE)
    # What upstream raises a dtype error for on a CPU is tested in test_exact.py.
    forward = upstream.memory_attention.forward
    upstream.memory_attention.forward = lambda memory, **kwargs: forward(
        memory=memory.float(), **kwargs
    )
    return upstream, ours


class Calls(RuleBasedStateMachine):
    """One session of a user who calls things in any order."""

    @initialize(
        model=st.sampled_from(sorted(MODELS)),
        name=st.sampled_from(sorted(VIDEOS)[::-1]),
        frames_per_chunk=st.sampled_from([1, 2, 8]),
        flags=st.fixed_dictionaries(
            {"offload_video_to_cpu": st.booleans(), "offload_state_to_cpu": st.booleans()}
        ),
    )
    def open(self, model: str, name: str, frames_per_chunk: int, flags: Any) -> None:
        self.upstream, self.ours = predictors(model)
        self.theirs = self.upstream.init_state(str(video(name)), **flags)
        self.mine = self.ours.init_state(video(name), frames_per_chunk=frames_per_chunk, **flags)
        self.passes: tuple[Any, Any] | None = None
        self.differs = False  # masks, since what they need was forgotten
        self.is_apart = False  # upstream has refused what ours tracks since then
        self.here = 0  # the frame tracked last
        self.num_calls = 0
        self.can_resume = False  # a pass is open, and nothing else was called since it started

    @property
    def num_frames(self) -> int:
        return int(self.theirs["num_frames"])

    def teardown(self) -> None:
        self._close_passes()
        if hasattr(self, "mine"):
            self.mine["images"].close()

    # Calls

    @rule(
        obj_id=st.sampled_from(OBJECTS),
        at=st.integers(-4, 3),
        x=st.floats(0, 1, width=16),
        y=st.floats(0, 1, width=16),
        label=st.sampled_from([1, 1, 0]),
        clear=st.booleans(),
    )
    def click(self, obj_id: Any, at: int, x: float, y: float, label: int, clear: bool) -> None:
        self._call(
            "add_new_points_or_box",
            self._frame(at),
            obj_id,
            points=[[x * self.mine["video_width"], y * self.mine["video_height"]]],
            labels=[label],
            clear_old_points=clear,
        )

    @rule(
        obj_id=st.sampled_from(OBJECTS),
        at=st.integers(-4, 3),
        corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
        size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    )
    def box(self, obj_id: Any, at: int, corner: Any, size: Any) -> None:
        (x, y), (width, height) = corner, size
        self._call(
            "add_new_points_or_box", self._frame(at), obj_id, box=[x, y, x + width, y + height]
        )

    @rule(
        obj_id=st.sampled_from(OBJECTS),
        at=st.integers(-4, 3),
        bottom=st.integers(0, 48),
        right=st.integers(0, 48),
    )
    def mask(self, obj_id: Any, at: int, bottom: int, right: int) -> None:
        mask = np.zeros((self.mine["video_height"], self.mine["video_width"]), bool)
        mask[4:bottom, 4:right] = True
        self._call("add_new_mask", self._frame(at), obj_id, mask)

    @rule(
        number=st.integers(0, 100), obj_id=st.sampled_from(OBJECTS), is_prompted=st.integers(0, 5)
    )
    def clear(self, number: int, obj_id: Any, is_prompted: int) -> None:
        frames = sorted(
            {
                f
                for inputs in ("point_inputs_per_obj", "mask_inputs_per_obj")
                for of_object in self.mine[inputs].values()
                for f in of_object
            }
        )
        frame_idx = frames[number % len(frames)] if frames and is_prompted else self._frame(0)
        if obj_id in self.mine["obj_ids"]:
            self._call("clear_all_prompts_in_frame", frame_idx, obj_id)

    @precondition(lambda self: len(self.mine["obj_ids"]) > 1)
    @rule(obj_id=st.sampled_from(OBJECTS), strict=st.booleans())
    def remove(self, obj_id: Any, strict: bool) -> None:
        self._close_passes()  # upstream's open passes fail when objects go
        self._call("remove_object", obj_id, strict)

    @precondition(lambda self: self.differs or self.num_calls % 10 == 9)
    @rule()
    def reset(self) -> None:
        self._close_passes()
        self._call("reset_state")
        self.differs = self.is_apart = False

    @precondition(lambda self: self.mine["obj_ids"] or self.num_calls % 10 == 0)
    @rule(
        start=st.sampled_from(["default", "here", "next", "next", "any"]),
        number=st.integers(0, 100),
        most=st.sampled_from([None, None, 0, 3, 12]),
        reverse=st.sampled_from([False, False, True]),
        count=st.sampled_from([1, 2, 4, 9, 25]),
    )
    def track(self, start: str, number: int, most: int | None, reverse: bool, count: int) -> None:
        """A pass, some of its frames; it stays open."""
        self._close_passes()
        start_frame_idx = {
            "default": None,
            "here": self.here,
            "next": min(max(self.here + (-1 if reverse else 1), 0), self.num_frames - 1),
            "any": number % self.num_frames,
        }[start]
        options = {
            "start_frame_idx": start_frame_idx,
            "max_frame_num_to_track": most,
            "reverse": reverse,
        }
        self.passes = (
            self.upstream.propagate_in_video(self.theirs, **options),
            self.ours.propagate_in_video(self.mine, **options),
        )
        self.can_resume = True
        self._advance(count)

    @precondition(lambda self: self.passes is not None)
    @rule(count=st.sampled_from([1, 2, 4, 9, 25]))
    def track_on(self, count: int) -> None:
        """More frames of the open pass, whatever was called in between."""
        self._advance(count)

    @precondition(lambda self: self.can_resume)
    @rule(count=st.sampled_from([1, 2, 4, 9, 25]))
    def crash_and_resume(self, count: int) -> None:
        """The open pass goes on from a save, as upstream's goes on by itself."""
        assert self.passes is not None
        theirs, mine = self.passes
        mine.close()
        self._save_and_load()
        self.passes = theirs, self.ours.resume_propagation(self.mine)
        COUNTS["crash_and_resume"] += 1
        self._advance(count)

    @precondition(lambda self: self.num_calls % 3 == 0)
    @rule()
    def save_and_load(self) -> None:
        """What is loaded is what was saved; upstream's state lives on."""
        self._close_passes()
        self._save_and_load()
        COUNTS["save_and_load"] += 1

    # What always holds

    @invariant()
    def is_bounded(self) -> None:
        if not hasattr(self, "mine"):
            return
        # The window, the frames around two starts, and a frame just computed.
        most = 3 * self.mine[memory.KEY].window + 1
        for obj_idx, _ in _upstream.objects(self.mine):
            assert len(_upstream.tracked_outputs(self.mine, obj_idx)) <= most

    @invariant()
    def knows_the_same_objects(self) -> None:
        if hasattr(self, "mine"):
            assert self.mine["obj_ids"] == self.theirs["obj_ids"]

    # How

    def _save_and_load(self) -> None:
        path = Path(_FOLDER.name) / "state.pt"
        self.ours.save_state(self.mine, path)
        self.mine["images"].close()
        self.mine = self.ours.load_state(path)

    def _frame(self, at: int) -> int:
        """A frame near the one tracked last, or, at the lowest number, frame 0."""
        return 0 if at == -4 else min(max(self.here + at, 0), self.num_frames - 1)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.can_resume = False
        expected = _result(lambda: getattr(self.upstream, name)(self.theirs, *args, **kwargs))
        result = self._watched(lambda: getattr(self.ours, name)(self.mine, *args, **kwargs))
        if not self.differs and name == "remove_object" and isinstance(result, tuple):
            remembered = {frame_idx for frame_idx, _ in result[1]}
            expected = expected[0], [item for item in expected[1] if item[0] in remembered]
        elif not self.differs and isinstance(result, tuple):
            # Others that are forgotten on this frame are returned as absent.
            rows = [
                row
                for row, obj_id in enumerate(result[1])
                if not memory.is_forgotten(self.mine, obj_id, result[0])
            ]
            expected, result = ((f, ids, masks[rows]) for f, ids, masks in (expected, result))
        elif name == "remove_object" and isinstance(result, tuple):
            expected, result = expected[0], result[0]
        self._compare(name, expected, result)

    def _advance(self, count: int) -> None:
        assert self.passes is not None
        theirs, mine = self.passes
        expected = _result(lambda: list(islice(theirs, count)))
        result = self._watched(lambda: list(islice(mine, count)))
        if isinstance(result, list) and result:
            self.here = result[-1][0]
        else:
            self.can_resume = False
        self._compare("track", expected, result)

    def _watched(self, call: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = _result(call)
        self.differs |= any("forgotten" in str(warning.message) for warning in caught)
        return result

    def _compare(self, name: str, expected: Any, result: Any) -> None:
        self.num_calls += 1
        COUNTS["calls"] += 1
        COUNTS[name] += 1
        if (
            self.differs
            and isinstance(expected, (RuntimeError, AssertionError))
            and not isinstance(result, Exception)
        ):
            # A prompt on a forgotten frame conditions, where upstream's was a correction; with its
            # other prompts cleared upstream has nothing to start from.
            self.is_apart = True
        if self.is_apart:
            COUNTS["apart"] += 1
            return
        COUNTS["by shape" if self.differs else "exact"] += 1
        if isinstance(expected, Exception):
            COUNTS["errors"] += 1
        assert same(expected, result, by_shape=self.differs), (expected, result)

    def _close_passes(self) -> None:
        for steps in getattr(self, "passes", None) or ():
            steps.close()
        self.passes, self.can_resume = None, False


def _result(call: Callable[[], Any]) -> Any:
    try:
        return copied(call())
    except (RuntimeError, ValueError, AssertionError, KeyError, IndexError) as error:
        return error


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def same(a: Any, b: Any, *, by_shape: bool) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape if by_shape else torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(
            same(x, y, by_shape=by_shape) for x, y in zip(a, b, strict=True)
        )
    if isinstance(a, Exception):
        return type(a) is type(b) and str(a) == str(b)
    return bool(a == b)


def run(seed: int, max_examples: int) -> None:
    """So many sessions of up to 50 calls; the same seed gives the same ones."""
    machine = hypothesis.seed(seed)(Calls)
    options = settings(
        max_examples=max_examples,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=options)
