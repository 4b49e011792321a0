"""Runs upstream's model on one batch of clips, and computes the loss."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from clips import Batch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

NUM_FRAMES = 20_000  # what the model is told: a long video


class TrainingHeads(nn.Module):
    """Linear heads for training only; they give each part its own task from the start.

    Without them the masks' gradient reaches encoder and memory only through a decoder that has
    learned nothing yet, and for a long time little happens.
    """

    def __init__(self, width: int):
        super().__init__()
        self.foreground = nn.Conv2d(width, 1, 1)  # image features: is a cell on any object
        self.identity = nn.Conv2d(width, 32, 1)  # image features: which
        self.target = nn.Conv2d(width, 1, 1)  # features with memory: is a cell on the object
        self.prompted = nn.Linear(width, 1)  # features after the decoder's transformer: the same


def start_well(model: SAM2Base) -> None:
    """Change the initial weights so that training starts at once."""
    with torch.no_grad():
        decoder = model.sam_mask_decoder
        decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
        for embedding in (decoder.mask_tokens, decoder.iou_token, decoder.obj_score_token):
            embedding.weight.mul_(0.3)
        for embedding in model.sam_prompt_encoder.point_embeddings:
            embedding.weight.mul_(0.3)
        # From the first step a token attends to its position: the product of equal projections is
        # largest there, and with a factor of four it outweighs the rest.
        attentions = [decoder.transformer.final_attn_token_to_image]
        for layer in decoder.transformer.layers:
            attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        for attention in attentions:
            attention.q_proj.weight.mul_(4.0)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.k_proj.bias.copy_(attention.q_proj.bias)


@dataclass
class Losses:
    """Sums of losses by name, each divided by how often it was counted."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        return {name: value / self.counts[name] for name, value in self.sums.items()}


WEIGHTS = {
    "focal": 20.0,
    "dice": 1.0,
    "iou": 1.0,
    "score": 1.0,
    "foreground": 0.5,
    "identity": 0.5,
    "target": 1.0,
    "prompted": 1.0,
}


class Objective(nn.Module):
    """Runs the model over a batch as upstream's predictor would and returns the losses."""

    def __init__(self, model: SAM2Base):
        super().__init__()
        self.model = model
        self.heads = TrainingHeads(model.hidden_dim)
        self._seen: dict[str, Any] = {}
        self._decoded: list[Tensor] = []
        self._watch()

    def _watch(self) -> None:
        """Keep the mask decoder's output before the predictor chooses from it."""
        decoder, predict = self.model.sam_mask_decoder, self.model.sam_mask_decoder.predict_masks

        def predict_masks(*args: Any, **kwargs: Any) -> Any:
            result = predict(*args, **kwargs)
            self._seen = {
                "features": kwargs["image_embeddings"],
                "decoded": self._decoded.pop(),
                "masks": result[0],
                "ious": result[1],
                "scores": result[3],
            }
            return result

        decoder.predict_masks = predict_masks
        decoder.transformer.register_forward_hook(
            lambda module, args, result: self._decoded.append(result[1])
        )

    def forward(
        self, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Returns the loss, its parts, and the IoU of each object on each frame (nan: hidden)."""
        losses = Losses()
        frames, clips = batch.images.shape[:2]
        encoded = self.model.forward_image(batch.images.flatten(0, 1))
        self._judge_features(losses, encoded["backbone_fpn"][-1], batch.labels)
        _, features, positions, sizes = self.model._prepare_backbone_features(encoded)

        outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        ious = []
        corrected = int(rng.integers(1, frames)) if frames > 1 and rng.random() < 0.15 else None
        for t, index in enumerate(batch.indices):
            here = t * clips + batch.clip_of_object
            step: dict[str, Any] = {
                "frame_idx": index,
                "is_init_cond_frame": t == 0,
                "current_vision_feats": [f[:, here] for f in features],
                "current_vision_pos_embeds": [p[:, here] for p in positions],
                "feat_sizes": sizes,
                "output_dict": outputs,
                "num_frames": NUM_FRAMES,
                "track_in_reverse": batch.reverse,
            }
            truth = batch.masks[t]
            prompt = _prompt(rng, truth) if t == 0 else {"point_inputs": None, "mask_inputs": None}
            clicked = t == 0 and prompt["point_inputs"] is not None and rng.random() < 0.3
            out = self.model.track_step(
                **step, **prompt, run_mem_encoder=not clicked and t != corrected
            )
            self._judge(losses, truth, tracked=t > 0)
            if clicked or t == corrected:
                points = _correction(rng, out["pred_masks_high_res"], truth, prompt["point_inputs"])
                out = self.model.track_step(
                    **step,
                    point_inputs=points,
                    mask_inputs=None,
                    prev_sam_mask_logits=out["pred_masks"].detach().clamp(-32.0, 32.0),
                )
                self._judge(losses, truth, tracked=False)
            kind = "cond" if t == 0 or t == corrected else "non_cond"
            outputs[f"{kind}_frame_outputs"][index] = out
            ious.append(_iou(out["pred_masks_high_res"][:, 0] > 0, truth))
        parts = losses.means()
        loss = sum(WEIGHTS[name] * value for name, value in parts.items())
        return loss, {name: value.detach() for name, value in parts.items()}, torch.stack(ious)

    def _judge(self, losses: Losses, truth: Tensor, *, tracked: bool) -> None:
        """Losses of all four candidate masks of the last step."""
        masks, ious, scores = (self._seen[name] for name in ("masks", "ious", "scores"))
        size = 2 * masks.shape[-1]
        logits = F.interpolate(masks, (size, size), mode="bilinear", align_corners=False)
        share = F.adaptive_avg_pool2d(truth[:, None].float(), size)
        shown = truth.flatten(1).any(1)
        losses.add("score", F.binary_cross_entropy_with_logits(scores[:, 0], shown.float()))
        if shown.any():
            logits, share, ious = logits[shown], share[shown].expand_as(logits[shown]), ious[shown]
            chance = logits.sigmoid()
            focal = (chance - share).square() * F.binary_cross_entropy_with_logits(
                logits, share, reduction="none"
            )
            losses.add("focal", focal.mean())
            overlap = (chance * share).sum((2, 3))
            dice = 1 - (2 * overlap + 1) / (chance.sum((2, 3)) + share.sum((2, 3)) + 1)
            losses.add("dice", dice.mean())
            with torch.no_grad():
                true_ious = _iou(logits > 0, share > 0.5)
            losses.add("iou", (ious - true_ious).abs().mean())
        features = self._seen["features"]
        cells = F.adaptive_avg_pool2d(truth[:, None].float(), features.shape[-1])
        logits = self.heads.prompted(self._seen["decoded"])[..., 0]
        losses.add("prompted", F.binary_cross_entropy_with_logits(logits, cells.flatten(1)))
        if tracked:
            logits = self.heads.target(features)
            losses.add("target", F.binary_cross_entropy_with_logits(logits, cells))

    def _judge_features(self, losses: Losses, features: Tensor, labels: Tensor) -> None:
        """Image features tell objects from the background and one object from another."""
        size = features.shape[-1]
        shown = F.adaptive_avg_pool2d((labels.flatten(0, 1)[:, None] >= 0).float(), size)
        logits = self.heads.foreground(features)
        losses.add("foreground", F.binary_cross_entropy_with_logits(logits, shown))
        codes = F.normalize(self.heads.identity(features), dim=1).permute(0, 2, 3, 1)
        codes = codes.unflatten(0, labels.shape[:2])
        step = labels.shape[-1] // size
        middle = labels[..., step // 2 :: step, step // 2 :: step]  # of each cell
        costs = []
        for clip in range(labels.shape[1]):
            code, label = codes[:, clip].flatten(0, 2), middle[:, clip].flatten()
            on_object = label >= 0
            similarity = code[on_object] @ code.T / 0.1
            same = label[on_object][:, None] == label
            all_cells = torch.logsumexp(similarity, 1)
            costs.append(all_cells - torch.logsumexp(similarity.masked_fill(~same, -1e4), 1))
        losses.add("identity", torch.cat(costs).mean())


def _prompt(rng: np.random.Generator, truth: Tensor) -> dict[str, Any]:
    """A click (42 %), a box (30 %) or a mask (28 %) for every object."""
    kind = rng.random()
    if kind >= 0.72:
        return {"point_inputs": None, "mask_inputs": truth[:, None].float()}
    if kind < 0.42:
        points = torch.stack([_pixel(rng, mask) for mask in truth])[:, None]
        labels = torch.ones(len(truth), 1, dtype=torch.int32)
    else:
        points = torch.stack([_box(rng, mask) for mask in truth])
        labels = torch.tensor([[2, 3]], dtype=torch.int32).repeat(len(truth), 1)
    points, labels = points.to(truth.device), labels.to(truth.device)
    return {
        "point_inputs": {"point_coords": points, "point_labels": labels},
        "mask_inputs": None,
    }


def _pixel(rng: np.random.Generator, mask: Tensor) -> Tensor:
    """A pixel (x, y) of a mask; half of the time one well inside."""
    inner = mask
    if rng.random() < 0.7:
        for width in (9, 5, 3):
            eroded = -F.max_pool2d(-mask[None].float(), width, 1, width // 2)[0] > 0.5
            if eroded.any():
                inner = eroded
                break
    pixels = inner.nonzero()
    row, column = pixels[int(rng.integers(len(pixels)))].tolist()
    return torch.tensor([column + 0.5, row + 0.5])


def _box(rng: np.random.Generator, mask: Tensor) -> Tensor:
    rows, columns = mask.nonzero().T
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    noise = np.clip(0.05 * rng.standard_normal(4), -0.1, 0.1)
    size = np.tile([box[2] - box[0], box[3] - box[1]], 2)
    return torch.from_numpy((box + noise * size).astype(np.float32)).reshape(2, 2)


def _correction(
    rng: np.random.Generator,
    logits: Tensor,
    truth: Tensor,
    points: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Add a click where the mask is wrong: on the object if missed, beside it if too much."""
    clicks, labels = [], []
    for mask, true_mask in zip(logits[:, 0] > 0, truth, strict=True):
        missed, excess = true_mask & ~mask, mask & ~true_mask
        positive = bool(missed.sum() >= excess.sum())
        wrong = missed if positive else excess
        if not wrong.any():
            wrong, positive = (true_mask, True) if true_mask.any() else (~true_mask, False)
        clicks.append(_pixel(rng, wrong))
        labels.append(int(positive))
    coords = torch.stack(clicks)[:, None].to(truth.device)
    new_labels = torch.tensor(labels, dtype=torch.int32, device=truth.device)[:, None]
    if points is not None:
        coords = torch.cat([points["point_coords"], coords], dim=1)
        new_labels = torch.cat([points["point_labels"], new_labels], dim=1)
    return {"point_coords": coords, "point_labels": new_labels}


def _iou(masks: Tensor, truth: Tensor) -> Tensor:
    """IoU over the last two dimensions; nan where the truth is empty."""
    truth = truth.expand_as(masks)
    both = (masks & truth).sum((-2, -1)).float()
    either = (masks | truth).sum((-2, -1)).float()
    iou = both / either.clamp(min=1)
    return torch.where(truth.flatten(-2).any(-1), iou, torch.nan)
