"""LongVideoPredictor: what differs from upstream's SAM2VideoPredictor, and nothing else."""

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from longsam import _upstream, memory, saving
from longsam._installed_sam2 import SAM2VideoPredictor, SAM2VideoPredictorVOS, check_once
from longsam._upstream import State
from longsam.frames import (
    EndOfStreamError,
    EndOfVideoError,
    FrameBuffer,
    ImageFiles,
    LiveBuffer,
    LiveVideo,
    Reader,
    open_source,
)
from longsam.snapshots import Snapshots

FRAMES_PER_CHUNK = 32
"""Default read-ahead: 96 MiB of uint8 frames at 1024 x 1024."""


MemoryBanks = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None

Step = tuple[int, list[Any], torch.Tensor]
"""Frame index, object ids, mask logits."""


class LongVideoPredictor(SAM2VideoPredictor):
    """SAM 2's video predictor for video of any length, at constant memory.

    It is upstream's `SAM2VideoPredictor` with the same calls and the same masks. Frames are decoded
    as they are needed, and after each tracked frame all is forgotten that will not be read again.
    Build it with `build_long_video_predictor` or `from_pretrained`.
    """

    name: str = ""
    """What messages call the model; the builders set it to config and checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any):
        check_once()
        super().__init__(*args, **kwargs)
        self.memory_attention.register_forward_pre_hook(_match_memory_dtype, with_kwargs=True)

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "LongVideoPredictor":
        """Load a released model from the Hugging Face hub (needs the extra `longsam[hub]`).

        Args:
            model_id: For instance "facebook/sam2.1-hiera-large".
            **kwargs: As in `build_long_video_predictor`, except config and checkpoint.

        Raises:
            ValueError: Upstream knows no model of this name.
            ImportError: huggingface_hub is not installed.
        """
        from longsam.build import build_from_hub  # which imports this module

        return build_from_hub(cls, model_id, **kwargs)

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
        snapshot_every: int | None = None,
        snapshot_dir: str | os.PathLike[str] | None = None,
        max_snapshot_bytes: int | None = None,
        batch_objects: bool | int = False,
        frames_per_encode: int = 1,
    ) -> State:
        """Open a video and encode its first frame; nothing else is decoded.

        Written anew because upstream's calls `load_video_frames`, which loads all frames, with no
        hook in between:
        https://github.com/facebookresearch/sam2/blob/2b90b9f5ceec907a1c18123530e92e794ad901a4/sam2/sam2_video_predictor.py#L43

        Args:
            video_path: A video file that FFmpeg reads; a folder of images (JPEG, PNG, WebP, BMP or
                TIFF; where there are JPEGs, only these); or frames by index: a numpy array or
                memory map, a torch tensor, a list, or any object with `len` and `[]`, of uint8 RGB
                frames, height x width x 3; or a list of image paths. A source whose length is not
                known (an iterator of frames, a cv2.VideoCapture, the index of a camera, a URL) is
                tracked as it arrives; see `LiveVideo`.
            offload_video_to_cpu: Normalize frames on the CPU instead of the model's device.
            offload_state_to_cpu: Keep memory features and masks in CPU memory.
            async_loading_frames: Frames are always loaded in the background while a pass runs. For
                image files this normalizes in float64, as upstream's loader does when asked so,
                and the last bit of a mask may depend on it.
            memory_window: How many of the frames tracked last are remembered, besides the frames
                with prompts and those around the start of the last pass. None means
                `2 * reach + 1`, 31 with the released models (about 23 MiB an object): tracking on
                is exact, and so is a correction on any of the last `reach + 1` frames. `reach`
                (15) is the least that tracks exactly; below it masks differ from upstream's.
            frames_per_chunk: How many frames are decoded ahead at most, uint8, 3 MiB each at
                1024 x 1024. More make reading in reverse faster. Of a live source so many frames
                behind the current one are held, and can be prompted.
            reader: What decodes video files. "av" (PyAV) gives the pixels upstream sees, in one
                sequential pass. "decord" reads in chunks; slower and heavier, and it refuses files
                in which decord gives wrong frames after a seek.
            max_prompt_frames: How many frames with prompts are kept for each object: its first
                conditioning frame and those that the pass has come by last. The others count as
                tracked from then on. None keeps all, as upstream does, and memory and time grow
                with them.
            memory_bank: Objects known from other videos: a file of `save_memory_bank`, or a list of
                them. They are tracked from frame 0 on without a prompt.
            snapshot_every: Keep a snapshot of the session on disk at the start of each pass and
                after every so many frames, so that `rewind` can go back. Each is as large as a save
                (23 MiB an object at 1024 x 1024).
            snapshot_dir: The folder for them, of this session alone: snapshots that others have
                left there are removed when a pass starts. A session that is saved and loaded again
                finds its own there. None is a temporary folder that goes with the session.
            max_snapshot_bytes: How much disk they may take; beyond it every second one is dropped,
                and then those of the oldest passes. None is no bound.
            batch_objects: Track objects that remember the same frames (those first prompted on the
                same frame) as one batch, of at most so many objects; True is no limit. Faster, and
                not bit for bit the same: logits differ by rounding.
            frames_per_encode: Give the image encoder so many frames at once (frames 0 to n-1, n to
                2n-1, ...), also where one of them is prompted. Takes 28 MiB more for each at
                1024 x 1024, and logits differ by rounding.

        Returns:
            The inference state, with upstream's keys and one of ours.

        Raises:
            FileNotFoundError: There is no such file or folder.
            ValueError: The video is of no kind that can be read, or an option has a wrong value.
            RuntimeError: The first frame cannot be read.
            ImportError: reader="decord" without decord.
        """
        for name, number in (
            ("frames_per_chunk", frames_per_chunk),
            ("frames_per_encode", frames_per_encode),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; it must be a whole number, at least 1.")
        remembered = memory.new_memory(self, memory_window)
        remembered.max_prompt_frames = memory.checked_max_prompt_frames(max_prompt_frames)
        remembered.batches = memory.checked_batches(self, batch_objects)
        remembered.frames_per_encode = frames_per_encode
        if snapshot_every is not None:
            folder = None if snapshot_dir is None else Path(snapshot_dir)
            remembered.snapshots = Snapshots(folder, snapshot_every, max_snapshot_bytes)
        source = open_source(
            video_path, self.image_size, reader=reader, frames_per_chunk=frames_per_chunk
        )
        in_float64 = async_loading_frames and isinstance(source, ImageFiles)
        device = torch.device("cpu") if offload_video_to_cpu or in_float64 else self.device
        if isinstance(source, LiveVideo):
            if remembered.snapshots is not None:
                raise ValueError(f"{source.name} is live: there is no going back, so no snapshots.")
            if frames_per_encode > 1:
                raise ValueError(
                    f"frames_per_encode is {frames_per_encode}, but {source.name} is live: its "
                    "frames come one at a time. Leave it out."
                )
            images: FrameBuffer = LiveBuffer(source, self.image_size, frames_per_chunk, device)
        else:
            dtype = torch.float64 if in_float64 else torch.float32
            images = FrameBuffer(source, self.image_size, frames_per_chunk, device, dtype)
        state = _upstream.new_state(
            images,
            source.frame_size,
            self.device,
            offload_video_to_cpu=offload_video_to_cpu,
            offload_state_to_cpu=offload_state_to_cpu,
        )
        state[memory.KEY] = remembered
        remembered.settings = {
            "offload_video_to_cpu": offload_video_to_cpu,
            "offload_state_to_cpu": offload_state_to_cpu,
            "async_loading_frames": async_loading_frames,
            "memory_window": memory_window,
            "frames_per_chunk": frames_per_chunk,
            "reader": reader,
            "max_prompt_frames": max_prompt_frames,
            "snapshot_every": snapshot_every,
            "snapshot_dir": None if snapshot_dir is None else os.path.abspath(snapshot_dir),
            "max_snapshot_bytes": max_snapshot_bytes,
            "batch_objects": batch_objects,
            "frames_per_encode": frames_per_encode,
        }
        for bank in (
            [memory_bank] if isinstance(memory_bank, (str, os.PathLike)) else (memory_bank or [])
        ):
            saving.load_bank(self, state, bank)
        self._get_image_feature(state, frame_idx=0, batch_size=1)  # as upstream does
        return state

    def propagate_in_video(
        self,
        inference_state: State,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        *,
        save_every: int | timedelta | None = None,
        save_path: str | os.PathLike[str] | None = None,
        before_save: Callable[[], object] | None = None,
    ) -> Generator[Step, None, None]:
        """Track all objects through the video, as upstream does, and forget behind.

        Args:
            inference_state: From `init_state`, with at least one prompt for each object.
            start_frame_idx: Where to start; None is the first conditioning frame.
            max_frame_num_to_track: Up to so many frames after the first; None is all.
            reverse: Track towards frame 0.
            save_every: Save the state after the first frame, and then after so many frames, or so
                much time. It is saved when the caller asks for the next frame, and so has dealt
                with those before.
            save_path: Where to; see `save_state`.
            before_save: Called before each save. Give the `flush` of a `MaskWriter`, so that no
                frame is in the save whose masks are not on disk.

        Yields:
            (frame_idx, object ids, mask logits), the logits float32, num_objects x 1 x height x
            width of the video, on the model's device; above 0 is the object.

        Raises:
            RuntimeError: No prompt was given, or a frame cannot be read. Masks yielded before are
                good, and a pass may be started again from a later frame.
            ValueError: `start_frame_idx` is outside the video, or `save_every` comes without
                `save_path` or is not positive.

        Of a live source the pass ends when the source does; prompts that are given between two
        yields count from the next frame on, and None starts behind the last frame tracked where
        the first conditioning frame is no longer held.
        """
        images = _upstream.images(inference_state)
        if start_frame_idx is not None:
            _check_is_index(start_frame_idx, "start_frame_idx")
            images.check_start(start_frame_idx)
        passes = self._propagate_live if isinstance(images, LiveBuffer) else self._propagate
        steps = passes(inference_state, start_frame_idx, max_frame_num_to_track, reverse)
        return saving.saved(self, inference_state, steps, save_every, save_path, before_save)

    def _propagate(
        self,
        inference_state: State,
        start_frame_idx: int | None,
        max_frame_num_to_track: int | None,
        reverse: bool,
        goes_on: bool = False,
    ) -> Generator[Step, None, None]:
        # Encodes what was prompted; upstream's own call to it below then finds nothing to do. Done
        # here so that only the frames of the pass itself are read ahead.
        self.propagate_in_video_preflight(inference_state)
        start = start_frame_idx
        if start is None:
            start = _upstream.default_start(inference_state)
        tracked = self._tracked(inference_state, start, max_frame_num_to_track, reverse, goes_on)
        snapshots: Snapshots | None = inference_state[memory.KEY].snapshots
        if snapshots is not None:
            save = partial(self.save_state, inference_state)
            tracked = snapshots.taken(tracked, start, save, reverse=reverse)
        yield from tracked

    def _tracked(
        self,
        inference_state: State,
        start_frame_idx: int,
        max_frame_num_to_track: int | None,
        reverse: bool,
        goes_on: bool,
    ) -> Generator[Step, None, None]:
        """Upstream's pass, its frames read ahead and what it leaves behind forgotten."""
        steps = super().propagate_in_video(
            inference_state, start_frame_idx, max_frame_num_to_track, reverse
        )
        memory.warn_of_forgotten_past(inference_state, start_frame_idx, reverse=reverse)
        batches = inference_state[memory.KEY].batches
        if batches is not None:
            batches.clear()  # an earlier pass may have failed halfway through a frame
        starts_pass = not goes_on
        left = max_frame_num_to_track
        with closing(_upstream.images(inference_state).serve(steps, reverse=reverse)) as served:
            try:
                for frame_idx, obj_ids, mask_logits in served:
                    memory.forget(
                        inference_state, frame_idx, starts_pass=starts_pass, reverse=reverse
                    )
                    starts_pass = False
                    left = None if left is None else left - 1
                    memory.note_stop(inference_state, frame_idx, left, reverse=reverse)
                    yield frame_idx, obj_ids, mask_logits
            except EndOfStreamError:
                return
            except EndOfVideoError as end:
                warnings.warn(f"{end} The pass ends there.", stacklevel=3)

    def _propagate_live(
        self,
        inference_state: State,
        start_frame_idx: int | None,
        max_frame_num_to_track: int | None,
        reverse: bool,
    ) -> Generator[Step, None, None]:
        """One pass after another: what is prompted between two yields counts from the next on."""
        self.propagate_in_video_preflight(inference_state)
        if start_frame_idx is None:
            start_frame_idx = memory.live_start(inference_state)
        left = max_frame_num_to_track
        while left is None or left >= 0:
            steps = self._propagate(inference_state, start_frame_idx, left, reverse)
            for frame_idx, obj_ids, mask_logits in steps:
                objects = list(obj_ids)
                yield frame_idx, obj_ids, mask_logits
                left = None if left is None else left - 1
                if _upstream.is_prompted_anew(inference_state, objects):
                    start_frame_idx = frame_idx + (-1 if reverse else 1)
                    break
            else:
                return
            steps.close()
            if not any(_upstream.objects(inference_state)):
                return  # the caller has removed the last object

    def resume_propagation(
        self,
        inference_state: State,
        *,
        save_every: int | timedelta | None = None,
        save_path: str | os.PathLike[str] | None = None,
        before_save: Callable[[], object] | None = None,
    ) -> Generator[Step, None, None]:
        """Go on where the last pass over this state stopped, as if it had not.

        The pass may have ended by itself, been left with `break`, or been killed after the state
        was saved. Direction and `max_frame_num_to_track` are those of that pass; the arguments are
        those of `propagate_in_video`.

        Yields:
            What `propagate_in_video` would have yielded next; nothing if the pass was over.

        Raises:
            RuntimeError: There was no pass.
        """
        stop = memory.where_stopped(inference_state)
        steps = self._go_on(inference_state, *stop)
        return saving.saved(self, inference_state, steps, save_every, save_path, before_save)

    def _go_on(
        self, inference_state: State, start: int | None, left: int | None, reverse: bool
    ) -> Generator[Step, None, None]:
        """The rest of a pass, of which frame `start` comes next; None: it was over."""
        if start is None:
            return
        if start > 0 or not reverse:
            yield from self._propagate(inference_state, start, left, reverse, goes_on=True)
            return
        steps = self._propagate(inference_state, 1, 1, reverse, goes_on=True)
        next(steps)  # upstream tracks nothing in reverse from frame 0: frame 1 once more
        yield from steps

    def save_state(self, inference_state: State, path: str | os.PathLike[str]) -> None:
        """Write a state to a file, whole or not at all; a file that is there is replaced.

        The file holds objects, prompts and what is remembered of frames, and says which model and
        video they belong to; it holds neither weights nor frames. At 1024 x 1024 it has 0.75 MiB
        for each object and remembered frame (23 MiB an object by default).

        Args:
            inference_state: From `init_state`. Objects' ids must be integers or strings.
            path: The file; its folder must exist.

        Raises:
            ValueError: The source is live, or an object's id is of another type.
            OSError: It cannot be written; the file that was there is as it was.
        """
        saving.save(self, inference_state, path)

    def load_state(self, path: str | os.PathLike[str], video_path: Any = None) -> State:
        """Read a state that `save_state` has written, with the same model and video.

        `resume_propagation` then goes on where its pass stopped, with the masks of a run that was
        never interrupted. No code is loaded (`torch.load(weights_only=True)`).

        Args:
            path: The file.
            video_path: Where the video is now; None is where it was. An array must be given again.

        Raises:
            FileNotFoundError: There is no such file, or no video where it was.
            ValueError: It is no saved state, or one of another model or video; both are named.
        """
        return saving.load(self, path, video_path)

    def rewind(self, inference_state: State, frame_idx: int) -> None:
        """Go back to a frame that was tracked, so that a correction there is exactly upstream's.

        What was forgotten around the frame is made again: the snapshot before it is loaded, and the
        frames up to it are tracked as they were. Prompts given since then stay. Correct the frame
        next, and track on with `propagate_in_video(state, start_frame_idx=frame_idx)`.

        Args:
            inference_state: From `init_state` with `snapshot_every`.
            frame_idx: The frame. Of passes that have tracked it the latest counts.

        Raises:
            ValueError: There are no snapshots, or none before this frame.
        """
        _check_frame_idx(inference_state, frame_idx, "frame_idx")
        snapshots: Snapshots | None = inference_state[memory.KEY].snapshots
        if snapshots is None:
            raise ValueError(
                "This session keeps no snapshots to go back to: give init_state snapshot_every."
            )
        tracked, nearest = snapshots.find(frame_idx)
        old = saving.restored(self, inference_state, tracked.snapshots[nearest])
        start, left = nearest + tracked.step, abs(frame_idx - nearest) - 1
        with _upstream.no_progress_bar():
            for _ in self._go_on(old, start, left, tracked.reverse):
                pass
        memory.go_back(inference_state, old, frame_idx, reverse=tracked.reverse)

    def save_memory_bank(
        self,
        inference_state: State,
        path: str | os.PathLike[str],
        obj_ids: Iterable[Any] | None = None,
    ) -> None:
        """Write what objects look like to a file, for `init_state(..., memory_bank=path)`.

        Stored are the memories of frames with prompts (conditioning frames). Another video of the
        same objects then starts knowing them, with no prompt of its own.

        Args:
            inference_state: With at least one prompt for each object.
            path: The file; it is replaced if it is there.
            obj_ids: Which objects; None is all. Integers or strings.

        Raises:
            ValueError: There is no such object, or its id is of another type.
            RuntimeError: An object has no prompt.
        """
        self.propagate_in_video_preflight(inference_state)
        saving.save_bank(self, inference_state, path, obj_ids)

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
            ValueError: `frame_idx` is outside the video, or upstream refuses the prompt.
        """
        _check_frame_idx(inference_state, frame_idx, "frame_idx")
        memory.warn_of_forgotten_prompt(inference_state, obj_id, frame_idx)
        with self._no_object_left_if_refused(inference_state, obj_id):
            return super().add_new_points_or_box(  # type: ignore[no-any-return]
                inference_state,
                frame_idx,
                obj_id,
                points,
                labels,
                clear_old_points,
                normalize_coords,
                box,
            )

    def add_new_mask(
        self, inference_state: State, frame_idx: int, obj_id: Any, mask: Any
    ) -> tuple[int, list[Any], torch.Tensor]:
        """Upstream's call; on a frame that was forgotten it warns (see README, Exactness).

        Raises:
            ValueError: `frame_idx` is outside the video.
        """
        _check_frame_idx(inference_state, frame_idx, "frame_idx")
        memory.warn_of_forgotten_prompt(inference_state, obj_id, frame_idx)
        with self._no_object_left_if_refused(inference_state, obj_id):
            return super().add_new_mask(  # type: ignore[no-any-return]
                inference_state, frame_idx, obj_id, mask
            )

    def remove_object(
        self, inference_state: State, obj_id: Any, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, torch.Tensor]]]:
        """Upstream's call, and what is noted of the object goes too.

        Returns:
            The remaining object ids, and (frame_idx, mask logits) of the frames on which the
            removed object had prompts, except those that are forgotten for a remaining object.
        """
        obj_ids, updated = super().remove_object(inference_state, obj_id, strict, need_output)
        memory.forget_objects(inference_state)
        return obj_ids, [
            (frame_idx, mask_logits)
            for frame_idx, mask_logits in updated
            if not any(
                memory.is_forgotten(inference_state, obj_id, frame_idx) for obj_id in obj_ids
            )
        ]

    def reset_state(self, inference_state: State) -> None:
        """Upstream's call, and what is noted of the objects goes too."""
        super().reset_state(inference_state)
        memory.forget_objects(inference_state)

    def memory_usage(self, inference_state: State) -> dict[str, dict[str, int]]:
        """What the state holds, in bytes.

        Returns:
            By kind ("memory_features", "masks", "object_pointers", "prompts", "cached_features",
            "frame_buffer" and their "total"), then by device ("cpu", "cuda:0"). The model and the
            decoder's own memory are not in it.
        """
        return memory.bytes_by_kind(inference_state)

    def _run_single_frame_inference(
        self,
        inference_state: State,
        output_dict: dict[str, Any],
        frame_idx: int,
        batch_size: int,
        **inputs: Any,
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """Upstream's, for all objects at once that remember the same frames (`batch_objects`)."""
        remembered: memory.Memory = inference_state[memory.KEY]
        is_prompted = inputs["point_inputs"] is not None or inputs["mask_inputs"] is not None
        infer = partial(
            super()._run_single_frame_inference, inference_state, frame_idx=frame_idx, **inputs
        )
        if remembered.batches is None or is_prompted:
            return infer(output_dict=output_dict, batch_size=batch_size)  # type: ignore[no-any-return]
        return remembered.batches.track(
            inference_state,
            _upstream.index_of_outputs(inference_state, output_dict),
            frame_idx,
            remembered.reach,
            lambda together, size: infer(output_dict=together, batch_size=size),
            reverse=inputs["reverse"],
        )

    def _get_image_feature(self, inference_state: State, frame_idx: int, batch_size: int) -> Any:
        """Upstream's, for the next frames of a pass at once (`frames_per_encode`)."""
        if frame_idx not in inference_state["cached_features"]:
            frames = memory.frames_to_encode(inference_state, frame_idx)
            if len(frames) > 1:
                self._encode(inference_state, frames)
        return super()._get_image_feature(inference_state, frame_idx, batch_size)

    def _encode(self, inference_state: State, frames: range) -> None:
        """Put the features of several frames where upstream looks for them."""
        images = {}
        for frame_idx in frames:
            try:
                images[frame_idx] = _upstream.images(inference_state)[frame_idx]
            except Exception:  # whatever it is, the pass meets it when it comes there
                break
        if not images:
            return
        together = sorted(images)
        device = inference_state["device"]
        batch = torch.stack([images[frame_idx].to(device).float() for frame_idx in together])
        inference_state["cached_features"] = {}
        features = _upstream.split_features(self.forward_image(batch))
        inference_state["cached_features"] = {
            frame_idx: (batch[i : i + 1], of_frame)
            for i, (frame_idx, of_frame) in enumerate(zip(together, features, strict=True))
        }

    @contextmanager
    def _no_object_left_if_refused(self, inference_state: State, obj_id: Any) -> Iterator[None]:
        """Upstream adds an object before it looks at its prompt; take it back if that fails."""
        is_new = _upstream.object_idx(inference_state, obj_id) is None
        try:
            yield
        except Exception:
            if is_new:
                self.remove_object(inference_state, obj_id, need_output=False)
            raise

    def _clear_obj_non_cond_mem_around_input(
        self, inference_state: State, frame_idx: int, obj_idx: int
    ) -> None:
        """The method that upstream calls under `clear_non_cond_mem_around_input` and lacks.

        Upstream has it for all objects at once; here it sees one. A correction on the frame itself
        is what the user has just given and stays. (sam2 issue 571)
        """
        outputs = _upstream.tracked_outputs(inference_state, obj_idx)
        correction = outputs.get(frame_idx)
        self._clear_non_cond_mem_around_input(
            _upstream.only_object(inference_state, obj_idx), frame_idx
        )
        if correction is not None and _upstream.has_prompt(inference_state, obj_idx, frame_idx):
            outputs[frame_idx] = correction


class LongVideoPredictorVOS(LongVideoPredictor, SAM2VideoPredictorVOS):
    """The same with upstream's compiled components (`vos_optimized=True`)."""


def _match_memory_dtype(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let memory attention run without autocast when it reads no object pointer.

    Memory features are stored in bfloat16. Upstream concatenates them with object pointers, which
    makes them float32 again; where there is no pointer (an object prompted on a later frame) they
    stay bfloat16 and the first layer refuses them. The cast is the one that the pointers cause.
    """
    memory_features, frame_features = kwargs["memory"], kwargs["curr"][0]
    if not torch.is_autocast_enabled(frame_features.device.type):
        kwargs["memory"] = memory_features.to(frame_features.dtype)
    return args, kwargs


def _check_frame_idx(state: State, frame_idx: int, name: str) -> None:
    _check_is_index(frame_idx, name)
    _upstream.images(state).check(frame_idx, name)


def _check_is_index(frame_idx: int, name: str) -> None:
    if isinstance(frame_idx, bool) or not hasattr(frame_idx, "__index__"):
        raise ValueError(f"{name} is {frame_idx!r}; it must be a whole number, the frame's index.")
