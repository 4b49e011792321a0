"""One frame of one object, computed by upstream as a policy asks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from longsam._upstream.decoding import Choose, Decoding, decoding
from longsam._upstream.outputs import without_mask
from longsam._upstream.recalling import Weights, counting_frames, weighing
from longsam._upstream.scores import PREDICTED_IOU, keeping_predicted_iou
from longsam._upstream.state import InferenceState, Output


@dataclass
class Inference:
    """Upstream's `_run_single_frame_inference` (line 737) for one frame of one object.

    Args:
        model: The predictor; its `_run_memory_encoder` is called.
        run: Upstream's method, without its memories.
        state: The session.
        frame_idx: The frame.
        inputs: The other arguments.
    """

    model: Any
    run: Callable[..., tuple[Output, torch.Tensor]]
    state: InferenceState
    frame_idx: int
    inputs: dict[str, Any]

    @property
    def reverse(self) -> bool:
        """Whether the frame is tracked towards frame 0."""
        return bool(self.inputs["reverse"])

    @property
    def is_prompt(self) -> bool:
        """Whether the user has prompted the object on it."""
        return self.inputs["point_inputs"] is not None or self.inputs["mask_inputs"] is not None

    @property
    def reads_memories(self) -> bool:
        """Whether it is made from memories; an object's first frame is not."""
        return not self.inputs["is_init_cond_frame"]

    @property
    def image_size(self) -> int:
        """Height and width of the model's input."""
        return int(self.model.image_size)

    def plain(
        self, memories: dict[str, dict[int, Output]], batch_size: int
    ) -> tuple[Output, torch.Tensor]:
        """As upstream does it, for this many objects at once."""
        return keeping_predicted_iou(partial(self.run, **self.inputs), memories, batch_size)

    def decode(
        self,
        memories: dict[str, dict[int, Output]],
        choose: Choose,
        presence: float,
        *,
        num_frames: int | None = None,
        weights: Weights | None = None,
    ) -> tuple[Output, torch.Tensor, Decoding]:
        """Upstream's output, its mask logits, and how it was decoded."""
        return self._decode(memories, choose, presence, num_frames, weights, self.inputs)

    def decode_all(
        self,
        memories: dict[str, dict[int, Output]],
        presence: float,
        *,
        num_frames: int | None = None,
        weights: Weights | None = None,
    ) -> "Offer":
        """All candidates, none of them encoded to memory yet."""
        inputs = {**self.inputs, "run_mem_encoder": False}
        return Offer(self, *self._decode(memories, None, presence, num_frames, weights, inputs))

    def _decode(
        self,
        memories: dict[str, dict[int, Output]],
        choose: Choose | None,
        presence: float,
        num_frames: int | None,
        weights: Weights | None,
        inputs: dict[str, Any],
    ) -> tuple[Output, torch.Tensor, Decoding]:
        from_mask = (
            self.inputs["mask_inputs"] is not None
            and self.model.use_mask_input_as_output_without_sam
        )
        how = Decoding(choose, presence, bool(from_mask))
        with decoding(how), weighing(weights), counting_frames(self.state, num_frames):
            output, mask_logits = keeping_predicted_iou(
                partial(self.run, **inputs), memories, 1, how
            )
        if how.from_mask:  # the user's mask is a candidate too
            how.masks = output["pred_masks"][0].float()
            how.predicted_ious = (predicted_iou(output),)
            how.object_score = object_score(output)
        return output, mask_logits, how

    def encode(self, masks: torch.Tensor, score: torch.Tensor, *, as_prompt: bool) -> Output:
        """The memory features of a frame with a mask (1 x 1 x image_size x image_size logits)."""
        features, encodings = self.model._run_memory_encoder(
            self.state, self.frame_idx, 1, masks, score, as_prompt
        )
        return {"maskmem_features": features, "maskmem_pos_enc": encodings}

    def encode_as_prompt(self, output: Output, masks: torch.Tensor) -> Output:
        """An output with a prompt's memory, which upstream makes from a mask of 0 and 1."""
        encoded = self.encode(masks, output["object_score_logits"], as_prompt=True)
        return {**without_mask(output), **encoded}


@dataclass
class Offer:
    """All candidates of one decoding; outputs are made from them."""

    inference: Inference
    output: Output
    mask_logits: torch.Tensor
    how: Decoding

    def take(self, candidate: int) -> tuple[Output, torch.Tensor]:
        """The output of one candidate, with its memory, and its mask logits."""
        score = self.output["object_score_logits"]
        output = dict(self.output)
        for name in ("pred_masks", "obj_ptr"):
            rows = self.output[name]
            row = min(candidate, rows.shape[0] - 1)  # some models have one pointer for all
            output[name] = rows[row : row + 1].clone()
        iou = self.how.predicted_ious[candidate]
        output[PREDICTED_IOU] = torch.full_like(self.output[PREDICTED_IOU], iou)
        assert self.how.full_masks is not None
        masks = self.how.full_masks[candidate : candidate + 1]
        output.update(self.inference.encode(masks, score, as_prompt=False))
        return output, self.mask_logits[candidate : candidate + 1]


def predicted_iou(output: Output) -> float:
    """An output's predicted IoU; waits for the GPU. None, as in older banks, counts as 1."""
    value = output.get(PREDICTED_IOU)
    return 1.0 if value is None else float(value)


def object_score(output: Output) -> float:
    """An output's object score; waits for the GPU."""
    return float(output["object_score_logits"])
