"""LongVideoPredictor: what differs from upstream's SAM2VideoPredictor, and nothing else."""

import os
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from longsam import (
    _upstream,
    checks,
    opening,
    policies,
    prompting,
    propagation,
    saving,
    scores,
)
from longsam._installed_sam2 import (
    SAM2VideoPredictor,
    SAM2VideoPredictorVOS,
    build_sam,
    check_once,
)
from longsam.frames import LiveBuffer, Reader
from longsam.options import (
    FRAMES_PER_CHUNK,
    Autosave,
    AutosaveRun,
    Corrections,
    Options,
    Snapshots,
)
from longsam.policies import MemoryPolicy
from longsam.propagation import Step
from longsam.session import Pass, State, session_of

MemoryBanks = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


class LongVideoPredictor(SAM2VideoPredictor):
    """SAM 2's video predictor for video of any length, at constant memory.

    It is upstream's `SAM2VideoPredictor` with the same calls and the same masks. Frames are decoded
    as they are needed, and after each frame everything outside the memory window is forgotten.
    Build it with `build_long_video_predictor` or `from_pretrained`.
    """

    name: str = ""
    """The model's name in messages; the builders set it to config and checkpoint."""

    # Upstream's option, on for prompts of sessions with corrections="condition".
    add_all_frames_to_correct_as_cond = _upstream.OrForOneSession()

    def __init__(self, *args: Any, **kwargs: Any):
        check_once()
        super().__init__(*args, **kwargs)
        self.memory_attention.register_forward_pre_hook(
            _upstream.match_memory_dtype, with_kwargs=True
        )
        self.sam_mask_decoder.register_forward_hook(_upstream.decide)
        _upstream.share_first_attention(self)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        *,
        device: str | torch.device | None = None,
        hydra_overrides_extra: Sequence[str] = (),
        vos_optimized: bool = False,
        **kwargs: Any,
    ) -> "LongVideoPredictor":
        """Load a released model from the Hugging Face hub (needs the extra `longsam[hub]`).

        Args:
            model_id: For instance "facebook/sam2.1-hiera-large".
            device: As in `build_long_video_predictor`.
            hydra_overrides_extra: As there.
            vos_optimized: As there.
            **kwargs: As there.

        Raises:
            ValueError: Upstream has no model of this name.
            ImportError: huggingface_hub is not installed.
        """
        if model_id not in build_sam.HF_MODEL_ID_TO_FILENAMES:
            raise ValueError(
                f"{model_id!r} is not a released SAM 2 model; upstream knows "
                f"{', '.join(build_sam.HF_MODEL_ID_TO_FILENAMES)}."
            )
        try:
            import huggingface_hub  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "from_pretrained needs huggingface_hub: `pip install huggingface_hub`. Or download "
                "the checkpoint and use build_long_video_predictor."
            ) from error
        predictor: LongVideoPredictor = build_sam.build_sam2_video_predictor_hf(
            model_id,
            device=device or best_device(),
            hydra_overrides_extra=[cls.as_target(vos_optimized), *hydra_overrides_extra],
            vos_optimized=vos_optimized,
            **kwargs,
        )
        predictor.name = model_id
        return predictor

    @classmethod
    def as_target(cls, vos_optimized: bool) -> str:
        """The Hydra override that makes upstream's builder build this class."""
        made = LongVideoPredictorVOS if vos_optimized and cls is LongVideoPredictor else cls
        return f"++model._target_={made.__module__}.{made.__qualname__}"

    @torch.inference_mode()
    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        *,
        memory_window: int | None = None,
        frames_per_chunk: int = FRAMES_PER_CHUNK,
        reader: Reader = "av",
        max_prompt_frames: int | None = None,
        memory_bank: MemoryBanks = None,
        snapshots: Snapshots | None = None,
        batch_objects: bool | int = False,
        frames: slice | None = None,
        corrections: Corrections = "memory",
        memory_policy: MemoryPolicy | str | None = None,
    ) -> State:
        """Open a video and encode its first frame; nothing else is decoded.

        Reimplemented because upstream's method calls `load_video_frames`, which loads all frames,
        and has no hook to replace it:
        https://github.com/facebookresearch/sam2/blob/2b90b9f5ceec907a1c18123530e92e794ad901a4/sam2/sam2_video_predictor.py#L43

        Args:
            video_path: A video file that FFmpeg reads; a folder of images (JPEG, PNG, WebP, BMP or
                TIFF; where there are JPEGs, only these); or frames by index: a numpy array or
                memory map, a torch tensor, a list, or any object with `len` and `[]`, of uint8 RGB
                frames, height x width x 3; or a list of image paths. A source of unknown length (an
                iterator of frames, a cv2.VideoCapture, the index of a camera, a URL) is tracked as
                it arrives; see `LiveVideo`.
            offload_video_to_cpu: Normalize frames on the CPU instead of the model's device.
            offload_state_to_cpu: Keep memory features and masks in CPU memory.
            async_loading_frames: Frames are always loaded in the background while a pass runs. For
                image files True normalizes in float64, as in upstream's loader, which can change
                the last bit of the logits.
            memory_window: How many of the most recently tracked frames are remembered, besides
                frames with prompts and those around the start of the last pass. None means
                `2 * reach + 1`, 31 with the released models (about 23 MiB an object): resuming is
                exact, and so is a correction on any of the last `reach + 1` frames. `reach` (15) is
                the smallest window that tracks exactly; below it masks differ from upstream's.
            frames_per_chunk: At most this many frames are decoded ahead, uint8, 3 MiB at 1024 x
                1024 each. More make reading in reverse faster. With a live source, this many frames
                before the current one are held and can be prompted.
            reader: What decodes video files. "av" (PyAV) gives the pixels upstream sees, in one
                sequential pass. "decord" reads in chunks; slower and heavier, and it refuses files
                in which decord gives wrong frames after a seek.
            max_prompt_frames: How many frames with prompts are kept for each object: its first
                conditioning frame and the ones the pass reached most recently. From then on the
                others count as tracked frames. None keeps all, as upstream does, and memory and
                time grow with them.
            memory_bank: Objects known from other videos: a file of `save_memory_bank`, or a list of
                them. They are tracked from frame 0 on without a prompt.
            snapshots: What is kept on disk so that `rewind` can go back; None keeps nothing.
            batch_objects: Track objects that remember the same frames (those first prompted on the
                same frame) in batches of at most this many objects; True takes as many as gain
                time, which has no limit on a GPU. Logits differ by rounding.
            frames: Which frames of the video are tracked, `slice(start, stop, step)`; None is all.
                Frame indices then count only these; `state.source.frames[frame_idx]` is a frame's
                index in the video.
            corrections: "memory" keeps a correction (a prompt on a frame that was tracked) as
                upstream does: with the tracked frames, until a pass tracks that frame again; on a
                conditioning frame it is lost at once. "condition" makes it a conditioning frame: it
                stays, and every later frame reads it.
            memory_policy: Which memories are read, and which candidate mask is taken: "samurai",
                "dam4sam", "sam2long", or a policy of `longsam.policies`. None is upstream's rule.

        Returns:
            The inference state: a dict with upstream's keys and one of ours. Use it in `with`, or
            close it with `close`.

        Raises:
            FileNotFoundError: There is no such file or folder.
            ValueError: The video is not of a kind that can be read, or an option has a wrong value.
            RuntimeError: The first frame cannot be read.
            ImportError: reader="decord" without decord.
        """
        options = Options(
            offload_video_to_cpu=offload_video_to_cpu,
            offload_state_to_cpu=offload_state_to_cpu,
            async_loading_frames=async_loading_frames,
            memory_window=memory_window,
            frames_per_chunk=frames_per_chunk,
            reader=reader,
            max_prompt_frames=max_prompt_frames,
            snapshots=snapshots,
            batch_objects=batch_objects,
            frames=frames,
            corrections=corrections,
            memory_policy=policies.named(memory_policy),
        )
        paths = [memory_bank] if isinstance(memory_bank, (str, os.PathLike)) else memory_bank or []
        banks = [(Path(path), saving.read_bank(Path(path), self)) for path in paths]
        state = opening.new_state(self, video_path, options)
        with opening.closed_if_it_fails(state, video_path):
            for path, bank in banks:
                saving.add_bank(state, path, bank, partial(self._obj_id_to_idx, state))
            self._get_image_feature(state, frame_idx=0, batch_size=1)  # as upstream does
        return state

    def propagate_in_video(
        self,
        inference_state: State,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        *,
        autosave: Autosave | None = None,
        progress_bar: bool | None = None,
    ) -> Generator[Step, None, None]:
        """Track all objects through the video as upstream does, forgetting frames on the way.

        Args:
            inference_state: From `init_state`, with at least one prompt for each object.
            start_frame_idx: Where to start; None is the first conditioning frame. After a
                correction on frame f give f + 1 (in reverse f - 1): as in upstream, a pass over a
                corrected frame replaces the correction, unless `init_state` was given
                corrections="condition". The corrected mask itself is what the prompt's call
                returned.
            max_frame_num_to_track: At most this many frames after the first; None is all.
            reverse: Track towards frame 0.
            autosave: Save the state after the first frame and then at intervals.
            progress_bar: Whether upstream's bar is drawn; None draws it unless the source is live.

        Yields:
            (frame_idx, object ids, mask logits), the logits float32, num_objects x 1 x height x
            width of the video, on the model's device; above 0 is the object.

        Raises:
            RuntimeError: No prompt was given, or a frame cannot be read, or an object was removed
                or the state reset while the pass was open. Masks yielded before it are valid, and a
                new pass may start from a later frame.
            ValueError: `start_frame_idx` is outside the video, or autosave was asked for and the
                state cannot be saved.

        Several passes may be open at once; each continues as upstream's would. With a live source
        the pass ends when the source does, prompts given between two yields apply from the next
        frame on, and start_frame_idx=None starts after the last tracked frame if the first
        conditioning frame is no longer held.
        """
        images = _upstream.images(inference_state)
        start, num_left = start_frame_idx, None
        if start is not None:
            start = checks.index(start, "start_frame_idx")
            images.check_start(start)
        if max_frame_num_to_track is not None:
            num_left = checks.index(max_frame_num_to_track, "max_frame_num_to_track") + 1
        run = self.begin_autosave(inference_state, autosave)
        if isinstance(images, LiveBuffer):
            return propagation.propagate_live(
                self, inference_state, start, num_left, reverse=reverse,
                progress_bar=bool(progress_bar),
            )  # fmt: skip
        return propagation.propagate(
            self,
            inference_state,
            start,
            num_left,
            reverse=reverse,
            autosave=run,
            progress_bar=progress_bar is not False,
        )

    def resume_propagation(
        self,
        inference_state: State,
        *,
        autosave: Autosave | None = None,
        progress_bar: bool | None = None,
    ) -> Generator[Step, None, None]:
        """Resume the most recent pass where it stopped, with the masks it would have given.

        The pass may have ended, been left with `break`, or been killed after the state was saved.
        Direction and `max_frame_num_to_track` are those of that pass; the arguments are those of
        `propagate_in_video`.

        Yields:
            What `propagate_in_video` would have yielded next; nothing if the pass was over.

        Raises:
            RuntimeError: There was no pass.
        """
        is_live = isinstance(_upstream.images(inference_state), LiveBuffer)
        return propagation.resume(
            self,
            inference_state,
            autosave=self.begin_autosave(inference_state, autosave),
            progress_bar=not is_live if progress_bar is None else progress_bar,
        )

    def upstream_pass(
        self, state: _upstream.InferenceState, current: Pass, *, resumed: bool, progress_bar: bool
    ) -> Generator[Step, None, None]:
        """Upstream's own generator, from where a pass is; the loop in `propagation` calls it."""
        most = None if current.num_left is None else current.num_left - 1
        start = current.next_frame_idx
        if not (resumed and current.reverse and start == 0):
            steps = super().propagate_in_video(state, start, most, current.reverse)
            with _upstream.progress_bar(is_drawn=progress_bar):
                first = next(steps, None)
            if first is not None:
                yield first
                yield from steps
            return
        # Upstream tracks nothing in reverse from frame 0: let it start at frame 1 once more.
        steps = super().propagate_in_video(state, 1, 1, True)
        with _upstream.progress_bar(is_drawn=False), _upstream.frame_unchanged(state, 1):
            next(steps)
        yield from steps

    def save_state(self, inference_state: State, path: str | os.PathLike[str]) -> None:
        """Write a state to a file atomically; an existing file is replaced.

        The file holds objects, prompts and what is remembered of frames, and says which model and
        video they belong to; it holds neither weights nor frames. At 1024 x 1024 it takes 0.75 MiB
        for each object and remembered frame (23 MiB an object by default).

        Args:
            inference_state: From `init_state`. Objects' ids must be integers or strings.
            path: The file; its folder must exist.

        Raises:
            ValueError: The source is live, or something is of a type that cannot be saved.
            OSError: It cannot be written; an existing file is unchanged.
        """
        saving.write_state(inference_state, Path(path), self)

    def load_state(
        self,
        path: str | os.PathLike[str],
        video_path: Any = None,
        *,
        snapshots: str | os.PathLike[str] | None = None,
        memory_policy: MemoryPolicy | str | None = None,
    ) -> State:
        """Read a state written by `save_state`, with the same model and video.

        `resume_propagation` then continues where its pass stopped, with the masks of a run that was
        never interrupted. The file need not be trusted: no code is loaded from it, a video that it
        names is opened only if it is a file or folder on this machine, and nothing outside the
        snapshots' folder is written or removed.

        Args:
            path: The file.
            video_path: Where the video is now; None is where it was. An array or a URL must be
                given again.
            snapshots: The folder of the session's snapshots. None is where they were, if that is a
                folder beside `path`.
            memory_policy: The session's memory policy; a different one is refused. None takes the
                one that the file names, which must be one that comes with longsam.

        Raises:
            FileNotFoundError: There is no such file, or no video where it was.
            ValueError: It is not a saved state, or it is of another model or video; the message
                names both.
        """
        saved = saving.read_state(Path(path), self)
        policy = policies.named(memory_policy)
        options = saving.options_of(saved, Path(path), snapshots, policy)
        video = saving.video_of(saved, Path(path)) if video_path is None else video_path
        state = self.init_state(video, **options.given())
        with opening.closed_if_it_fails(state, video):
            saving.restore(state, saved, Path(path))
        return state

    @torch.inference_mode()
    def rewind(self, inference_state: State, frame_idx: int) -> None:
        """Restore what upstream, which forgets nothing, remembers of a frame and its neighbours.

        Forgotten frames within `reach + 1` of it are tracked again, from the snapshot before them;
        what is still remembered does not change, and prompts given since stay. A correction on the
        frame, and a pass from the frame after it, then give upstream's masks bit for bit. Of
        several frames, rewind last to the one where the next pass starts.

        Args:
            inference_state: From `init_state` with `snapshots`.
            frame_idx: The frame.

        Raises:
            ValueError: The session keeps no snapshots, or not the one that is needed.
            FileNotFoundError: Its file is gone.
        """
        frame_idx = checks.frame_idx(inference_state, frame_idx, "frame_idx")
        propagation.rewind(self, inference_state, frame_idx)

    def save_memory_bank(
        self,
        inference_state: State,
        path: str | os.PathLike[str],
        obj_ids: Iterable[Any] | None = None,
        *,
        anchors: bool = False,
    ) -> None:
        """Write what objects look like to a file, for `init_state(..., memory_bank=path)`.

        It stores the memories of frames with prompts (conditioning frames). Another video of the
        same objects can then be tracked without a prompt.

        Args:
            inference_state: With at least one prompt for each object.
            path: The file; an existing one is replaced.
            obj_ids: Which objects; None is all. Integers or strings.
            anchors: Also the anchors that a memory policy (DAM4SAM) has at the last tracked frame.

        Raises:
            ValueError: There is no such object or policy, or an id is of another type.
            RuntimeError: An object has no prompt.
        """
        self.propagate_in_video_preflight(inference_state)
        saving.write_bank(inference_state, Path(path), self, obj_ids, anchors=anchors)

    def begin_autosave(
        self, inference_state: State, autosave: Autosave | None
    ) -> AutosaveRun | None:
        """The autosave of a pass, for code that wraps one; None if `autosave` is None.

        Raises:
            ValueError: `autosave` is something else, the source is live, or an object's id is
                neither an integer nor a string.
        """
        if autosave is None:
            return None
        if not isinstance(autosave, Autosave):
            raise ValueError(
                f"autosave is {autosave!r}; it must be longsam.Autosave(path, every=...) or None."
            )
        saving.check_can_be_saved(inference_state)
        return autosave.begin(partial(self.save_state, inference_state))

    def advance(self, inference_state: State) -> int:
        """Wait for the next frame of a live source without tracking anything on it.

        Returns:
            The index of the frame, which can be prompted now.

        Raises:
            ValueError: The source is not a live one.
            EndOfStreamError: The source has ended.
        """
        images = _upstream.images(inference_state)
        if not isinstance(images, LiveBuffer):
            raise ValueError(
                f"{images.source.name} is not live: any frame can be prompted at once."
            )
        return images.advance()

    def scores(self, inference_state: State, frame_idx: int) -> dict[Any, scores.Scores]:
        """How sure the model is of each object on a remembered frame.

        Args:
            inference_state: From `init_state`.
            frame_idx: A frame that was prompted, or that a pass just yielded.

        Returns:
            By object id: (object_score, predicted_iou), see `longsam.scores.Scores`; objects that
            are not remembered on this frame are left out. Waits for the GPU.

        Raises:
            ValueError: No object is remembered on it.
        """
        return scores.of_frame(inference_state, checks.index(frame_idx, "frame_idx"))

    @torch.inference_mode()
    def encode(self, inference_state: State, frame_idx: int) -> None:
        """Compute a frame's features ahead of time, so that a prompt on it is answered sooner.

        Features of one frame are kept, as in upstream; masks do not change.

        Raises:
            ValueError: `frame_idx` is outside the video.
        """
        frame_idx = checks.frame_idx(inference_state, frame_idx, "frame_idx")
        self._get_image_feature(inference_state, frame_idx, batch_size=1)

    def close(self, inference_state: State) -> None:
        """Stop decoding and release the video; masks already yielded stay good."""
        inference_state.close()

    def memory_usage(self, inference_state: State) -> dict[str, dict[str, int]]:
        """What the state holds, in bytes.

        Returns:
            By kind ("memory_features", "masks", "object_pointers", "prompts", "cached_features",
            "frame_buffer" and their "total"), then by device ("cpu", "cuda:0"). The model and the
            decoder's own memory are not in it.
        """
        return _upstream.bytes_by_kind(inference_state)

    # Upstream's calls, with our notes on them -------------------------------------------------

    def propagate_in_video_preflight(self, inference_state: State) -> None:
        """Upstream's call; the prompts that it consolidates change what is remembered."""
        if _upstream.has_waiting_prompts(inference_state):
            prompting.take_up(inference_state)
        super().propagate_in_video_preflight(inference_state)

    def add_new_points_or_box(
        self,
        inference_state: State,
        frame_idx: int,
        obj_id: Any,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> tuple[int, list[Any], torch.Tensor]:
        """Upstream's call; on a frame that was forgotten it warns (see README, Exactness).

        Raises:
            ValueError: `frame_idx` is outside the video, or the prompt is refused. The state is
                then unchanged.
        """
        frame_idx = checks.frame_idx(inference_state, frame_idx, "frame_idx")
        obj_id = checks.obj_id(obj_id, session_of(inference_state).options)
        checks.points(points, labels, box)
        with prompting.adding(inference_state, obj_id, frame_idx):
            step: Step = super().add_new_points_or_box(
                inference_state, frame_idx, obj_id, points, labels, clear_old_points,
                normalize_coords, box,
            )  # fmt: skip
        return step

    def add_new_mask(
        self, inference_state: State, frame_idx: int, obj_id: Any, mask: Any
    ) -> tuple[int, list[Any], torch.Tensor]:
        """Upstream's call; on a frame that was forgotten it warns (see README, Exactness).

        Raises:
            ValueError: `frame_idx` is outside the video. The state is then unchanged.
        """
        frame_idx = checks.frame_idx(inference_state, frame_idx, "frame_idx")
        obj_id = checks.obj_id(obj_id, session_of(inference_state).options)
        with prompting.adding(inference_state, obj_id, frame_idx):
            step: Step = super().add_new_mask(inference_state, frame_idx, obj_id, mask)
        return step

    def clear_all_prompts_in_frame(
        self, inference_state: State, frame_idx: int, obj_id: Any, need_output: bool = True
    ) -> Any:
        """Upstream's call; what the model made of the prompts is kept until it is replaced."""
        frame_idx = checks.index(frame_idx, "frame_idx")
        obj_id = checks.obj_id(obj_id)
        result = super().clear_all_prompts_in_frame(inference_state, frame_idx, obj_id, need_output)
        session = session_of(inference_state)
        session.changed()
        obj_idx = _upstream.object_idx(inference_state, obj_id)
        if obj_idx is not None and frame_idx in _upstream.tracked_outputs(inference_state, obj_idx):
            session.memory.note_cleared(obj_id, frame_idx)
        return result

    def remove_object(
        self, inference_state: State, obj_id: Any, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, torch.Tensor]]]:
        """Upstream's call; our notes on the object go too.

        Returns:
            The remaining object ids, and (frame_idx, mask logits) of the frames on which the
            removed object had prompts, except those that are forgotten for a remaining object.
        """
        obj_id = checks.obj_id(obj_id)
        is_known = _upstream.object_idx(inference_state, obj_id) is not None
        obj_ids, updated = super().remove_object(inference_state, obj_id, strict, need_output)
        session = session_of(inference_state)
        if is_known:
            session.objects_removed(inference_state)
        return obj_ids, [
            (frame_idx, mask_logits)
            for frame_idx, mask_logits in updated
            if not any(
                session.memory.is_forgotten(inference_state, other, frame_idx) for other in obj_ids
            )
        ]

    def reset_state(self, inference_state: State) -> None:
        """Upstream's call; our notes on the objects go too."""
        super().reset_state(inference_state)
        session_of(inference_state).objects_removed(inference_state)

    # Upstream's own methods ---------------------------------------------------------------------

    def _run_single_frame_inference(
        self,
        inference_state: _upstream.InferenceState,
        output_dict: dict[str, Any],
        frame_idx: int,
        batch_size: int,
        **inputs: Any,
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """Upstream's, as the policy asks, or for all objects that remember the same frames."""
        run = partial(super()._run_single_frame_inference, inference_state, frame_idx=frame_idx)
        frame = _upstream.Inference(self, run, inference_state, frame_idx, inputs)
        return session_of(inference_state).infer(frame, output_dict, batch_size)

    def _track_step(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream's; the predicted IoU, which it drops later, is kept."""
        first, sam_outputs, *others = super()._track_step(*args, **kwargs)
        output_dict = kwargs["output_dict"] if "output_dict" in kwargs else args[7]
        return first, _upstream.catch_predicted_iou(output_dict, sam_outputs), *others

    def _clear_obj_non_cond_mem_around_input(
        self, inference_state: _upstream.InferenceState, frame_idx: int, obj_idx: int
    ) -> None:
        """A method that upstream calls with `clear_non_cond_mem_around_input` but does not have.

        Upstream has one for all objects at once; this one sees one object. A correction on the
        frame itself was just given by the user and stays. (sam2 issue 571)
        """
        prompting.clear_around(self, inference_state, frame_idx, obj_idx)

    @property
    def feature_reach(self) -> int:
        """How many frames back tracking reads memory features."""
        return _upstream.feature_reach(self)


class LongVideoPredictorVOS(LongVideoPredictor, SAM2VideoPredictorVOS):
    """The same with upstream's compiled components (`vos_optimized=True`)."""


def best_device() -> str:
    """A GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
