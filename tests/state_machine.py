"""Upstream's predictor and ours, driven through the same random calls by hypothesis.

Compared exactly are all that is returned (masks, ids, frame indices, errors and their messages) and
all that ours still remembers. Sessions are of three kinds.

With snapshots the machine rewinds before every call that needs a forgotten frame; there a warning
is a failure, and everything is exact. Without them everything is exact until ours warns that frames
it would need are forgotten; after that masks are documented to differ until `reset_state`, and
everything but the masks is compared, until upstream refuses a pass because the object's last
conditioning prompt was cleared, where ours has one more. With `max_prompt_frames` only bounds, ids
and errors are compared. Some sessions have corrections that condition, as upstream's model option
has it; in the others ours must warn before a correction is replaced, and never else.

Subclasses of `Calls` that make only some of the calls are in `MACHINES`: each finds one kind of
mistake in few sessions.
"""

import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import models
import numpy as np
import sessions
import torch
import videos
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

COUNTS: Counter[str] = Counter()
"""Calls made: of each kind, and compared exactly ("exact") or but for masks ("by shape")."""

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

OUTPUT_TENSORS = ("maskmem_features", "pred_masks", "obj_ptr", "object_score_logits")

_FOLDER = tempfile.TemporaryDirectory(prefix="longsam-state-machine-")


@cache
def video(name: str) -> Path:
    return VIDEOS[name](Path(_FOLDER.name))


@cache
def predictors(name: str) -> tuple[Any, Any, Any]:
    """Upstream's, upstream's in which corrections condition, and ours, with the same weights."""
    options = MODELS[name]
    checkpoint = models.save_checkpoint(
        Path(_FOLDER.name) / f"{name}.pt", overrides=[*IMAGE_SIZE, *options]
    )
    upstream = models.build_upstream(checkpoint, *options, overrides=IMAGE_SIZE)
    ours = models.build_ours(checkpoint, *options, overrides=IMAGE_SIZE)
    conditioning = sessions.float_memory(upstream)
    conditioning.add_all_frames_to_correct_as_cond = True
    return sessions.float_memory(upstream), conditioning, ours


@dataclass(eq=False)
class OpenPass:
    """The same pass over both states."""

    theirs: Any
    mine: Any
    start: int | None
    reverse: bool
    has_started: bool = False
    has_ended: bool = False


def any_of(name: str) -> st.SearchStrategy[Any]:
    """One of the choices that the machine's class has under this name."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, name)))


def when(condition: Callable[["Calls"], Any], name: str) -> Callable[[Any], Any]:
    """A rule's precondition; a class may leave the rule out."""
    return precondition(lambda self: name not in self.left_out and condition(self))


class Calls(RuleBasedStateMachine):
    """One session of a user who calls things in any order."""

    # What is chosen from; what comes first is what hypothesis shrinks to.
    models: tuple[str, ...] = tuple(sorted(MODELS))
    videos: tuple[str, ...] = (
        "9 images",
        "60 frames",
        "60 frames",
        "25 frames, upright",
        "1 frame",
    )
    objects: tuple[Any, ...] = ("a", "b", 3)
    snapshots_every: tuple[int | None, ...] = (None, None, None, None, 2, 5)
    prompt_limits: tuple[int | None, ...] = (None,) * 11 + (2,)
    corrections: tuple[str, ...] = ("memory", "memory", "condition")
    most_open = 3
    starts: tuple[str, ...] = ("default", "here", "next", "next", "any")
    reverses: tuple[bool, ...] = (False, False, True)
    mosts: tuple[int | None, ...] = (None, None, 0, 3, 12)
    counts: tuple[int, ...] = (1, 2, 4, 9, 25)
    are_alone: tuple[bool, ...] = (True, False)
    are_numpy: tuple[bool, ...] = (False, False, False, True)
    left_out: frozenset[str] = frozenset()
    both_sides = True  # `rewind` gives back what lies on both sides of its frame
    checks_memory = True  # what is remembered, besides what is returned

    @initialize(
        model=any_of("models"),
        name=any_of("videos"),
        frames_per_chunk=st.sampled_from([1, 2, 8]),
        flags=st.fixed_dictionaries(
            {"offload_video_to_cpu": st.booleans(), "offload_state_to_cpu": st.booleans()}
        ),
        every=any_of("snapshots_every"),
        has_folder=st.booleans(),
        limit=any_of("prompt_limits"),
        corrections=any_of("corrections"),
    )
    def open(
        self,
        model: str,
        name: str,
        frames_per_chunk: int,
        flags: Any,
        every: int | None,
        has_folder: bool,
        limit: int | None,
        corrections: str,
    ) -> None:
        by_memory, by_condition, self.ours = predictors(model)
        self.upstream = by_condition if corrections == "condition" else by_memory
        self.how_corrected = corrections
        self.flags, self.frames_per_chunk = flags, frames_per_chunk
        self.folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
        self.every, self.limit = every, limit
        self.outlives = every is None or has_folder  # what a session keeps outlives it
        self.num_sessions = 0
        self.num_calls = 0
        self._open(name)

    def _open(self, name: str, bank: list[Path] | None = None) -> None:
        """The next session, of the same options, maybe with a memory bank of the one before."""
        folder = self.folder / f"snapshots {self.num_sessions}"
        snapshots = self.every and sessions.Snapshots(
            every=self.every, folder=folder if self.outlives else None
        )
        self.num_sessions += 1
        self.theirs = self.upstream.init_state(str(video(name)), **self.flags)
        self.mine = sessions.open_session(
            self.ours,
            video(name),
            snapshots=snapshots or None,
            frames_per_chunk=self.frames_per_chunk,
            max_prompt_frames=self.limit,
            memory_bank=bank,
            **({} if sessions.IS_OLD else {"corrections": self.how_corrected}),
            **self.flags,
        )
        self.passes: list[OpenPass] = []
        self.differs = self.limit is not None  # masks, since what they need was forgotten
        self.is_apart = False  # upstream has refused what ours tracks since then
        self.here = 0  # the frame tracked last
        self.resumable: OpenPass | None = None  # nothing was called since its last frame
        self.compared: dict[Any, Any] = {}
        self.cleared: set[int] = set()  # frames
        self.num_starts = 0  # frames rewound to since the last pass but one started
        self.rewound = 0
        self.num_failed = 0
        # Upstream's output of each correction that no pass has replaced, and whether ours has said
        # that one will.
        self.corrected: dict[tuple[Any, int], tuple[Any, bool]] = {}

    @property
    def num_frames(self) -> int:
        return int(self.theirs["num_frames"])

    @property
    def is_exact(self) -> bool:
        """Whether any call is exact, after a rewind."""
        return self.every is not None and self.limit is None

    def teardown(self) -> None:
        if hasattr(self, "mine"):
            self._close_passes()
            sessions.close(self.ours, self.mine)
            shutil.rmtree(self.folder)

    # Calls

    @when(lambda self: True, "click")
    @rule(
        obj_id=any_of("objects"),
        at=st.integers(-4, 3) | st.integers(100, 159),
        x=st.floats(0, 1, width=16),
        y=st.floats(0, 1, width=16),
        label=st.sampled_from([1, 1, 0]),
        clear=st.booleans(),
        is_numpy=any_of("are_numpy"),
    )
    def click(
        self, obj_id: Any, at: int, x: float, y: float, label: int, clear: bool, is_numpy: bool
    ) -> None:
        self._prompt(
            "add_new_points_or_box",
            self._frame(at),
            obj_id,
            is_numpy,
            points=[[x * self.mine["video_width"], y * self.mine["video_height"]]],
            labels=[label],
            clear_old_points=clear,
        )

    @when(lambda self: True, "box")
    @rule(
        obj_id=any_of("objects"),
        at=st.integers(-4, 3) | st.integers(100, 159),
        corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
        size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    )
    def box(self, obj_id: Any, at: int, corner: Any, size: Any) -> None:
        (x, y), (width, height) = corner, size
        box = [x, y, x + width, y + height]
        self._prompt("add_new_points_or_box", self._frame(at), obj_id, box=box)

    @when(lambda self: True, "mask")
    @rule(
        obj_id=any_of("objects"),
        at=st.integers(-4, 3),
        bottom=st.integers(0, 48),
        right=st.integers(0, 48),
        is_numpy=any_of("are_numpy"),
    )
    def mask(self, obj_id: Any, at: int, bottom: int, right: int, is_numpy: bool) -> None:
        mask = np.zeros((self.mine["video_height"], self.mine["video_width"]), bool)
        mask[4:bottom, 4:right] = True
        self._prompt("add_new_mask", self._frame(at), obj_id, is_numpy, mask=mask)

    @when(lambda self: True, "clear")
    @rule(number=st.integers(0, 100), obj_id=any_of("objects"), is_prompted=st.integers(0, 5))
    def clear(self, number: int, obj_id: Any, is_prompted: int) -> None:
        frames = sorted({frame_idx for _, frame_idx in sessions.prompt_frames(self.mine)})
        frame_idx = frames[number % len(frames)] if frames and is_prompted else self._frame(0)
        if obj_id in self.mine["obj_ids"]:
            self._go_back_if_needed(frame_idx, range(frame_idx, frame_idx + 1))
            self.cleared.add(frame_idx)
            self._call("clear_all_prompts_in_frame", frame_idx, obj_id)

    @when(lambda self: len(self.mine["obj_ids"]) > 1, "remove")
    @rule(obj_id=any_of("objects"), strict=st.booleans())
    def remove(self, obj_id: Any, strict: bool) -> None:
        self._close_passes()  # upstream's open passes fail when objects go
        self._call("remove_object", obj_id, strict)

    @when(lambda self: self.differs or self.num_calls % 10 == 9, "reset")
    @rule()
    def reset(self) -> None:
        self._close_passes()
        self._call("reset_state")
        self.differs, self.is_apart = self.limit is not None, False

    @when(lambda self: self.mine["obj_ids"] or self.num_calls % 10 == 0, "track")
    @rule(
        start=any_of("starts"),
        number=st.integers(0, 100),
        most=any_of("mosts"),
        reverse=any_of("reverses"),
        count=any_of("counts"),
        is_alone=any_of("are_alone"),
        is_numpy=any_of("are_numpy"),
    )
    def track(
        self,
        start: str,
        number: int,
        most: int | None,
        reverse: bool,
        count: int,
        is_alone: bool,
        is_numpy: bool,
    ) -> None:
        """A pass, some of its frames; it stays open, and those before maybe too."""
        if is_alone:
            self._close_passes()
        while len(self.passes) >= self.most_open:
            self._close(self.passes[number % len(self.passes)])
        start_frame_idx = {
            "default": None,
            "first": 0,
            "last": self.num_frames - 1,
            "here": self.here,
            "next": min(max(self.here + (-1 if reverse else 1), 0), self.num_frames - 1),
            "any": number % self.num_frames,
        }[start]
        if start_frame_idx is None and self.differs:
            # A prompt on a forgotten frame conditions, so ours may have an earlier default start.
            self.is_apart |= _default_start(self.mine) != _default_start(self.theirs)
        self._advance(self._pass(start_frame_idx, most, reverse, is_numpy), count)

    @when(lambda self: self.passes, "track_on")
    @rule(which=st.integers(0, 5), count=any_of("counts"))
    def track_on(self, which: int, count: int) -> None:
        """More frames of an open pass, whatever was called in between."""
        self._advance(self.passes[which % len(self.passes)], count)

    @when(lambda self: len(self.passes) > 1, "take_turns")
    @rule(turns=st.lists(st.integers(0, 2), min_size=2, max_size=6), count=st.integers(1, 3))
    def take_turns(self, turns: list[int], count: int) -> None:
        for which in turns:
            if self.passes:
                self._advance(self.passes[which % len(self.passes)], count)

    @when(lambda self: self.passes, "leave")
    @rule(which=st.integers(0, 5), closes=st.booleans())
    def leave(self, which: int, closes: bool) -> None:
        """A pass is closed, or its generator dropped."""
        one = self.passes[which % len(self.passes)]
        if closes:
            self._close(one)
        else:
            self._drop(one)

    @when(lambda self: self.every is not None and self._tracked_frames(), "rewind")
    @rule(number=st.integers(0, 100))
    def rewind(self, number: int) -> None:
        frames = self._tracked_frames()
        self._rewind(frames[number % len(frames)])

    @when(lambda self: self.is_exact and self._tracked_frames(), "correct")
    @rule(
        number=st.integers(0, 100),
        obj_id=any_of("objects"),
        x=st.floats(0, 1, width=16),
        after=st.sampled_from([1, 0, 2]),
        reverse=any_of("reverses"),
        most=any_of("mosts"),
        count=any_of("counts"),
    )
    def correct(
        self,
        number: int,
        obj_id: Any,
        x: float,
        after: int,
        reverse: bool,
        most: int | None,
        count: int,
    ) -> None:
        """Back to a frame, a correction there, and a pass from it or next to it."""
        frames = self._tracked_frames()
        frame_idx = frames[number % len(frames)]
        self._rewind(frame_idx)
        point = [x * self.mine["video_width"], self.mine["video_height"] / 2]
        self._prompt("add_new_points_or_box", frame_idx, obj_id, points=[point], labels=[1])
        start = frame_idx + (-after if reverse else after)
        if 0 <= start < self.num_frames:
            while len(self.passes) >= self.most_open:
                self._close(self.passes[0])
            self._advance(self._pass(start, most, reverse), count)

    @when(lambda self: self.resumable and self.outlives, "crash_and_resume")
    @rule(count=any_of("counts"))
    def crash_and_resume(self, count: int) -> None:
        """The open pass goes on from a save, as upstream's goes on by itself."""
        one = self.resumable
        assert one is not None
        for other in [other for other in self.passes if other is not one]:
            self._close(other)
        one.mine.close()
        self._save_and_load()
        one.mine = self.ours.resume_propagation(self.mine)
        COUNTS["crash_and_resume"] += 1
        self.resumable = one
        self._advance(one, count)

    @when(lambda self: self.num_calls % 3 == 0 and self.outlives, "save_and_load")
    @rule()
    def save_and_load(self) -> None:
        """What is loaded is what was saved; upstream's state lives on."""
        self._close_passes()
        self._save_and_load()
        self.num_calls += 1
        COUNTS["save_and_load"] += 1

    @when(
        lambda self: not self.differs and self.mine["obj_ids"] and self.num_calls % 4 == 0, "bank"
    )
    @rule(name=any_of("videos"), times=st.sampled_from([1, 1, 2]), number=st.integers(0, 7))
    def bank(self, name: str, times: int, number: int) -> None:
        """Another session starts with the objects of this one, in upstream's put in by hand."""
        self._close_passes()
        path = self.folder / "bank.pt"
        obj_ids = [i for at, i in enumerate(self.mine["obj_ids"]) if number >> at & 1] or None
        expected = _result(lambda: self.upstream.propagate_in_video_preflight(self.theirs))
        result = self._watched(lambda: self.ours.save_memory_bank(self.mine, path, obj_ids))
        self._compare("bank", expected, result)
        if isinstance(expected, Exception):
            return
        memories = [
            (obj_id, list(_conditioning_outputs(self.theirs, obj_id).values()))
            for obj_id in obj_ids or self.theirs["obj_ids"]
        ]
        sessions.close(self.ours, self.mine)
        self._open(name, [path] * times)
        for obj_id, outputs in memories * times:
            self.upstream._obj_id_to_idx(self.theirs, obj_id)
            known = _conditioning_outputs(self.theirs, obj_id)
            for output in outputs:
                known[min([*known, 0]) - 1] = {**output, "pred_masks": None}

    # What always holds

    @invariant()
    def is_bounded(self) -> None:
        if not hasattr(self, "mine"):
            return
        reach = sessions.reach(self.mine)
        most = (
            sessions.window(self.mine)
            + 1  # just computed
            + (2 + self.num_starts + self.rewound) * (2 * (reach + 1) + 1)
            + (reach + 1) * sum(one.has_started for one in self.passes)
            + len(self.cleared)
            + self.num_failed
        )
        for obj_id in self.mine["obj_ids"]:
            prompted = {f for i, f in sessions.prompt_frames(self.mine) if i == obj_id}
            kept = {f for f in sessions.outputs(self.mine, obj_id) if f >= 0} - prompted
            assert len(kept) <= most, f"{len(kept)} frames are kept, {most} are allowed"

    @invariant()
    def knows_the_same_objects(self) -> None:
        if hasattr(self, "mine"):
            assert self.mine["obj_ids"] == self.theirs["obj_ids"]

    @invariant()
    def remembers_what_upstream_does(self) -> None:
        """What is kept is what upstream has: whatever is read later is exact."""
        if not hasattr(self, "mine") or self.differs or not self.checks_memory:
            return
        compared = {}
        for key, output in _outputs(self.mine):
            expected = _output(self.theirs, key)
            assert expected is not None, f"upstream remembers nothing of {key}"
            before = self.compared.get(key)
            if before is None or before[0] is not output or before[1] is not expected:
                assert all(same(output[n], expected[n]) for n in OUTPUT_TENSORS), key
            compared[key] = output, expected
        self.compared = compared
        for obj_id in self.mine["obj_ids"]:
            tracked = sessions.frames_tracked(self.theirs, obj_id)
            for frame_idx, how in sessions.frames_tracked(self.mine, obj_id).items():
                assert tracked.get(frame_idx) == how, f"{obj_id} is tracked on {frame_idx} ({how})"

    # How

    def _save_and_load(self) -> None:
        self.resumable = None
        path = self.folder / "state.pt"
        self.ours.save_state(self.mine, path)
        sessions.close(self.ours, self.mine)
        self.mine = self.ours.load_state(path)

    def _frame(self, at: int) -> int:
        """A frame near the one tracked last, or, at the lowest number, frame 0.

        Numbers from 100 on are any frame, in sessions where that is exact.
        """
        if at >= 100:
            at = (at - 100) % self.num_frames - self.here if self.is_exact else at % 8 - 4
        return 0 if at == -4 else min(max(self.here + at, 0), self.num_frames - 1)

    def _tracked_frames(self) -> list[int]:
        """The frames that upstream has tracked."""
        return sorted({f for i in self.theirs["obj_ids"] for f in self._tracked(i)})

    def _tracked(self, obj_id: Any) -> dict[int, Any]:
        return sessions.frames_tracked(self.theirs, obj_id)

    def _missing(self, frames: range) -> set[int]:
        """Those of some frames of which upstream remembers more than ours does."""
        missing = set()
        for obj_id in self.theirs["obj_ids"]:
            for of_frame in (sessions.outputs, sessions.frames_tracked):
                known = of_frame(self.mine, obj_id)
                missing |= {f for f in of_frame(self.theirs, obj_id) if f in frames} - known.keys()
        return missing

    def _around(self, frame_idx: int) -> range:
        reach = sessions.reach(self.mine)
        after = reach + 1 if self.both_sides else 0
        return range(max(frame_idx - reach - 1, 0), frame_idx + after + 1)

    def _go_back_if_needed(self, frame_idx: int, needed: range) -> None:
        """In a session where all is exact: rewind where something is missing that will be read."""
        if self.is_exact and self._missing(needed):
            if sessions.IS_OLD:  # it refuses a frame that was not tracked
                tracked = self._tracked_frames()
                near = [f for f in tracked if f in needed] or tracked
                frame_idx = min(near, key=lambda f: (f != frame_idx, abs(f - frame_idx)))
            self._rewind(frame_idx)
            missing = self._missing(needed)
            assert not (missing and self.checks_memory), f"{sorted(missing)} are missing"

    def _rewind(self, frame_idx: int) -> None:
        self.resumable = None
        COUNTS["rewind"] += 1
        self.rewound += 1
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?s).*forgotten")
            self.ours.rewind(self.mine, frame_idx)
        if self.is_exact and self.checks_memory:
            missing = self._missing(self._around(frame_idx))
            assert not missing, f"frames {sorted(missing)} are missing after rewind({frame_idx})"
            self.remembers_what_upstream_does()

    def _prompt(
        self, name: str, frame_idx: int, obj_id: Any, is_numpy: bool = False, **prompt: Any
    ) -> None:
        self._go_back_if_needed(frame_idx, self._around(frame_idx))
        if is_numpy and isinstance(obj_id, int):
            obj_id = np.int64(obj_id)
        self._call(name, np.int64(frame_idx) if is_numpy else frame_idx, obj_id, **prompt)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.resumable = None
        expected = _result(lambda: getattr(self.upstream, name)(self.theirs, *args, **kwargs))
        result = self._watched(lambda: getattr(self.ours, name)(self.mine, *args, **kwargs))
        if name == "remove_object" and isinstance(result, tuple):
            if self.differs:
                expected, result = expected[0], result[0]
            else:
                remembered = {frame_idx for frame_idx, _ in result[1]}
                expected = expected[0], [item for item in expected[1] if item[0] in remembered]
        elif not (self.differs or self.is_exact) and isinstance(result, tuple):
            # Others that are forgotten on this frame are returned as absent.
            rows = [
                row
                for row, obj_id in enumerate(result[1])
                if not sessions.is_forgotten(self.mine, obj_id, result[0])
            ]
            expected, result = ((f, ids, masks[rows]) for f, ids, masks in (expected, result))
        self._compare(name, expected, result)

    def _pass(
        self, start: int | None, most: int | None, reverse: bool, is_numpy: bool = False
    ) -> OpenPass:
        """The generators of a pass; nothing is tracked yet."""
        theirs_start = start
        if start is None and any(
            frame_idx < 0
            for obj_id in self.theirs["obj_ids"]
            for frame_idx in _conditioning_outputs(self.theirs, obj_id)
        ):
            theirs_start = self._default_start()  # upstream knows no memories but those of frames
        if is_numpy and start is not None:
            start = theirs_start = np.int64(start)  # type: ignore[assignment]
        one = OpenPass(
            self.upstream.propagate_in_video(self.theirs, theirs_start, most, reverse),
            self.ours.propagate_in_video(self.mine, start, most, reverse),
            start,
            reverse,
        )
        self.passes.append(one)
        return one

    def _default_start(self) -> int:
        return min(
            (
                frame_idx
                for key in ("output_dict_per_obj", "temp_output_dict_per_obj")
                for of_object in self.theirs[key].values()
                for frame_idx in of_object["cond_frame_outputs"]
                if frame_idx >= 0
            ),
            default=0,
        )

    def _advance(self, one: OpenPass, count: int) -> None:
        is_first = not one.has_started
        if is_first:
            start = self._default_start() if one.start is None else int(one.start)
            reach = sessions.reach(self.mine)
            read = range(start + 1, start + reach + 1) if one.reverse else None
            self._go_back_if_needed(start, read or range(max(start - reach, 0), start))
            one.has_started = True
        expected = _result(lambda: list(islice(one.theirs, count)))
        result = self._watched(lambda: list(islice(one.mine, count)))
        goes_on = is_first or self.resumable is one
        if isinstance(result, list) and result:
            self.here = result[-1][0]
            if is_first:
                self.num_starts, self.rewound = self.rewound, 0
        else:
            goes_on = False
        self.num_failed += isinstance(expected, Exception)
        one.has_ended |= not isinstance(expected, list) or len(expected) < count
        self.resumable = one if goes_on else None
        self._compare("track", expected, result)
        if one.has_ended:
            self._drop(one)
        if self.limit is not None and isinstance(result, list) and result:
            self._check_limit(result[-1][1], one.reverse)

    def _check_limit(self, obj_ids: list[Any], reverse: bool) -> None:
        """Of the prompts that a pass has taken up and come by, so many are kept at most."""
        assert self.limit is not None
        waiting = set(sessions.waiting_frames(self.mine))
        for obj_id in obj_ids:
            frames = {f for i, f in sessions.prompt_frames(self.mine) if i == obj_id} | {
                f for f in _conditioning_outputs(self.mine, obj_id) if f >= 0
            }
            frames -= {f for i, f in waiting if i == obj_id}
            passed = [f for f in frames if (f >= self.here if reverse else f <= self.here)]
            assert len(passed) <= self.limit, (obj_id, passed)

    def _watched(self, call: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = _result(call)
        told = [str(w.message) for w in caught if "covers the corrections of" in str(w.message)]
        self._check_corrections(told)
        forgotten = [w.message for w in caught if "forgotten" in str(w.message)]
        assert not (self.is_exact and forgotten), forgotten[0]
        self.differs |= bool(forgotten)
        return result

    def _check_corrections(self, messages: list[str]) -> None:
        """After the same call of both: what was corrected is there, or ours has said it goes."""
        known = self.corrected
        for message in messages:
            named = {  # a message names five, and says how many more there are
                (obj_id, frame_idx)
                for obj_id, frame_idx in known
                if " more: " in message
                or re.search(rf"object {_told(obj_id)} on frame {frame_idx}\b", message)
            }
            is_true = not all(known[key][1] for key in named)
            assert is_true or self.is_apart, "a warning of no correction"
            known = {key: (output, told or key in named) for key, (output, told) in known.items()}
        self.corrected = {}
        for (obj_id, frame_idx), (output, told) in known.items():
            obj_idx = self.theirs["obj_id_to_idx"].get(obj_id)
            if obj_idx is None or frame_idx not in self._prompted(obj_id):
                continue  # taken back
            now = self.theirs["output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
            waits = self.theirs["temp_output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
            if output is now.get(frame_idx) or output is waits.get(frame_idx):
                self.corrected[obj_id, frame_idx] = output, told
            elif frame_idx in now and frame_idx not in waits:
                COUNTS["corrections replaced"] += 1
                assert told or self.differs, f"the correction of {obj_id} on {frame_idx} is gone"
        for obj_id in self.theirs["obj_ids"]:
            obj_idx = self.theirs["obj_id_to_idx"][obj_id]
            waiting = self.theirs["temp_output_dict_per_obj"][obj_idx]["non_cond_frame_outputs"]
            for frame_idx, output in waiting.items():
                known_before = self.corrected.get((obj_id, frame_idx), (None, False))
                if known_before[0] is not output:
                    self.corrected[obj_id, frame_idx] = output, False

    def _prompted(self, obj_id: Any) -> set[int]:
        return {f for i, f in sessions.prompt_frames(self.theirs) if i == obj_id}

    def _compare(self, name: str, expected: Any, result: Any) -> None:
        self.num_calls += 1
        COUNTS["calls"] += 1
        COUNTS[name] += 1
        COUNTS["with snapshots"] += self.is_exact
        COUNTS["with two open passes"] += sum(one.has_started for one in self.passes) > 1
        if (
            self.differs
            and isinstance(expected, (RuntimeError, AssertionError))
            and not isinstance(result, Exception)
        ) or (
            self.limit is not None
            and isinstance(result, (RuntimeError, AssertionError))
            and not isinstance(expected, Exception)
            and str(result) in ("", *_says_no_prompts(self.mine["obj_ids"]))
        ):
            # A prompt on a forgotten frame conditions, where upstream's was a correction; with its
            # other prompts cleared upstream has nothing to start from. With a limit it is ours.
            self.is_apart = True
        if self.is_apart:
            COUNTS["apart"] += 1
            return
        COUNTS["by shape" if self.differs else "exact"] += 1
        if isinstance(expected, Exception):
            COUNTS["errors"] += 1
        assert same(expected, result, by_shape=self.differs), (
            f"{name} gives {brief(result)}, upstream {brief(expected)}"
        )

    def _close_passes(self) -> None:
        for one in list(self.passes):
            self._close(one)

    def _close(self, one: OpenPass) -> None:
        one.theirs.close()
        one.mine.close()
        self._drop(one)

    def _drop(self, one: OpenPass) -> None:
        if self.resumable is one:
            self.resumable = None
        if one in self.passes:
            self.passes.remove(one)


def _told(obj_id: Any) -> str:
    """An id as messages have it, for a pattern: NumPy's integers as Python's."""
    return re.escape(repr(obj_id.item() if isinstance(obj_id, np.generic) else obj_id))


def _conditioning_outputs(state: Any, obj_id: Any) -> dict[int, Any]:
    per_obj = state["output_dict_per_obj"][state["obj_id_to_idx"][obj_id]]
    outputs: dict[int, Any] = per_obj["cond_frame_outputs"]
    return outputs


def _outputs(state: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What is remembered, those of prompts that wait too, by where it is."""
    for name in ("output_dict_per_obj", "temp_output_dict_per_obj"):
        for obj_idx, by_storage in state[name].items():
            for storage, by_frame in by_storage.items():
                for frame_idx, output in by_frame.items():
                    yield (name, obj_idx, storage, frame_idx), output


def _output(state: Any, key: tuple[Any, ...]) -> Any:
    name, obj_idx, storage, frame_idx = key
    return state[name][obj_idx][storage].get(frame_idx)


def _says_no_prompts(obj_ids: list[Any]) -> list[str]:
    return [
        f"No input points or masks are provided for object id {obj_id}; please add inputs first."
        for obj_id in obj_ids
    ]


def _default_start(state: Any) -> int:
    """The first conditioning frame, of those that wait for the next pass too."""
    return min(
        (
            frame_idx
            for outputs in ("output_dict_per_obj", "temp_output_dict_per_obj")
            for by_storage in state[outputs].values()
            for frame_idx in by_storage["cond_frame_outputs"]
            if frame_idx >= 0
        ),
        default=0,
    )


def _result(call: Callable[[], Any]) -> Any:
    try:
        return copied(call())
    except (RuntimeError, ValueError, AssertionError, KeyError, IndexError) as error:
        return error


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value


def same(a: Any, b: Any, *, by_shape: bool = False) -> bool:
    if isinstance(a, torch.Tensor):
        if by_shape:
            return a.shape == b.shape
        # Pointers are not a number where a prompt conditions on the frame that it corrects.
        return torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b) and _message(a) == _message(b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(
            same(x, y, by_shape=by_shape) for x, y in zip(a, b, strict=True)
        )
    return bool(a == b)


def brief(value: Any) -> Any:
    """The same with short words for tensors."""
    if isinstance(value, torch.Tensor):
        return f"<{tuple(value.shape)}, sum {value.double().sum():.6f}>"
    return list(map(brief, value)) if isinstance(value, (list, tuple)) else value


def _message(error: Exception) -> str:
    return str(error).replace("np.int64(3)", "3")


# Machines that look at one thing each -------------------------------------------------------------


class TwoPasses(Calls):
    """Passes that are open at once, without snapshots."""

    videos = ("60 frames",)
    objects = ("a", "b")
    snapshots_every = (None,)
    prompt_limits = (None,)
    are_numpy = (False,)
    starts = ("default", "any", "next")
    mosts = (None,)
    counts = (1, 9, 25)
    are_alone = (False,)
    left_out = frozenset(
        {"box", "mask", "clear", "remove", "bank", "save_and_load", "crash_and_resume", "leave"}
    )


class _GoingBack(Calls):
    """Rewinding, one pass at a time, one object."""

    videos = ("60 frames",)
    objects: tuple[Any, ...] = ("a",)
    snapshots_every = (5, 2)
    prompt_limits = (None,)
    are_numpy = (False,)
    most_open = 1
    left_out = frozenset(
        {"mask", "clear", "remove", "reset", "bank", "save_and_load", "crash_and_resume"}
    )


class GoingBackAgain(_GoingBack):
    """Corrections that are tracked on a part of the way, forward."""

    starts = ("default", "first", "next")
    reverses = (False,)
    counts = (60, 4, 9)
    both_sides = False


class GoingBackInReverse(_GoingBack):
    """Whole passes in both directions."""

    starts = ("default", "here", "any")
    mosts = (None,)
    counts = (60,)


class GoingBackOnTwoObjects(GoingBackInReverse):
    """The same with objects that are prompted on different frames."""

    objects = ("a", "b")
    starts = ("default",)


class GoingBackOnNewObjects(_GoingBack):
    """Ids that are used again, after removal or reset; whole passes from frame 0."""

    objects = ("a", "b")
    starts = ("first",)
    reverses = (False,)
    mosts = (None,)
    counts = (60,)
    both_sides = False
    left_out = _GoingBack.left_out - {"remove", "reset"} | {"correct"}


class Banks(Calls):
    """Sessions that begin with memory banks."""

    videos = ("25 frames, upright", "60 frames")
    objects = ("a", "b")
    are_numpy = (False,)
    prompt_limits = (None,)
    most_open = 1
    left_out = frozenset({"clear", "remove", "reset"})


MACHINES = {
    machine.__name__: machine
    for machine in (
        Calls,
        TwoPasses,
        GoingBackAgain,
        GoingBackInReverse,
        GoingBackOnTwoObjects,
        GoingBackOnNewObjects,
        Banks,
    )
}


def run(
    seed: int, max_examples: int, machine: type[Calls] = Calls, *, shrinks: bool = True
) -> None:
    """So many sessions of up to 50 calls; the same seed gives the same ones.

    Args:
        shrinks: Whether calls that lead to a difference are reduced to few, which takes minutes.
    """
    options = settings(
        max_examples=max_examples,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=options)
