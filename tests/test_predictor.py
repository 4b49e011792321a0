"""What we add or mend: builders, warnings, the compiled sibling, upstream's broken options."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS

from longsam import LongVideoPredictor, LongVideoPredictorVOS, build_long_video_predictor

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"


def test_builder_loads_a_checkpoint_and_passes_options_on(checkpoint: Path) -> None:
    predictor = build_long_video_predictor(
        TINY,
        str(checkpoint),
        device="cpu",
        mode="train",
        hydra_overrides_extra=[*models.SMALL, "++model.num_maskmem=7"],
        apply_postprocessing=False,
    )
    assert type(predictor) is LongVideoPredictor
    assert isinstance(predictor, SAM2VideoPredictor)
    assert predictor.training
    assert predictor.fill_hole_area == 0
    saved = torch.load(checkpoint, weights_only=True)["model"]
    assert all(torch.equal(saved[name], value) for name, value in predictor.state_dict().items())


def test_builder_picks_a_device() -> None:
    predictor = build_long_video_predictor(TINY, hydra_overrides_extra=models.SMALL)
    assert predictor.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_vos_optimized_gives_the_compiled_sibling(
    checkpoint: Path, mp4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = models.build_ours(checkpoint, vos_optimized=True)
    assert type(predictor) is LongVideoPredictorVOS
    assert isinstance(predictor, SAM2VideoPredictorVOS)
    assert "Compiling all components" in capsys.readouterr().out
    for name in ("propagate_in_video", "init_state", "add_new_points_or_box", "remove_object"):
        assert getattr(LongVideoPredictorVOS, name) is getattr(LongVideoPredictor, name)
    assert LongVideoPredictorVOS._encode_new_memory is SAM2VideoPredictorVOS._encode_new_memory


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt.*download"):
        build_long_video_predictor(TINY, str(tmp_path / "none.pt"), device="cpu")


@pytest.mark.slow
def test_compiled_sibling_tracks(checkpoint: Path, mp4: Path) -> None:
    predictor = models.build_ours(checkpoint, vos_optimized=True)
    plain = models.build_ours(checkpoint)
    masks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile's own
        for p in (predictor, plain):
            state = p.init_state(mp4)
            p.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
            masks.append([m for _, _, m in p.propagate_in_video(state, max_frame_num_to_track=40)])
    assert max((a - b).abs().max() for a, b in zip(*masks, strict=True)) < 1e-4


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds one released model's file, with seeded weights."""
    from huggingface_hub import constants

    torch.manual_seed(0)
    model = build_long_video_predictor(TINY, device="cpu")
    repo = tmp_path / "models--facebook--sam2.1-hiera-tiny"
    commit = "0" * 40
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    checkpoint = repo / "snapshots" / commit / "sam2.1_hiera_tiny.pt"
    torch.save({"model": model.state_dict()}, checkpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return checkpoint


class Subclass(LongVideoPredictor):
    pass


def test_from_pretrained(hub: Path) -> None:
    predictor = LongVideoPredictor.from_pretrained(
        "facebook/sam2.1-hiera-tiny", device="cpu", hydra_overrides_extra=["++model.image_size=512"]
    )
    assert type(predictor) is LongVideoPredictor
    assert predictor.image_size == 512
    weight = torch.load(hub, weights_only=True)["model"]["no_obj_ptr"]
    assert torch.equal(predictor.no_obj_ptr, weight)
    mine = Subclass.from_pretrained("facebook/sam2.1-hiera-tiny", device="cpu")
    assert type(mine) is Subclass


def test_from_pretrained_with_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"'facebook/sam3' is not .*sam2\.1-hiera-large"):
        LongVideoPredictor.from_pretrained("facebook/sam3")


def test_a_prompt_on_a_forgotten_frame_starts_anew(ours: LongVideoPredictor, mp4: Path) -> None:
    def click(state: Any, frame_idx: int, obj_id: int = 1) -> torch.Tensor:
        return ours.add_new_points_or_box(state, frame_idx, obj_id, points=[[60, 50]], labels=[1])[
            2
        ]

    state = ours.init_state(mp4)
    click(state, 0)
    list(ours.propagate_in_video(state))
    with pytest.warns(UserWarning, match="Frame 20 was tracked and has been forgotten") as caught:
        anew = click(state, 20)
    (warning,) = (w for w in caught if "forgotten" in str(w.message))
    assert warning.filename == __file__
    with pytest.warns(UserWarning, match="Frame 30 was tracked and has been forgotten"):
        ours.add_new_mask(state, 30, 1, torch.ones(120, 160, dtype=torch.bool))
    click(state, 90)  # inside the window: no warning, a correction
    click(state, 20)  # prompted by now: no warning
    click(state, 25, obj_id=2)  # an object that was never tracked there: no warning

    fresh = ours.init_state(mp4)
    assert torch.equal(click(fresh, 20), anew[:1])
    ours.propagate_in_video_preflight(state)
    assert set(state["output_dict_per_obj"][0]["cond_frame_outputs"]) == {0, 20, 30}


def test_a_pass_that_starts_where_all_is_forgotten_warns(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    state = ours.init_state(mp4)
    for obj_id in (1, "b"):
        ours.add_new_points_or_box(state, 0, obj_id, points=[[60, 50]], labels=[1])
    list(ours.propagate_in_video(state))
    with pytest.warns(
        UserWarning, match=r"starts at frame 50, .* 35 to 49 .*object 1, 'b'"
    ) as caught:
        next(iter(ours.propagate_in_video(state, start_frame_idx=50)))
    assert any(warning.filename == __file__ for warning in caught)
    next(iter(ours.propagate_in_video(state)))


def test_a_window_below_reach_warns_once_and_works(ours: LongVideoPredictor, mp4: Path) -> None:
    with pytest.warns(UserWarning, match="memory_window is 3, but this model reads 15") as caught:
        state = ours.init_state(mp4, memory_window=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    assert len(list(ours.propagate_in_video(state))) == 100
    assert len(list(ours.propagate_in_video(state, start_frame_idx=90))) == 10


def test_removed_objects_and_resets_are_forgotten(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    for obj_id in (1, 2):
        ours.add_new_points_or_box(state, 0, obj_id, points=[[60, 50]], labels=[1])
    list(ours.propagate_in_video(state, max_frame_num_to_track=60))
    ours.remove_object(state, 1)
    ours.add_new_points_or_box(state, 5, 1, points=[[60, 50]], labels=[1])  # no warning
    ours.reset_state(state)
    ours.add_new_points_or_box(state, 5, 2, points=[[60, 50]], labels=[1])  # no warning
    list(ours.propagate_in_video(state, max_frame_num_to_track=3))
    assert list(state["longsam"].memory.recent) == [5, 6, 7, 8]


@pytest.mark.filterwarnings("ignore:.*the correction is replaced")
def test_remove_object_reports_only_frames_that_are_remembered(
    ours: LongVideoPredictor, mp4: Path
) -> None:
    """Upstream shows the other objects on the frames where the removed one had prompts."""
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.add_new_points_or_box(state, 0, 2, box=[30, 20, 110, 90])
    list(ours.propagate_in_video(state, max_frame_num_to_track=10))
    ours.add_new_points_or_box(state, 8, 2, box=[30, 20, 110, 90])
    list(ours.propagate_in_video(state, start_frame_idx=8))
    list(ours.propagate_in_video(state, start_frame_idx=99))
    _, updated = ours.remove_object(state, 2)
    assert [frame_idx for frame_idx, _ in updated] == [0]  # 8 is forgotten for object 1


def tracked_with_corrections(p: Any, path: Path) -> Iterator[torch.Tensor]:
    state = p.init_state(str(path))
    for obj_id in (1, 2):
        yield p.add_new_points_or_box(state, 0, obj_id, points=[[60, 50]], labels=[1])[2]
    for _, _, mask_logits in p.propagate_in_video(state, max_frame_num_to_track=40):
        yield mask_logits.clone()
    yield p.add_new_points_or_box(state, 38, 1, points=[[80, 50]], labels=[1])[2]
    for _, _, mask_logits in p.propagate_in_video(state, start_frame_idx=39):
        yield mask_logits.clone()


@pytest.mark.parametrize("stride", [1, 2])
def test_clear_non_cond_mem_around_input(stride: int, checkpoint: Path, mp4: Path) -> None:
    """Upstream calls a method that does not exist; here is what its comment says it does."""
    options = (
        "++model.clear_non_cond_mem_around_input=true",
        f"++model.memory_temporal_stride_for_eval={stride}",
    )

    class Mended(SAM2VideoPredictor):  # type: ignore[misc]
        def _clear_obj_non_cond_mem_around_input(self, state: Any, frame: int, obj: int) -> None:
            outputs = state["output_dict_per_obj"][obj]["non_cond_frame_outputs"]
            for t in list(outputs):
                if t != frame and abs(t - frame) <= 7 * stride:
                    del outputs[t]

    ours = models.build_ours(checkpoint, *options)
    upstream = models.build_upstream(checkpoint, *options)
    with pytest.raises(AttributeError, match="_clear_obj_non_cond_mem_around_input"):
        list(tracked_with_corrections(upstream, mp4))
    upstream.__class__ = Mended
    results = list(tracked_with_corrections(ours, mp4))
    expected = list(tracked_with_corrections(upstream, mp4))
    assert all(torch.equal(a, b) for a, b in zip(expected, results, strict=True))

    kept = models.build_ours(checkpoint, options[1])
    assert not all(
        torch.equal(a, b) for a, b in zip(results, tracked_with_corrections(kept, mp4), strict=True)
    )
