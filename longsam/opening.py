"""A fresh state: opens the video and adds what we hold besides upstream's keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from longsam import _upstream, checks, notices
from longsam.batches import Batches, best_batch_size
from longsam.frames import FrameBuffer, ImageFiles, LiveBuffer, LiveVideo, SlicedSource, open_source
from longsam.memory import Memory
from longsam.options import Options
from longsam.policies import Follower
from longsam.session import KEY, Session, State


class Model(Protocol):
    """What opening asks of the model."""

    image_size: int
    device: torch.device
    non_overlap_masks_for_mem_enc: bool


def new_state(model: Model, video: Any, options: Options) -> State:
    """Open a video; see `LongVideoPredictor.init_state`."""
    checks.batches(model.non_overlap_masks_for_mem_enc, options)
    checks.policy(model, options)
    images = _open(video, model.image_size, model.device, options)
    state = State(
        _upstream.new_state(
            images,
            images.source.frame_size,
            model.device,
            offload_video_to_cpu=options.offload_video_to_cpu,
            offload_state_to_cpu=options.offload_state_to_cpu,
        )
    )
    state[KEY] = _new_session(model, options)
    return state


@contextmanager
def closed_if_it_fails(state: State, video: Any) -> Iterator[None]:
    """Close a state that could not be completed; a live source of the caller's stays open."""
    try:
        yield
    except BaseException:
        if isinstance(video, LiveVideo):
            video.release()
        else:
            state.close()
        raise


def _open(video: Any, image_size: int, device: torch.device, options: Options) -> FrameBuffer:
    source = open_source(
        video, image_size, reader=options.reader, frames_per_chunk=options.frames_per_chunk
    )
    checks.live(source, options)
    in_float64 = options.async_loading_frames and isinstance(source, ImageFiles)
    if options.offload_video_to_cpu or in_float64:
        device = torch.device("cpu")
    if isinstance(source, LiveVideo):
        return LiveBuffer(source, image_size, options.frames_per_chunk, device)
    if options.frames is not None:
        try:
            source = SlicedSource(source, options.frames)
        except ValueError:
            source.close()
            raise
    dtype = torch.float64 if in_float64 else torch.float32
    return FrameBuffer(source, image_size, options.frames_per_chunk, device, dtype)


def _new_session(model: Model, options: Options) -> Session:
    reach, policy = _upstream.reach(model), options.memory_policy
    window = 2 * reach + 1 if options.memory_window is None else options.memory_window
    if window < reach:
        notices.small_window(window, reach)
    batches = None
    if options.batch_objects is not False:
        if options.batch_objects is True:
            size = best_batch_size(model.device, _upstream.num_positions(model))
        else:
            size = options.batch_objects
        batches = Batches(size)
    follower = None
    if policy is not None:
        follower = Follower(policy, _upstream.reach_of(model))
        if policy.num_paths > 1:
            _upstream.weigh_where_asked(model)
    memory = Memory(window, reach, options.max_prompt_frames)
    return Session(options, memory, batches, follower)
