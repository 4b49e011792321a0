"""What a state holds besides upstream's keys: options, memory, passes, snapshots, extras."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, NoReturn

import torch

from longsam import _upstream
from longsam.batches import Batches
from longsam.frames import FrameSource
from longsam.memory import Memory
from longsam.options import Options
from longsam.policies import Follower
from longsam.snapshots import History

KEY = "longsam"
"""The one key that is added to upstream's inference state."""


class State(_upstream.InferenceState):
    """Upstream's inference state: a dict with its keys, and a few names of ours.

    `with predictor.init_state(video) as state:` closes the video at the end.
    """

    @property
    def source(self) -> FrameSource:
        """Where the frames come from: its name, number of frames, frame size and rate."""
        source: FrameSource = _upstream.images(self).source
        return source

    @property
    def obj_ids(self) -> list[Any]:
        """The ids of the objects, in the order of the masks."""
        return [obj_id for _, obj_id in _upstream.objects(self)]

    @property
    def last_frame_idx(self) -> int:
        """The most recently tracked frame; -1 before the first.

        A caller that counts frames without objects sets `extras["last_frame_idx"]`.
        """
        if "last_frame_idx" in self.extras:
            return int(self.extras["last_frame_idx"])
        last_pass = session_of(self).last_pass
        return -1 if last_pass is None else last_pass.next_frame_idx - last_pass.step

    @property
    def extras(self) -> dict[str, Any]:
        """What the caller wants saved with the state: plain values and tensors by name.

        Emptied whenever a frame is tracked or an object is removed, so it is never out of date.
        """
        return session_of(self).extras

    def put_image_features(self, frame_idx: int, features: dict[str, Any]) -> None:
        """Give the image features of the frame that is prompted or tracked next.

        That frame is then neither decoded nor encoded here. Where the features are bit for bit
        those of the encoder, so are the masks. They are kept until another frame is encoded or
        given.

        Args:
            frame_idx: The frame.
            features: What `predictor.forward_image` returns for it (a batch of one), on the model's
                device: "backbone_fpn" and "vision_pos_enc", for each level a tensor.
        """
        _upstream.put_features(self, frame_idx, features)

    def close(self) -> None:
        """Stop decoding and release the video; masks already yielded stay good."""
        session_of(self).close()
        _upstream.images(self).close()

    def __enter__(self) -> "State":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError(_NO_COPY)

    def __copy__(self) -> NoReturn:
        raise TypeError(_NO_COPY)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(_NO_COPY)


_NO_COPY = (
    "A state reads an open video, so it cannot be copied or pickled. Use predictor.save_state(state"
    ", path) and predictor.load_state(path), which also works in another process."
)


@dataclass
class Pass:
    """One pass over the video and its progress; saved with the state.

    Attributes:
        next_frame_idx: The frame that is tracked next.
        reverse: Whether it runs towards frame 0.
        num_left: How many frames are left to track; None is all.
        obj_ids: The objects it tracks: those that existed when it began.
        segment: The segment of the history that it adds to.
    """

    next_frame_idx: int
    reverse: bool
    num_left: int | None
    obj_ids: list[Any] = field(default_factory=list)
    segment: int = 0

    @property
    def step(self) -> int:
        """1 forward, -1 in reverse."""
        return -1 if self.reverse else 1

    def is_over(self, num_frames: int) -> bool:
        """Whether no frame is left."""
        return not 0 <= self.next_frame_idx < num_frames or (
            self.num_left is not None and self.num_left <= 0
        )

    def reads(self, reach: int) -> range:
        """The earlier frames that are read to track the next one, nearest first."""
        return range(
            self.next_frame_idx - self.step,
            self.next_frame_idx - self.step * (reach + 1),
            -self.step,
        )

    def comes_by(self, frame_idx: int) -> bool:
        """Whether a frame is still to be tracked, provided the video has it."""
        distance = (frame_idx - self.next_frame_idx) * self.step
        return distance >= 0 and (self.num_left is None or distance < self.num_left)

    def advance(self, frame_idx: int) -> None:
        """A frame was tracked."""
        self.next_frame_idx = frame_idx + self.step
        if self.num_left is not None:
            self.num_left -= 1


class Session:
    """Everything of ours that belongs to one state, under `state["longsam"]`.

    Attributes:
        options: The options of `init_state`.
        memory: What is kept and what is forgotten.
        batches: Where objects are tracked together; None where each is tracked alone.
        follower: The memory policy in use; None is upstream's rule.
        attention: What the objects of the frame that is tracked have in common.
        history: What can be gone back to; None without snapshots.
        open_passes: The passes that have begun and not ended.
        last_pass: The most recent pass, as of the last frame it tracked; `resume_propagation`
            starts from it.
        last_segment: The segment of the pass that changed what is remembered last; None if
            something other than a pass did. That pass can continue in the same segment.
        extras: See `State.extras`.
        video: What tells this video from others, once computed.
    """

    def __init__(
        self,
        options: Options,
        memory: Memory,
        batches: Batches | None,
        follower: Follower | None = None,
    ):
        self.options = options
        self.memory = memory
        self.batches = batches
        self.follower = follower
        self.attention = _upstream.FrameAttention()
        self.history = None if options.snapshots is None else History(options.snapshots)
        self.open_passes: list[Pass] = []
        self.last_pass: Pass | None = None
        self.last_segment: int | None = None
        self.extras: dict[str, Any] = {}
        self.video: str | None = None
        self.is_closed = False

    def begin(self, state: _upstream.InferenceState, current: Pass, *, resumed: bool) -> None:
        """A pass begins, or is resumed."""
        current.obj_ids = [obj_id for _, obj_id in _upstream.objects(state)]
        if not resumed:
            self.memory.begin_pass(current.next_frame_idx, _upstream.default_start(state))
        if self.batches is not None:
            self.batches.clear()  # an earlier pass may have failed halfway through a frame
        self.open_passes.append(current)

    def for_replay(self) -> "Session":
        """The session of a state in which part of this one's history is tracked again."""
        options = replace(self.options, snapshots=None)
        batches = None if self.batches is None else Batches(self.batches.max_batch_size)
        memory = Memory(self.memory.window, self.memory.reach, self.memory.max_prompt_frames)
        return Session(options, memory, batches, self.follower)

    def infer(
        self,
        frame: _upstream.Inference,
        memories: dict[str, dict[int, _upstream.Output]],
        batch_size: int,
    ) -> tuple[_upstream.Output, torch.Tensor]:
        """One frame of one object: the memory to keep of it, and mask logits.

        Args:
            frame: Upstream's computation of the frame.
            memories: What the object remembers.
            batch_size: How many objects that is.
        """
        with nullcontext() if frame.is_prompt else self.attention.of(frame.frame_idx):
            if self.follower is not None:
                return self.follower.track(frame.state, memories, frame)
            if self.batches is None or frame.is_prompt:
                return frame.plain(memories, batch_size)
            return self.batches.track(
                frame.state,
                _upstream.index_of_outputs(frame.state, memories),
                frame.frame_idx,
                self.memory.reach,
                frame.plain,
                reverse=frame.reverse,
            )

    def before_frame(self, current: Pass) -> None:
        """A pass asks for its next frame: refuse if one of its objects is gone.

        Raises:
            RuntimeError: An object was removed, or the state reset or closed, after the pass began.
        """
        if self.is_closed:
            raise RuntimeError("The state is closed. Open the video again with init_state.")
        if not any(one is current for one in self.open_passes):
            raise RuntimeError(
                "Since this pass began an object was removed or the state was reset, so it cannot "
                "be continued. Start another with propagate_in_video."
            )
        self.attention.clear()
        if self.batches is not None:
            self.batches.begin_step()

    def frame_tracked(self, state: _upstream.InferenceState, current: Pass, frame_idx: int) -> None:
        """A pass has tracked a frame: note it, and forget what will not be read again."""
        if self.follower is not None:
            self.follower.come_by(state, current.obj_ids, frame_idx, reverse=current.reverse)
        self.attention.clear()
        current.advance(frame_idx)
        self.last_pass = replace(current)
        self.last_segment = current.segment
        self.extras.clear()
        self.memory.forget_prompts(state, frame_idx, reverse=current.reverse)
        self.memory.note_tracked(current.obj_ids, frame_idx, current.segment)
        # A window below `reach` is respected, though masks then differ.
        num_read = min(self.memory.reach, self.memory.window)
        self.memory.forget(state, [one.reads(num_read) for one in self.open_passes])

    def end(self, current: Pass) -> None:
        """A pass has ended, or was closed."""
        self.open_passes = [one for one in self.open_passes if one is not current]
        self.drop_replaced_snapshots()

    def drop_replaced_snapshots(self) -> None:
        """Remove snapshots that no frame depends on any more."""
        if self.history is not None and not self.is_closed:
            running = {one.segment for one in self.open_passes}
            if self.last_pass is not None:
                running.add(self.last_pass.segment)
            self.history.drop_replaced(self.memory.segment_of.values(), running)

    def changed(self) -> None:
        """Something other than a pass has changed what is remembered."""
        self.last_segment = None

    def objects_removed(self, state: _upstream.InferenceState) -> None:
        """Objects were removed, or the state was reset."""
        self.open_passes = []  # none of them can continue
        self.changed()
        self.extras.clear()
        self.memory.forget_objects(obj_id for _, obj_id in _upstream.objects(state))
        if not self.memory.segment_of:
            self.last_pass = None
        if self.batches is not None:
            self.batches.clear()
            for obj_idx, _ in _upstream.objects(state):
                for output in _upstream.all_outputs(state, obj_idx):
                    _upstream.detach(output)

    def close(self) -> None:
        """Refuse further frames, and remove snapshots in a temporary folder."""
        self.is_closed = True
        if self.history is not None:
            self.history.close()

    def to_plain(self) -> dict[str, Any]:
        """What is saved, besides the options."""
        return {
            "memory": self.memory.to_plain(),
            "last_pass": None if self.last_pass is None else asdict(self.last_pass),
            "last_segment": self.last_segment,
            "history": None if self.history is None else self.history.to_plain(),
            "extras": self.extras,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Put what was saved into the session of a fresh state."""
        self.memory.restore(saved["memory"])
        last_pass = saved["last_pass"]
        self.last_pass = None if last_pass is None else Pass(**last_pass)
        self.last_segment = saved["last_segment"]
        self.extras = dict(saved["extras"])
        if self.history is not None:
            self.history.restore(saved["history"])


def session_of(state: _upstream.InferenceState) -> Session:
    """The session of a state that `init_state` has made."""
    session: Session = state[KEY]
    return session
