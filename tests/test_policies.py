"""Memory policies: equal to the authors' masks, and everything else that longsam promises."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch.nn import attention, functional

from longsam import LongVideoPredictor, Snapshots, storage
from longsam.policies import (
    Candidates,
    Dam4Sam,
    History,
    Memo,
    Recall,
    Sam2Long,
    Samurai,
    TrackedFrame,
    Upstream,
)
from longsam.policies.parts import largest_part
from longsam.testing import SyntheticVideo, load_predictor

REFERENCE = Path(__file__).parent / "reference" / "policies"
DOCS = Path(__file__).parents[1] / "docs" / "policies.md"

OFTEN = Dam4Sam(anchor_iou=0.3, least_size=0.5, greatest_size=2.0, anchor_box_iou=0.97)
"""With the thresholds of `dam4sam_low`: anchors are made often."""

SPLITS = Sam2Long(certain_score=3.0)
"""Hypotheses split and end often: the testing model is seldom surer than that."""

POLICIES = {
    "samurai": Samurai(),
    "dam4sam": OFTEN,
    "sam2long": SPLITS,
}


def code_of_the_docs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


def policy_of_the_docs(name: str) -> Any:
    names: dict[str, Any] = {}
    (block,) = (one for one in code_of_the_docs() if f"class {name}(" in one)
    exec(compile(block.partition("\nstate = ")[0], DOCS.name, "exec"), names)
    return names[name]()


EVERY = POLICIES | {"spaced": policy_of_the_docs("Spaced")}
"""With one that a user copies, and gives again when a save is loaded."""

MOST_PIXELS = 5
"""By which masks may differ on another processor, on a frame."""


@pytest.fixture(scope="module")
def model() -> LongVideoPredictor:
    return load_predictor()


@pytest.fixture(scope="module")
def hard() -> SyntheticVideo:
    return SyntheticVideo(2105, 60, (192, 192), "hard")


# The authors' masks ------------------------------------------------------------------------------


class Reference:
    """A run of the authors' code: its masks, and the session that gave them."""

    def __init__(self, name: str):
        with np.load(REFERENCE / f"{name}.npz") as saved:
            about = json.loads(str(saved["about"]))
            width = about["frame_size"][1]
            self.masks = {
                int(frame_idx): np.unpackbits(mask, axis=-1)[:, :width].astype(bool)
                for frame_idx, mask in zip(saved["frames"], saved["masks"], strict=True)
            }
            self.hashes = {
                int(frame_idx): str(one)
                for frame_idx, one in zip(saved["frames"], saved["sha256"], strict=True)
            }
        self.prompt = about["prompt"]
        self.video = SyntheticVideo(
            about["seed"], about["num_frames"], tuple(about["frame_size"]), about["difficulty"]
        )

    def track(
        self, model: LongVideoPredictor, policy: Any, num_frames: int | None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        # The authors' code runs without fused attention where there is no GPU.
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            state = model.init_state(self.video, memory_policy=policy)
            if "mask" in self.prompt:
                model.add_new_mask(state, 0, 1, self.video.masks(0)[0])
            else:
                model.add_new_points_or_box(state, 0, 1, **self.prompt)
            steps = model.propagate_in_video(
                state, max_frame_num_to_track=num_frames, progress_bar=False
            )
            for frame_idx, _, mask_logits in steps:
                yield frame_idx, mask_logits[0, 0]

    def differs(self, frame_idx: int, logits: torch.Tensor) -> tuple[bool, int]:
        """Whether bits do, and on how many pixels the mask does."""
        is_same = hashlib.sha256(logits.numpy().tobytes()).hexdigest() == self.hashes[frame_idx]
        return not is_same, int(((logits > 0).numpy() != self.masks[frame_idx]).sum())


def test_samurai_equals_the_authors(model: LongVideoPredictor) -> None:
    compare(model, "samurai_2102_click", Samurai(), 110)


def test_dam4sam_equals_the_authors(model: LongVideoPredictor) -> None:
    compare(model, "dam4sam_low_2105_mask", OFTEN, 90)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("samurai_2100_mask", Samurai()),
        ("samurai_2101_mask", Samurai()),
        ("samurai_2102_box", Samurai()),
        ("samurai_2102_click", Samurai()),
        ("dam4sam_2104_mask", Dam4Sam()),
        ("dam4sam_low_2105_mask", OFTEN),
    ],
)
def test_whole_references_are_equal(model: LongVideoPredictor, name: str, policy: Any) -> None:
    compare(model, name, policy, None)


def compare(model: LongVideoPredictor, name: str, policy: Any, num_frames: int | None) -> None:
    reference = Reference(name)
    found = [
        (frame_idx, *reference.differs(frame_idx, logits))
        for frame_idx, logits in reference.track(model, policy, num_frames)
        if frame_idx in reference.masks
    ]
    check_equal(name, found)


def check_equal(name: str, found: list[tuple[int, bool, int]]) -> None:
    """Of each frame: its index, whether bits differ, and on how many pixels."""
    other_bits = [frame_idx for frame_idx, bits, _ in found if bits]
    other_masks = [(frame_idx, pixels) for frame_idx, _, pixels in found if pixels]
    print(
        f"{name}: of {len(found)} frames the bits of {len(other_bits)} differ, first "
        f"{other_bits[:1]}; pixels of {len(other_masks)}: {other_masks[:5]}"
    )
    assert len(found) >= 50
    assert [one for one in other_masks if one[1] > MOST_PIXELS] == []


def test_sam2long_equals_the_authors(model: LongVideoPredictor) -> None:
    compare_paths(model, "sam2long_2107_click", 92)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam2long_2106_mask", "sam2long_2107_click"])
def test_whole_references_of_sam2long_are_equal(model: LongVideoPredictor, name: str) -> None:
    compare_paths(model, name, None)


def compare_paths(model: LongVideoPredictor, name: str, num_frames: int | None) -> None:
    """The authors' answer is the whole past of the hypothesis that is best at the end."""
    reference, tree = Reference(name), []

    @dataclass(frozen=True)
    class Watched(Sam2Long):
        def branch(self, memos: Any, offers: Any) -> Any:
            pairs = super().branch(memos, offers)
            frame_idx = offers[0].frame_idx
            found = [reference.differs(frame_idx, offers[p].full_masks[i]) for p, i in pairs]
            tree.append((frame_idx, pairs, found))
            return pairs

    for _ in reference.track(model, Watched(), num_frames):
        pass
    is_whole = num_frames is None
    # Before the end the answer is the past of one of the hypotheses, not always of the best.
    ends = [past(tree, place) for place in range(1 if is_whole else len(tree[-1][1]))]
    found = min(ends, key=lambda one: sum(pixels for _, _, pixels in one))
    check_equal(name, found)
    assert max(len(pairs) for _, pairs, _ in tree) == 3


def test_hypotheses_split_and_end(model: LongVideoPredictor, hard: SyntheticVideo) -> None:
    """Without this the tests of what longsam promises would show little of `SPLITS`."""
    numbers = []

    @dataclass(frozen=True)
    class Watched(Sam2Long):
        def branch(self, memos: Any, offers: Any) -> Any:
            pairs = super().branch(memos, offers)
            numbers.append((len(memos), len(pairs), len({path for path, _ in pairs})))
            return pairs

    state = model.init_state(hard, memory_policy=Watched(certain_score=SPLITS.certain_score))
    model.add_new_mask(state, 0, 1, hard.masks(0)[0])
    for _ in model.propagate_in_video(state, max_frame_num_to_track=30):
        pass
    assert max(after for _, after, _ in numbers) == 3
    assert any(after > before for before, after, _ in numbers)
    assert any(before == 3 and followed < 3 for before, _, followed in numbers)


def past(tree: list[Any], place: int) -> list[tuple[int, bool, int]]:
    """Of a hypothesis of the last frame: each frame, whether its bits differ, and its pixels."""
    found = []
    for frame_idx, pairs, differs in reversed(tree):
        found.append((frame_idx, *differs[place]))
        place = pairs[place][0]
    return found[::-1]


# What longsam promises ---------------------------------------------------------------------------


def click(predictor: Any, state: Any, frame_idx: int = 0, obj_id: Any = 1, x: int = 60) -> None:
    predictor.add_new_points_or_box(state, frame_idx, obj_id, points=[[x, 50]], labels=[1])


def masks_of(steps: Any) -> dict[int, torch.Tensor]:
    return {frame_idx: mask_logits.clone() for frame_idx, _, mask_logits in steps}


def same(first: dict[int, torch.Tensor], second: dict[int, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[i], second[i]) for i in first)


def prompt(model: LongVideoPredictor, state: Any, video: SyntheticVideo, *objects: int) -> None:
    for obj in objects:
        model.add_new_mask(state, 0, obj, video.masks(0)[obj])


def track(
    model: LongVideoPredictor, state: Any, *, num: int | None = None, **how: Any
) -> dict[int, torch.Tensor]:
    return masks_of(
        model.propagate_in_video(state, max_frame_num_to_track=num, progress_bar=False, **how)
    )


def test_upstreams_rule_as_a_policy_gives_upstreams_masks(
    upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    """With prompts on several frames, a correction, an object that comes later, and in reverse."""
    masks = []
    for predictor, options in ((upstream, {}), (ours, {"memory_policy": "upstream"})):
        state = predictor.init_state(str(mp4), **options)
        click(predictor, state, 10)
        click(predictor, state, 22, x=40)
        click(predictor, state, 10, obj_id=2, x=90)
        steps = [predictor.propagate_in_video(state, max_frame_num_to_track=30)]
        found = masks_of(steps[0])
        click(predictor, state, 30, x=70)
        for start, reverse in ((31, False), (10, True)):
            for frame_idx, mask in masks_of(
                predictor.propagate_in_video(state, start, 12, reverse)
            ).items():
                found[1000 * (1 + reverse) + frame_idx] = mask
        masks.append(found)
    assert same(*masks)


@pytest.mark.parametrize("stride", [1, 3])
def test_upstreams_rule_at_any_stride(
    ours: LongVideoPredictor, mp4: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    monkeypatch.setattr(ours, "memory_temporal_stride_for_eval", stride)
    for reverse in (False, True):
        masks = []
        for policy in (None, "upstream"):
            state = ours.init_state(mp4, memory_policy=policy)
            click(ours, state, 40)
            masks.append(track(ours, state, num=25, reverse=reverse))
        assert same(*masks)


@pytest.mark.parametrize("name", EVERY)
def test_a_save_is_resumed_bit_for_bit(
    model: LongVideoPredictor, hard: SyntheticVideo, tmp_path: Path, name: str
) -> None:
    state = model.init_state(hard, memory_policy=EVERY[name])
    prompt(model, state, hard, 2, 1)
    for frame_idx, _, _ in model.propagate_in_video(state, progress_bar=False):
        if frame_idx == 24:
            break
    model.save_state(state, tmp_path / "state.pt")
    given = None if name in POLICIES else EVERY[name]
    loaded = model.load_state(tmp_path / "state.pt", hard, memory_policy=given)
    assert loaded["longsam"].options.memory_policy == EVERY[name]
    bytes_of = [model.memory_usage(one) for one in (state, loaded)]
    for kind in ("memory_features", "masks", "object_pointers", "policy"):
        assert bytes_of[0].get(kind) == bytes_of[1].get(kind)
    on = masks_of(model.resume_propagation(state, progress_bar=False))
    again = masks_of(model.resume_propagation(loaded, progress_bar=False))
    assert len(on) == 35
    assert same(on, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_rewind_gives_what_an_unbounded_window_keeps(
    model: LongVideoPredictor, hard: SyntheticVideo, tmp_path: Path, name: str
) -> None:
    """A correction on a forgotten frame, and the frames after it. Object 2 has anchors."""
    masks = []
    for options in ({"memory_window": 1000}, {"snapshots": Snapshots(10, tmp_path / name)}):
        state = model.init_state(hard, memory_policy=EVERY[name], **options)
        prompt(model, state, hard, 2)
        track(model, state)
        if "snapshots" in options:
            model.rewind(state, 14)
        model.add_new_mask(state, 14, 2, hard.masks(14)[2])
        masks.append(track(model, state, start_frame_idx=15, num=20))
    assert same(*masks)


@pytest.mark.parametrize(
    "name",
    [
        "samurai",
        pytest.param("dam4sam", marks=pytest.mark.slow),
        pytest.param("sam2long", marks=pytest.mark.slow),
    ],
)
def test_each_object_is_tracked_as_if_alone(
    model: LongVideoPredictor, hard: SyntheticVideo, name: str
) -> None:
    """One that is added later too."""
    together = model.init_state(hard, memory_policy=POLICIES[name])
    prompt(model, together, hard, 0, 1)
    first = track(model, together, num=20)
    model.add_new_mask(together, 21, 2, hard.masks(21)[2])
    then = track(model, together, start_frame_idx=21, num=20)
    for obj in (0, 1, 2):
        alone = model.init_state(hard, memory_policy=POLICIES[name])
        if obj < 2:
            prompt(model, alone, hard, obj)
            assert same(
                {i: mask[obj : obj + 1] for i, mask in first.items()}, track(model, alone, num=20)
            )
        else:
            model.add_new_mask(alone, 21, 2, hard.masks(21)[2])
        found = track(model, alone, start_frame_idx=21, num=20)
        assert same({i: mask[obj : obj + 1] for i, mask in then.items()}, found)


class Mirrored:
    """A video from its end."""

    def __init__(self, video: SyntheticVideo):
        self.video = video

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: int) -> Any:
        return self.video[len(self.video) - 1 - index]


@pytest.mark.parametrize("name", ["samurai", "sam2long", "spaced"])
def test_reverse_is_mirrored(model: LongVideoPredictor, hard: SyntheticVideo, name: str) -> None:
    last = len(hard) - 1
    forward = model.init_state(hard, memory_policy=EVERY[name])
    backward = model.init_state(Mirrored(hard), memory_policy=EVERY[name])
    model.add_new_mask(forward, 0, 1, hard.masks(0)[0])
    model.add_new_mask(backward, last, 1, hard.masks(0)[0])
    there = track(model, forward, num=40)
    back = track(model, backward, start_frame_idx=last, num=40, reverse=True)
    assert same(there, {last - i: mask for i, mask in back.items()})


def test_dam4sam_in_reverse(model: LongVideoPredictor, hard: SyntheticVideo) -> None:
    """Its first 15 frames place pointers otherwise, so masks are alike and not the same."""
    last = len(hard) - 1
    masks = []
    for video, start, reverse in ((hard, 0, False), (Mirrored(hard), last, True)):
        state = model.init_state(video, memory_policy=OFTEN)
        model.add_new_mask(state, start, 1, hard.masks(0)[0])
        found = track(model, state, start_frame_idx=start, num=30, reverse=reverse)
        masks.append({abs(i - start): mask > 0 for i, mask in found.items()})
    shares = [(masks[0][i] == masks[1][i]).float().mean() for i in masks[0]]
    assert min(shares) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_prompts_on_several_frames_and_passes_that_go_back(
    model: LongVideoPredictor, hard: SyntheticVideo, name: str
) -> None:
    """The same calls give the same masks, whatever the window."""
    masks = []
    for window in (None, 1000):
        state = model.init_state(
            hard, memory_policy=POLICIES[name], memory_window=window, corrections="condition"
        )
        prompt(model, state, hard, 2)
        model.add_new_mask(state, 25, 2, hard.masks(25)[2])
        first = track(model, state)
        model.add_new_points_or_box(state, 55, 2, points=[hard.click(55, 2)], labels=[1])
        after = track(model, state, start_frame_idx=56)
        again = track(model, state, start_frame_idx=0, num=41)
        back = track(model, state, start_frame_idx=25, reverse=True)
        masks.append([first, after, again, back])
    for one, other in zip(*masks, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("name", POLICIES)
def test_offloading_and_autocast_and_live(
    model: LongVideoPredictor, hard: SyntheticVideo, name: str
) -> None:
    found = []
    for options in ({}, {"offload_state_to_cpu": True}):
        state = model.init_state(hard, memory_policy=POLICIES[name], **options)
        prompt(model, state, hard, 0)
        found.append(track(model, state, num=20))
    assert same(*found)
    live = model.init_state(iter(hard), memory_policy=POLICIES[name])
    model.add_new_mask(live, 0, 0, hard.masks(0)[0])
    assert same(found[0], track(model, live, num=20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = model.init_state(hard, memory_policy=POLICIES[name])
        prompt(model, state, hard, 0)
        rounded = track(model, state, num=20)
    shares = [((found[0][i] > 0) == (rounded[i] > 0)).float().mean() for i in rounded]
    assert np.mean(shares) > 0.97


@pytest.fixture(scope="module")
def tiny() -> LongVideoPredictor:
    """The testing model with an input of 64 x 64 pixels."""
    return load_predictor(hydra_overrides_extra=["++model.image_size=64"])


class Cycle:
    """A video that repeats, forth and back, the first frames of another; of one frame it is still.

    Args:
        video: The other.
        num_different: How many frames.
        num_frames: Its length.
    """

    def __init__(self, video: SyntheticVideo, num_different: int, num_frames: int):
        self.video = video
        self.period = max(2 * (num_different - 1), 1)
        self.num_frames = num_frames

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> Any:
        place = index % self.period
        return self.video[min(place, self.period - place)]


MOST_FRAMES = {"spaced": 10, "samurai": 7, "dam4sam": 20, "sam2long": 200}
"""What a policy holds beyond a window of 15 frames, in frames of it, with the model at 64 x 64,
where much of that is not memory features."""


@pytest.mark.parametrize("name", EVERY)
def test_bytes_are_the_same_after_four_times_as_many_frames(
    tiny: LongVideoPredictor, hard: SyntheticVideo, tmp_path: Path, name: str
) -> None:
    """Of a still video, on which what a policy holds settles: equal, memo and file too."""
    still = Cycle(hard, 1, 481)
    state = tiny.init_state(still, memory_policy=EVERY[name], memory_window=15)
    prompt(tiny, state, hard, 0)
    after, saved = {}, {}
    for frame_idx, _, _ in tiny.propagate_in_video(state, progress_bar=False):
        if frame_idx in (120, 480):
            after[frame_idx] = tiny.memory_usage(state)
            tiny.save_state(state, tmp_path / "state.pt")
            saved[frame_idx] = (tmp_path / "state.pt").stat().st_size
    assert after[480] == after[120]
    one_frame = after[120]["memory_features"]["cpu"] / 16
    assert 0 < after[120]["policy"]["cpu"] <= MOST_FRAMES[name] * one_frame
    assert abs(saved[480] - saved[120]) < 0.01 * saved[120]  # names of frames have more digits


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_bytes_are_flat_over_5000_frames(
    tiny: LongVideoPredictor, hard: SyntheticVideo, name: str
) -> None:
    """With motion, hidden objects and look-alikes: what the window holds is the same on every
    frame, and what a policy holds reaches no more in the last 1,000 frames than in the first.
    """
    video = Cycle(hard, len(hard), 5001)
    state = tiny.init_state(video, memory_policy=POLICIES[name], memory_window=15)
    prompt(tiny, state, hard, 0)
    kinds = ("memory_features", "masks", "prompts", "cached_features", "frame_buffer")
    rest, policy = set(), {}
    for frame_idx, _, _ in tiny.propagate_in_video(state, progress_bar=False):
        if frame_idx % 20 == 0 and frame_idx >= 100:
            usage = tiny.memory_usage(state)
            rest.add(tuple(usage[kind].get("cpu", 0) for kind in kinds))
            policy[frame_idx] = usage.get("policy", {"cpu": 0})["cpu"]
    first = max(policy[i] for i in policy if i <= 1000)
    last = max(policy[i] for i in policy if i > 4000)
    print(f"{name}: bytes of {len(policy)} frames {rest}; policy {first} at first, {last} at last")
    assert len(policy) == 246
    assert len(rest) == 1
    assert last <= 1.2 * first
    assert max(policy.values()) <= MOST_FRAMES[name] * usage["memory_features"]["cpu"] / 16


@pytest.mark.parametrize("name", POLICIES)
def test_memory_banks(
    model: LongVideoPredictor, hard: SyntheticVideo, tmp_path: Path, name: str
) -> None:
    """An object known from a bank, with no prompt of its own, is tracked."""
    state = model.init_state(hard, memory_policy=POLICIES[name])
    prompt(model, state, hard, 0)
    model.save_memory_bank(state, tmp_path / "bank.pt")
    other = model.init_state(hard, memory_policy=POLICIES[name], memory_bank=tmp_path / "bank.pt")
    found = track(model, other, num=12)
    truth = torch.from_numpy(hard.masks(5)[0])
    mask = found[5][0, 0] > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.5


def test_an_anchor_goes_into_a_bank(
    model: LongVideoPredictor, hard: SyntheticVideo, tmp_path: Path
) -> None:
    """And is read in another video, by a session with a policy and by one without."""
    state = model.init_state(hard, memory_policy=OFTEN)
    prompt(model, state, hard, 2, 1)
    track(model, state, num=30)
    outputs = state["output_dict_per_obj"][0]["non_cond_frame_outputs"]
    anchors = outputs[30]["longsam_policy"][0]["memo"]["anchors"]
    assert len(anchors) >= 2
    model.save_memory_bank(state, tmp_path / "prompts.pt", obj_ids=[2])
    model.save_memory_bank(state, tmp_path / "anchors.pt", obj_ids=[2], anchors=True)
    for policy in (None, OFTEN):
        masks = []
        for name in ("prompts", "anchors"):
            other = model.init_state(
                hard, memory_policy=policy, memory_bank=tmp_path / f"{name}.pt"
            )
            known = other["output_dict_per_obj"][0]["cond_frame_outputs"]
            if name == "anchors":
                assert list(known) == [-1 - i for i in range(1 + len(anchors))]
                for given, anchor in zip(list(known.values())[1:], anchors.values(), strict=True):
                    assert torch.equal(given["maskmem_features"], anchor["maskmem_features"])
            masks.append(track(model, other, num=12))
        assert not same(*masks)
        truth = torch.from_numpy(hard.masks(5)[2])
        mask = masks[1][5][0, 0] > 0
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5
    plain = model.init_state(hard)
    prompt(model, plain, hard, 0)
    with pytest.raises(ValueError, match="anchors=True, but the session has no memory policy"):
        model.save_memory_bank(plain, tmp_path / "bank.pt", anchors=True)
    samurai = model.init_state(hard, memory_policy="samurai")
    prompt(model, samurai, hard, 0)
    model.save_memory_bank(samurai, tmp_path / "none.pt", anchors=True)  # it has none


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["sam3", 5, Samurai, object()])
def test_other_policies_are_refused(ours: LongVideoPredictor, mp4: Path, policy: Any) -> None:
    with pytest.raises(ValueError, match="memory_policy is"):
        ours.init_state(mp4, memory_policy=policy)


def test_what_cannot_hold_is_refused(
    ours: LongVideoPredictor, mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="batch_objects cannot be used with memory_policy"):
        ours.init_state(mp4, memory_policy="samurai", batch_objects=True)
    monkeypatch.setattr(ours, "max_cond_frames_in_attn", 4)
    with pytest.raises(ValueError, match="max_cond_frames_in_attn is 4"):
        ours.init_state(mp4, memory_policy="samurai")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Samurai, {"motion_weight": 1.5}),
        (Samurai, {"motion_weight": math.nan}),
        (Samurai, {"presence": "low"}),
        (Samurai, {"stable_frames": 0}),
        (Dam4Sam, {"stride": 0}),
        (Dam4Sam, {"max_conditioning": 1}),
        (Dam4Sam, {"anchor_iou": True}),
        (Sam2Long, {"num_paths": 1}),
        (Sam2Long, {"certain_score": -1}),
    ],
)
def test_wrong_options_are_refused(make: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=rf"{make.__name__}\({name}\) is .* must be"):
        make(**options)


def saved_with(ours: LongVideoPredictor, video: Path, path: Path, policy: Any) -> dict[str, Any]:
    state = ours.init_state(video, memory_policy=policy)
    click(ours, state)
    track(ours, state, num=12)
    ours.save_state(state, path)
    return storage.read(path, "longsam_state", "state", 4)


def test_loading_with_another_policy_is_refused(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    saved_with(ours, mp4, path, Samurai(motion_weight=0.5))
    loaded = ours.load_state(path, memory_policy=Samurai(motion_weight=0.5))
    assert loaded["longsam"].options.memory_policy == Samurai(motion_weight=0.5)
    for other in ("samurai", "dam4sam"):
        with pytest.raises(ValueError, match=r"made with the policy samurai .*0\.5"):
            ours.load_state(path, memory_policy=other)
    saved_with(ours, mp4, path, None)
    with pytest.raises(ValueError, match="made with memory_policy=None, not with samurai"):
        ours.load_state(path, memory_policy="samurai")


@dataclass(frozen=True)
class Careful(Upstream):
    """A user's own."""

    name = "careful"
    least: float = 0.4

    def recall(self, memo: Memo, history: History) -> Recall:
        recent = [history.back(distance) for distance in range(6, 0, -1)]
        good = [f for f in recent if f in history and history.predicted_iou(f) >= self.least]
        memories = [history[f] for f in good]
        return Recall(dict(history.conditioning), memories, history.pointers)


def test_a_users_own_policy_is_given_again(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    content = saved_with(ours, mp4, path, Careful())
    assert content["options"]["memory_policy"] == {"name": "careful", "options": {"least": 0.4}}
    with pytest.raises(ValueError, match="does not come with longsam: give it"):
        ours.load_state(path)
    with pytest.raises(ValueError, match="made with the policy careful"):
        ours.load_state(path, memory_policy=Careful(0.5))
    ours.load_state(path, memory_policy=Careful())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    "harm",
    ["name", "options", "kind", "records", "memo", "missing", "held", "shape", "empty", "code"],
)
def test_hostile_saves(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path, name: str, harm: str
) -> None:
    path = tmp_path / "state.pt"
    content = saved_with(ours, mp4, path, POLICIES[name])
    described = content["options"]["memory_policy"]
    outputs = content["upstream"]["output_dict_per_obj"][0]["non_cond_frame_outputs"]
    record = outputs[12]["longsam_policy"][0]
    if harm == "name":
        described["name"] = "os.system"
    elif harm == "options":
        described["options"]["__class__"] = 1.0
    elif harm == "kind":
        described["options"] = {key: [1] for key in described["options"]}
    elif harm == "records":
        outputs[12]["longsam_policy"] = 5
    elif harm == "memo":
        record["memo"] = [1, 2]
    elif harm == "missing":
        record["memo"].popitem()
    elif harm == "held":
        record["held"] = {"a": outputs[11]}
    elif harm == "shape":
        record["held"] = {3: {**outputs[11], "obj_ptr": torch.zeros(1, 2)}}
    elif harm == "empty":
        outputs[12]["longsam_policy"] = []
    else:
        described["options"] = "__import__('os')"
    storage.write(content, path)
    with pytest.raises(ValueError, match="does not hold a state as longsam saves it"):
        ours.load_state(path)


def test_a_policy_that_chooses_or_recalls_wrongly_is_named(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    class Wrong(Upstream):
        def choose(self, memo: Memo, candidates: Candidates) -> int:
            return 7

    class Blank(Upstream):
        def recall(self, memo: Memo, history: History) -> Recall:
            return Recall({}, [], [])

    class Nosy(Upstream):
        def keep(self, memo: Memo, frame: TrackedFrame) -> Memo:
            frame.as_prompt()
            return memo

    state = ours.init_state(mp4, memory_policy=Wrong())
    with pytest.raises(ValueError, match="chose mask 7; it must be from 0 to 2"):
        click(ours, state)
    state = ours.init_state(mp4, memory_policy=Blank())
    click(ours, state)
    with pytest.raises(ValueError, match="recalls 0 conditioning frames"):
        track(ours, state, num=2)
    state = ours.init_state(mp4, memory_policy=Nosy())
    with pytest.raises(RuntimeError, match="Frame 0 is a prompt"):
        click(ours, state)


# Parts -------------------------------------------------------------------------------------------


def test_largest_part() -> None:
    """Against a flood fill, on random masks."""
    rng = np.random.default_rng(0)
    for density in (0.2, 0.4, 0.5, 0.6):
        mask = rng.random((23, 31)) < density
        assert largest_part(mask) in flooded(mask)
    assert largest_part(np.zeros((4, 5), bool)) is None
    assert largest_part(np.ones((4, 5), bool)) == (0, 0, 4, 3)


def flooded(mask: Any) -> list[tuple[float, ...]]:
    """The boxes of the largest parts; several may be as large."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    parts = []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        parts.append(part)
    most = max(map(len, parts))
    return [
        (
            min(x for _, x in part),
            min(y for y, _ in part),
            max(x for _, x in part),
            max(y for y, _ in part),
        )
        for part in parts
        if len(part) == most
    ]


def test_the_code_of_the_docs_runs(
    model: LongVideoPredictor,
    hard: SyntheticVideo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the policy in it does what it says."""
    blocks = code_of_the_docs()
    assert len(blocks) == 3
    hard.write(tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"predictor": model}
    for block in blocks:
        exec(compile(block, "policies.md", "exec"), names)
    state = names["state"]
    prompt(model, state, hard, 0)
    track(model, state, num=5)
    found = []
    for policy in (None, names["Sure"](least_iou=0.0), names["Sure"](least_iou=0.95)):
        state = model.init_state("video.mp4", memory_policy=policy)
        prompt(model, state, hard, 0)
        found.append(track(model, state, num=30))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_the_policy_of_the_docs_is_what_was_measured() -> None:
    (block,) = (one for one in code_of_the_docs() if "class Spaced(" in one)
    measured = Path(__file__).with_name("benchmarks") / "policies_methods.py"
    assert block[block.index("@dataclass") :].strip() in measured.read_text()


def test_full_masks_are_upstreams(model: LongVideoPredictor) -> None:
    masks = torch.randn(3, 48, 48)
    candidates = Candidates(masks, [0.1, 0.2, 0.3], 1.0, 192, 0, False)
    expected = functional.interpolate(masks[None], (192, 192), mode="bilinear", align_corners=False)
    assert torch.equal(candidates.full_masks, expected[0])
    assert candidates.best == 2
