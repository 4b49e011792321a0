"""Which frames are tracked, and in which order."""

import argparse
from collections.abc import Generator
from typing import Any

from longsam import Autosave, LongVideoPredictor, State
from longsam.cli import times
from longsam.frames import FrameSource
from longsam.masks.ids import ObjectId
from longsam.prompts import Grouped, Prompt

DIRECTIONS = ("forward", "reverse", "both")


def add_flags(parser: Any) -> None:
    which = parser.add_argument_group("which frames (indices are the video's own, from 0)")
    which.add_argument(
        "--start", type=times.moment, metavar="FRAME|TIME",
        help="the first frame, or its time: 1200, 01:02:03 or 90s (0)",
    )  # fmt: skip
    which.add_argument(
        "--end", type=times.moment, metavar="FRAME|TIME",
        help="the frame, or the time, before which to stop (the end of the video)",
    )  # fmt: skip
    which.add_argument(
        "--step", type=int, metavar="K",
        help="track every K-th frame, from --start on; prompts must be on one of them (1)",
    )  # fmt: skip
    order = which.add_mutually_exclusive_group()
    for name, text in (
        ("reverse", "track from the last frame with prompts back to --start (off)"),
        ("both", "track from the first frame with prompts to --end, then from there back (off)"),
    ):
        order.add_argument(
            f"--{name}", action="store_const", const=name, dest="direction", help=text
        )


def given(options: argparse.Namespace, source: FrameSource) -> slice | None:
    """The slice that the flags name; None for all frames.

    Raises:
        ValueError: It has no frame.
    """
    step = 1 if options.step is None else options.step
    if step < 1:
        raise ValueError(f"--step is {step}; it must be at least 1.")
    start = 0 if options.start is None else times.frame_at(source, options.start, "--start")
    stop = source.num_frames
    if options.end is not None and options.end.frame_idx != stop:
        stop = times.frame_at(source, options.end, "--end")
    if stop <= start:
        raise ValueError(f"--end is frame {stop}, which is not after --start, frame {start}.")
    if (start, stop, step) == (0, source.num_frames, 1):
        return None
    return slice(start, stop, step)


def check_flags_of_live(options: argparse.Namespace) -> None:
    """Refuse flags that a live source cannot follow.

    Raises:
        ValueError: There is such a flag.
    """
    for name in ("start", "end", "step", "direction"):
        value = getattr(options, name)
        if value is not None:
            flag = value if name == "direction" else name
            raise ValueError(f"--{flag}: a live source is tracked from now on, frame by frame.")


def in_state(grouped: Grouped, frames: range) -> dict[tuple[ObjectId, int], list[Prompt]]:
    """Prompts by the state's indices, which count only tracked frames.

    Raises:
        ValueError: A prompt is on none of them.
    """
    counted = {}
    for (obj_id, frame_idx), group in grouped.items():
        if frame_idx not in frames:
            near = _nearest(frames, frame_idx)
            raise ValueError(
                f"object {obj_id} has a prompt on frame {frame_idx}, which --start, --end and "
                f"--step leave out; frame {near} is tracked."
            )
        counted[obj_id, frames.index(frame_idx)] = group
    return counted


def _nearest(frames: range, frame_idx: int) -> int:
    frame_idx = min(max(frame_idx, frames[0]), frames[-1])
    return frames[(frame_idx - frames[0]) // frames.step]


def untracked(grouped: Grouped, frames: range, direction: str) -> str | None:
    """The frames that will get no masks, as a sentence."""
    prompted = [frame_idx for _, frame_idx in grouped]
    if direction == "forward" and min(prompted) > frames[0]:
        last = frames[frames.index(min(prompted)) - 1]
        return (
            f"frames {frames[0]} to {last} come before the first prompt and are not tracked "
            "(--both tracks them too)."
        )
    if direction == "reverse" and max(prompted) < frames[-1]:
        first = frames[frames.index(max(prompted)) + 1]
        return (
            f"frames {first} to {frames[-1]} come after the last prompt and are not tracked "
            "(--both tracks them too)."
        )
    return None


class Order:
    """The passes of a run, over indices of the state.

    Args:
        direction: One of `DIRECTIONS`.
        prompted: Frames with prompts.
    """

    def __init__(self, direction: str, prompted: list[int]):
        self.direction = direction
        self.first = max(prompted) if direction == "reverse" else min(prompted)

    def is_reverse(self, frame_idx: int) -> bool:
        """Whether a frame is tracked towards frame 0."""
        return self.direction == "reverse" or (self.direction == "both" and frame_idx < self.first)

    def num_frames(self, num_frames: int) -> int:
        """How many of a video's frames are tracked in all."""
        if self.direction == "forward":
            return num_frames - self.first
        return self.first + 1 if self.direction == "reverse" else num_frames

    def steps(
        self,
        predictor: LongVideoPredictor,
        state: State,
        *,
        is_resumed: bool,
        autosave: Autosave | None,
    ) -> Generator[Any, None, None]:
        """All passes of a new run, or the rest of them.

        Args:
            predictor: The predictor.
            state: Fresh, with all prompts, or loaded.
            is_resumed: Whether it was loaded.
            autosave: As in `propagate_in_video`.

        Yields:
            As `propagate_in_video`.
        """
        was_reverse = is_resumed and self.is_reverse(state.last_frame_idx)
        if is_resumed:
            yield from predictor.resume_propagation(state, autosave=autosave, progress_bar=False)
        else:
            yield from predictor.propagate_in_video(
                state,
                self.first,
                reverse=self.direction == "reverse",
                autosave=autosave,
                progress_bar=False,
            )
        if self.direction == "both" and self.first > 0 and not was_reverse:
            yield from predictor.propagate_in_video(
                state, self.first - 1, reverse=True, autosave=autosave, progress_bar=False
            )
