"""How sure the model is of each object on a frame."""

from typing import Any, NamedTuple

from longsam import _upstream
from longsam._upstream import InferenceState


class Scores(NamedTuple):
    """How sure the model is of one object on one frame.

    Attributes:
        object_score: A logit: above 0 the model sees the object, else its mask is empty. A prompt
            that is a mask gives 10, or -10 if the mask is empty.
        predicted_iou: The model's estimate of the chosen mask's IoU with the truth, about 0 to 1. A
            prompt that is a mask gives 1. Where the object score is not above 0 it belongs to the
            mask that was suppressed.
    """

    object_score: float
    predicted_iou: float


def of_frame(state: InferenceState, frame_idx: int) -> dict[Any, Scores]:
    """See `LongVideoPredictor.scores`."""
    # Memories from a bank have negative indices and are not frames.
    found = _upstream.scores(state, frame_idx) if frame_idx >= 0 else {}
    if not found:
        raise ValueError(
            f"No object is remembered on frame {frame_idx}: it was not tracked, or has been "
            "forgotten. Ask for the scores of a frame as soon as the pass yields it, or give "
            "init_state a larger memory_window."
        )
    return {obj_id: Scores(*numbers) for obj_id, numbers in found.items()}
