"""All that is taken for granted about upstream's SAM2VideoPredictor, in one place.

Line numbers refer to sam2/sam2_video_predictor.py and sam2/modeling/sam2_base.py at
https://github.com/facebookresearch/sam2/tree/2b90b9f5ceec907a1c18123530e92e794ad901a4
(sam2 1.1.0 on PyPI). `tests/test_upstream_contract.py` holds the installed upstream against it.
"""

from longsam._upstream.corrections import (
    OrForOneSession,
    corrections_condition,
    waiting_corrections,
)
from longsam._upstream.model import (
    erased_by_clearing,
    feature_reach,
    match_memory_dtype,
    reach,
)
from longsam._upstream.outputs import (
    detach,
    joined,
    moved,
    place_output,
    row,
    wait_for_copies,
    without_mask,
)
from longsam._upstream.progress import progress_bar
from longsam._upstream.prompts import (
    forget_prompt,
    has_prompt,
    has_waiting_prompts,
    prompt_frames,
    unchanged_if_refused,
    waiting_prompt_frames,
)
from longsam._upstream.scores import catch_predicted_iou, keeping_predicted_iou, scores
from longsam._upstream.state import (
    InferenceState,
    Output,
    all_outputs,
    batch_of_one_output_dict,
    conditioning_outputs,
    constants,
    default_start,
    encode,
    frame_unchanged,
    frames_tracked,
    has_features,
    images,
    index_of_outputs,
    new_state,
    object_ids_as_listed,
    object_idx,
    objects,
    only_object,
    storage_devices,
    tracked_outputs,
    was_tracked_in_reverse,
)
from longsam._upstream.transfer import (
    add_memories,
    copy_tracked,
    from_plain,
    learn_constants,
    memories_read_from,
    state_with_memories,
    to_plain,
)
from longsam._upstream.usage import bytes_by_kind

__all__ = [
    "InferenceState",
    "OrForOneSession",
    "Output",
    "add_memories",
    "all_outputs",
    "batch_of_one_output_dict",
    "bytes_by_kind",
    "catch_predicted_iou",
    "conditioning_outputs",
    "constants",
    "copy_tracked",
    "corrections_condition",
    "default_start",
    "detach",
    "encode",
    "erased_by_clearing",
    "feature_reach",
    "forget_prompt",
    "frame_unchanged",
    "frames_tracked",
    "from_plain",
    "has_features",
    "has_prompt",
    "has_waiting_prompts",
    "images",
    "index_of_outputs",
    "joined",
    "keeping_predicted_iou",
    "learn_constants",
    "match_memory_dtype",
    "memories_read_from",
    "moved",
    "new_state",
    "object_ids_as_listed",
    "object_idx",
    "objects",
    "only_object",
    "place_output",
    "progress_bar",
    "prompt_frames",
    "reach",
    "row",
    "scores",
    "state_with_memories",
    "storage_devices",
    "to_plain",
    "tracked_outputs",
    "unchanged_if_refused",
    "wait_for_copies",
    "waiting_corrections",
    "waiting_prompt_frames",
    "was_tracked_in_reverse",
    "without_mask",
]
