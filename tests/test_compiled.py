"""Upstream's compiled components (`vos_optimized=True`)."""

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from longsam.predictor import LongVideoPredictorVOS
from longsam.testing import SyntheticVideo, iou, load_predictor


@pytest.mark.slow
@pytest.mark.filterwarnings(  # the compiler's own, which come only where it has no cache
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:TypedStorage is deprecated:UserWarning",
    "ignore:Torchinductor does not support code generation for complex:UserWarning",
)
def test_compiled_components_track_and_compile_once(tmp_path: Path) -> None:
    """Trimming what is remembered gives the compiled parts no new shapes."""
    video = SyntheticVideo(3, 80)
    video.write(tmp_path / "video.mp4")
    masks, scores = {}, {}
    for vos_optimized in (False, True):
        predictor = load_predictor(vos_optimized=vos_optimized)
        assert isinstance(predictor, LongVideoPredictorVOS) == vos_optimized
        state = predictor.init_state(tmp_path / "video.mp4")
        predictor.add_new_points_or_box(state, 0, 1, points=[video.click(0, 0)], labels=[1])
        found, sure = [], []
        for frame_idx, _, mask_logits in predictor.propagate_in_video(state):
            found.append(mask_logits[0, 0] > 0)
            sure.append(predictor.scores(state, frame_idx)[1])
            if frame_idx == 20:  # every memory and pointer slot has been taken
                compiled = counters["stats"]["unique_graphs"]
        assert counters["stats"]["unique_graphs"] == compiled
        masks[vos_optimized] = torch.stack(found)
        scores[vos_optimized] = torch.tensor(sure)
    assert compiled > 0
    assert float(iou(masks[True].flatten(1), masks[False].flatten(1))) > 0.99
    assert float((scores[True] - scores[False]).abs().median()) < 0.01
    assert len(scores[True].unique()) > 100
