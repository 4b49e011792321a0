"""Applying a policy: upstream computes one object on one frame as the policy decides."""

from collections.abc import Iterable, Mapping

import torch

from longsam import _upstream
from longsam._upstream import Inference, InferenceState, Output
from longsam.policies.protocol import (
    Candidates,
    History,
    Memo,
    MemoryPolicy,
    Recall,
    TrackedFrame,
)


class Follower:
    """Applies a policy to the objects of a session. What it knows is kept in their outputs.

    Args:
        policy: The policy.
        reach: How much of the past is read; see `_upstream.Reach`.
    """

    def __init__(self, policy: MemoryPolicy, reach: _upstream.Reach):
        self.policy = policy
        self._reach = reach

    def track(
        self,
        state: InferenceState,
        memories: dict[str, dict[int, Output]],
        inference: Inference,
    ) -> tuple[Output, torch.Tensor]:
        """What upstream's `_run_single_frame_inference` returns for one object.

        Args:
            state: The session.
            memories: The object's outputs: the state's own dict.
            inference: Upstream's computation of the frame.
        """
        obj_idx = _upstream.index_of_outputs(state, memories)
        found = None
        if inference.reads_memories:
            found = _upstream.nearest_records(
                state, obj_idx, inference.frame_idx, reverse=inference.reverse
            )
        known, records = found or (None, [_upstream.new_record(self.policy.start(), {})])
        if self.policy.num_paths > 1 and not inference.is_prompt:
            return self._branch(state, obj_idx, inference, known, records)
        record = records[0]
        history = self._history(state, obj_idx, inference, known, record)
        memo: Memo = record["memo"]
        offers: list[Candidates] = []

        def choose(masks: torch.Tensor, predicted_ious: list[float], score: float) -> int:
            offers.append(_candidates(inference, masks, predicted_ious, score))
            return self.policy.choose(memo, offers[0])

        recall = None
        if inference.reads_memories:
            recall = self._recall(memo, history)
            memories = self._chosen(history, recall)
        output, mask_logits, how = inference.decode(
            memories,
            choose,
            self.policy.presence,
            num_frames=None if recall is None else recall.num_frames,
            weights=None if recall is None else self._weights(recall, history),
        )
        if not offers:
            assert how.masks is not None
            offers.append(
                _candidates(inference, how.masks, list(how.predicted_ious), how.object_score)
            )
        frame = self._frame(state, obj_idx, inference, offers[0], how.chosen, output)
        _upstream.put_records(output, [self._record(memo, frame, history)])
        return output, mask_logits

    def come_by(
        self, state: InferenceState, obj_ids: list[object], frame_idx: int, *, reverse: bool
    ) -> None:
        """A pass reached a frame: if it is a prompt, carry what was known past it."""
        before = frame_idx + (1 if reverse else -1)
        for obj_idx, obj_id in _upstream.objects(state):
            conditioning = _upstream.conditioning_outputs(state, obj_idx)
            output = conditioning.get(frame_idx)
            if output is None or obj_id not in obj_ids:
                continue
            records = _upstream.records_of(
                conditioning.get(before) or _upstream.tracked_outputs(state, obj_idx).get(before)
            )
            masks = _upstream.mask_of(output)
            if records is None or masks is None:
                continue
            history = self._new_history(state, obj_idx, frame_idx, reverse, before, records[0])
            candidates = Candidates(
                masks,
                [_upstream.predicted_iou(output)],
                _upstream.object_score(output),
                self._reach.image_size,
                frame_idx,
                reverse,
            )
            first = next(iter(conditioning))
            frame = TrackedFrame(frame_idx, reverse, True, first, candidates, 0, output)
            _upstream.put_records(output, [self._record(records[0]["memo"], frame, history)])

    def anchors(self, state: InferenceState, obj_idx: int, frame_idx: int) -> list[Output]:
        """What the policy had encoded as prompts by a frame, oldest first."""
        found = _upstream.nearest_records(state, obj_idx, frame_idx + 1, reverse=False)
        anchors = {} if found is None else self.policy.anchors(found[1][0]["memo"])
        return [_upstream.without_mask(output) for output in anchors.values()]

    def check(self, outputs: Iterable[Output]) -> None:
        """Refuse saved outputs with records that this policy would not make.

        Raises:
            TypeError: Something is of another type.
            LookupError: Something is missing.
        """
        kinds = {key: type(value) for key, value in self.policy.start().items()}
        for output in outputs:
            for record in _upstream.checked_records(output):
                memo = record["memo"]
                wrong = memo.keys() != kinds.keys() or any(
                    not isinstance(memo[key], kind)
                    for key, kind in kinds.items()
                    if kind in (dict, list, int)
                )
                if wrong:
                    raise TypeError(f"a memo of the policy {self.policy.name} with other content")

    def _branch(
        self,
        state: InferenceState,
        obj_idx: int,
        inference: Inference,
        known: int | None,
        records: list[_upstream.Record],
    ) -> tuple[Output, torch.Tensor]:
        """Several hypotheses: each offers its candidates, and the policy follows some of them."""
        histories, offers, candidates = [], [], []
        for record in records:
            history = self._history(state, obj_idx, inference, known, record)
            recall = self._recall(record["memo"], history)
            offer = inference.decode_all(
                self._chosen(history, recall),
                self.policy.presence,
                num_frames=recall.num_frames,
                weights=self._weights(recall, history),
            )
            how = offer.how
            assert how.masks is not None
            histories.append(history)
            offers.append(offer)
            candidates.append(
                _candidates(inference, how.masks, list(how.predicted_ious), how.object_score)
            )
        pairs = self.policy.branch([record["memo"] for record in records], candidates)
        taken = []
        kept = []
        for path, candidate in pairs:
            output, mask_logits = offers[path].take(candidate)
            frame = self._frame(state, obj_idx, inference, candidates[path], candidate, output)
            kept.append(self._record(records[path]["memo"], frame, histories[path]))
            taken.append((output, mask_logits))
        for record, (output, _) in list(zip(kept, taken, strict=True))[1:]:
            record["output"] = _upstream.without_mask(output)
        _upstream.put_records(taken[0][0], kept)
        return taken[0]

    def _recall(self, memo: Memo, history: History) -> Recall:
        recall = self.policy.recall(memo, history)
        if (
            not recall.conditioning
            or len(recall.memories) > history.num_memories
            or len(recall.pointers) > history.num_pointers
        ):
            raise ValueError(
                f"The policy {self.policy.name} recalls {len(recall.conditioning)} conditioning "
                f"frames, {len(recall.memories)} memories and {len(recall.pointers)} pointers; at "
                f"least 1, at most {history.num_memories} and at most {history.num_pointers} can "
                "be read."
            )
        return recall

    def _chosen(self, history: History, recall: Recall) -> dict[str, dict[int, Output]]:
        return _upstream.chosen_memories(
            history.frame_idx,
            recall.conditioning,
            recall.memories,
            recall.pointers,
            self._reach.num_memories,
        )

    def _weights(self, recall: Recall, history: History) -> _upstream.Weights | None:
        """What upstream reads of these: in some models no pointers of later conditioning frames."""
        of_memories, of_pointers = recall.memory_weights, recall.pointer_weights
        if of_memories is None or of_pointers is None:
            return None
        step = -1 if history.reverse else 1
        read = [
            weight
            for frame_idx, weight in zip(recall.conditioning, of_pointers, strict=False)
            if not (self._reach.only_past and (frame_idx - history.frame_idx) * step > 0)
        ]
        return of_memories, [*read, *of_pointers[len(recall.conditioning) :]]

    def _history(
        self,
        state: InferenceState,
        obj_idx: int,
        inference: Inference,
        known: int | None,
        record: _upstream.Record,
    ) -> History:
        return self._new_history(
            state, obj_idx, inference.frame_idx, inference.reverse, known, record
        )

    def _new_history(
        self,
        state: InferenceState,
        obj_idx: int,
        frame_idx: int,
        reverse: bool,
        known: int | None,
        record: _upstream.Record,
    ) -> History:
        """What is remembered of an object before a frame.

        Frames within reach are read from the state, where a correction may have replaced them;
        further back only what the policy holds. Each of several hypotheses has its own past.
        """
        step = 1 if reverse else -1
        past: Mapping[int, Output] = record["held"]
        tracked = _upstream.tracked_outputs(state, obj_idx)
        if self.policy.num_paths > 1:
            known_now = {f: output for f, output in past.items() if (f - frame_idx) * step > 0}
            own = record["output"]
            if own is None and known is not None:
                own = tracked.get(known)
            if own is not None and known is not None:
                known_now[known] = own
        else:
            num = self._reach.num_frames
            near = range(frame_idx + step, frame_idx + step * (num + 1), step)
            known_now = {
                f: output for f, output in past.items() if (f - frame_idx) * step > num
            } | {f: tracked[f] for f in near if f in tracked}
        return History(
            frame_idx,
            reverse=reverse,
            conditioning=_upstream.conditioning_outputs(state, obj_idx),
            tracked=known_now,
            num_memories=self._reach.num_memories,
            num_pointers=self._reach.num_pointers,
            stride=self._reach.stride,
        )

    def _frame(
        self,
        state: InferenceState,
        obj_idx: int,
        inference: Inference,
        candidates: Candidates,
        chosen: int,
        output: Output,
    ) -> TrackedFrame:
        first = next(iter(_upstream.conditioning_outputs(state, obj_idx)), inference.frame_idx)

        def encode(output: Output, candidates: Candidates, chosen: int) -> Output:
            masks = candidates.full_masks[chosen : chosen + 1][None]
            return inference.encode_as_prompt(output, masks)

        return TrackedFrame(
            inference.frame_idx,
            inference.reverse,
            inference.is_prompt,
            first,
            candidates,
            chosen,
            output,
            encode,
        )

    def _record(self, memo: Memo, frame: TrackedFrame, history: History) -> _upstream.Record:
        """What is known after a frame, with the outputs that may be read of frames before it."""
        after = self.policy.keep(memo, frame)
        held = {
            f: _upstream.without_mask(output)
            for f in self.policy.holds(after)
            if f != frame.frame_idx and (output := history.get(f)) is not None
        }
        return _upstream.new_record(after, held)


def _candidates(
    inference: Inference, masks: torch.Tensor, predicted_ious: list[float], score: float
) -> Candidates:
    return Candidates(
        masks,
        predicted_ious,
        score,
        inference.image_size,
        inference.frame_idx,
        inference.reverse,
    )
