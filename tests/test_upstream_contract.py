"""What we take for granted about upstream. A failure here says what upstream has changed."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from sam2 import build_sam
from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS
from sam2.utils import misc

from longsam import LongVideoPredictor, LongVideoPredictorVOS, build_long_video_predictor
from longsam._upstream import new_state
from longsam.frames import buffer

SIGNATURES: dict[str, list[str]] = {
    "init_state": [
        "video_path",
        "offload_video_to_cpu",
        "offload_state_to_cpu",
        "async_loading_frames",
    ],
    "propagate_in_video": [
        "inference_state",
        "start_frame_idx",
        "max_frame_num_to_track",
        "reverse",
    ],
    "propagate_in_video_preflight": ["inference_state"],
    "add_new_points_or_box": [
        "inference_state",
        "frame_idx",
        "obj_id",
        "points",
        "labels",
        "clear_old_points",
        "normalize_coords",
        "box",
    ],
    "add_new_mask": ["inference_state", "frame_idx", "obj_id", "mask"],
    "clear_all_prompts_in_frame": ["inference_state", "frame_idx", "obj_id", "need_output"],
    "remove_object": ["inference_state", "obj_id", "strict", "need_output"],
    "reset_state": ["inference_state"],
    "_get_image_feature": ["inference_state", "frame_idx", "batch_size"],
    "_clear_non_cond_mem_around_input": ["inference_state", "frame_idx"],
    "_prepare_memory_conditioned_features": [
        "frame_idx",
        "is_init_cond_frame",
        "current_vision_feats",
        "current_vision_pos_embeds",
        "feat_sizes",
        "output_dict",
        "num_frames",
        "track_in_reverse",
    ],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    theirs = list(inspect.signature(getattr(SAM2VideoPredictor, name)).parameters)[1:]
    assert theirs == SIGNATURES[name], f"upstream has changed the parameters of {name}"
    ours = inspect.signature(getattr(LongVideoPredictor, name)).parameters
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[1:] == theirs, f"our {name} takes other parameters than upstream's"


@pytest.mark.parametrize("name", SIGNATURES)
def test_defaults(name: str) -> None:
    theirs = inspect.signature(getattr(SAM2VideoPredictor, name)).parameters
    ours = inspect.signature(getattr(LongVideoPredictor, name)).parameters
    for parameter in theirs.values():
        assert ours[parameter.name].default == parameter.default, f"{name}({parameter.name})"


def test_builders_signature() -> None:
    theirs = inspect.signature(build_sam.build_sam2_video_predictor).parameters
    ours = inspect.signature(build_long_video_predictor).parameters
    assert list(ours) == list(theirs)
    others = [n for n in theirs if ours[n].default != theirs[n].default]
    assert others == ["device", "hydra_overrides_extra"]  # None for the best there is; no list


def shape(value: Any) -> Any:
    """The keys and types of a state, without its tensors, and what ours keeps with each output."""
    if isinstance(value, dict):
        return type(value), {key: shape(value[key]) for key in value if key != "predicted_iou"}
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    return type(value)


def test_states_have_the_same_keys(
    upstream: SAM2VideoPredictor, ours: LongVideoPredictor, mp4: Path
) -> None:
    fresh = upstream.init_state(str(mp4)), ours.init_state(str(mp4))
    used = upstream.init_state(str(mp4)), ours.init_state(str(mp4))
    for predictor, state in zip((upstream, ours), used, strict=True):
        predictor.add_new_points_or_box(state, 0, "a", points=[[60, 50]], labels=[1])
        list(predictor.propagate_in_video(state, max_frame_num_to_track=5))
    for theirs, mine in (fresh, used):
        assert set(mine) - set(theirs) == {"longsam"}
        for key in theirs:
            if key != "images":
                assert shape(mine[key]) == shape(theirs[key]), f"inference_state[{key!r}] differs"
        for key in ("num_frames", "video_height", "video_width", "device", "storage_device"):
            assert mine[key] == theirs[key]
    upstreams_own = set(fresh[0])
    assert set(
        new_state(
            fresh[1]["images"], (1, 1), ours.device,
            offload_video_to_cpu=False, offload_state_to_cpu=False,
        )
    ) == upstreams_own  # fmt: skip


def test_what_is_mended_is_still_missing() -> None:
    """When upstream mends these, our own can go."""
    assert not hasattr(SAM2VideoPredictor, "_clear_obj_non_cond_mem_around_input")
    assert "_clear_obj_non_cond_mem_around_input" in inspect.getsource(SAM2VideoPredictor)


def test_memory_attention_is_called_with_keywords() -> None:
    """Our hook looks for these names."""
    source = inspect.getsource(SAM2VideoPredictor._prepare_memory_conditioned_features)
    assert "memory=memory," in source
    assert "curr=current_vision_feats," in source


@torch.inference_mode()
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
def test_order_in_which_memories_are_read(
    upstream: SAM2VideoPredictor, mp4: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool,
    stride: int,
) -> None:  # fmt: skip
    """Conditioning frames by the order of their dict; memories, oldest first; then pointers."""
    monkeypatch.setattr(upstream, "memory_temporal_stride_for_eval", stride)
    state = upstream.init_state(str(mp4))
    upstream.add_new_points_or_box(state, 50, 1, points=[[60, 50]], labels=[1])
    list(upstream.propagate_in_video(state, 50, 1, reverse))
    at = 48 if reverse else 52
    asked: list[int] = []

    class Asked(dict[int, Any]):
        def get(self, key: int, default: Any = None) -> Any:
            asked.append(key)
            return default

    outputs = state["output_dict_per_obj"][0]
    conditioning, tracked = outputs["cond_frame_outputs"], outputs["non_cond_frame_outputs"]
    upstream._run_single_frame_inference(
        state,
        {"cond_frame_outputs": conditioning, "non_cond_frame_outputs": Asked(tracked)},
        frame_idx=at,
        batch_size=1,
        is_init_cond_frame=False,
        point_inputs=None,
        mask_inputs=None,
        reverse=reverse,
        run_mem_encoder=False,
    )
    sign = 1 if reverse else -1
    last, *others = asked[5::-1]
    assert last == at + sign
    nearest = {(1, False): 50, (3, False): 48, (1, True): 50, (3, True): 51}[stride, reverse]
    assert others == [nearest + sign * stride * i for i in range(5)]
    assert asked[6:] == [at + sign * distance for distance in range(1, 16)]


def test_seams_of_memory_policies(upstream: SAM2VideoPredictor) -> None:
    """What the hooks of `_upstream.decoding` and `_upstream.recalling` look for."""
    names = list(inspect.signature(upstream._forward_sam_heads).parameters)
    assert names[-1] == "multimask_output"
    source = inspect.getsource(SAM2VideoPredictor._forward_sam_heads)
    for line in (
        "is_obj_appearing = object_score_logits > 0",
        "best_iou_inds = torch.argmax(ious, dim=-1)",
        "low_res_multimasks[batch_inds, best_iou_inds].unsqueeze(1)",
        "sam_output_token = sam_output_tokens[batch_inds, best_iou_inds]",
    ):
        assert line in source, f"upstream has changed: {line}"
    for layer in upstream.memory_attention.layers:
        keywords = inspect.getsource(type(layer)._forward_ca)
        assert "k=memory + pos" in keywords
        assert "num_k_exclude_rope" in keywords


def test_attributes_that_reach_is_derived_from(upstream: SAM2VideoPredictor) -> None:
    assert upstream.num_maskmem == 7
    assert upstream.memory_temporal_stride_for_eval == 1
    assert upstream.max_obj_ptrs_in_encoder == 16
    assert upstream.use_obj_ptrs_in_encoder is True


def test_normalization() -> None:
    defaults = inspect.signature(misc.load_video_frames).parameters
    assert defaults["img_mean"].default == buffer.IMAGE_MEAN
    assert defaults["img_std"].default == buffer.IMAGE_STD


def test_order_of_resolution() -> None:
    """Our overrides come before the compiled class's, and its before the plain one's."""
    assert LongVideoPredictorVOS.__mro__[1:4] == (
        LongVideoPredictor,
        SAM2VideoPredictorVOS,
        SAM2VideoPredictor,
    )
