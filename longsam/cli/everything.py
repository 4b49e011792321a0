"""`longsam track --everything`: objects found without prompts."""

import argparse
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from longsam import Autosave, LongVideoPredictor, State
from longsam.cli.usage import UsageError
from longsam.frames import FrameSource

Step = tuple[int, list[Any], Any]
"""Frame index, object ids, mask logits."""

MOST = MappingProxyType({"points_per_side": 1000, "points_per_batch": 1024})
"""The most points: a run's folder may come from somebody else, and more would take all memory."""


@dataclass(frozen=True)
class Everything:
    """What is looked for, and how often; the flags have the same defaults.

    Args:
        detect_every: Things are looked for on every `detect_every`-th tracked frame.
        min_area: Smaller things are left out, in pixels; None is 0.1 % of the frame.
        max_area: Larger ones too; None is 50 % of it.
        min_hits: How often in a row a thing must be found before it is written.
        retire_after: An object is dropped after its mask was empty for this many frames.
        max_objects: The most objects tracked at once; None is no limit.
        points_per_side: Of the grid that is prompted.
        points_per_batch: How many are prompted at once.
        pred_iou_thresh: The lowest predicted IoU of a mask.
        stability_score_thresh: The lowest stability of a mask.
    """

    detect_every: int = 30
    min_area: int | None = None
    max_area: int | None = None
    min_hits: int = 1
    retire_after: int = 100
    max_objects: int | None = None
    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            default = getattr(Everything, name)
            if value is None and default is None:
                continue
            if isinstance(default, float):
                is_right = type(value) in (int, float) and 0 <= value <= 1
            else:
                is_right = type(value) is int and value >= (0 if "area" in name else 1)
                is_right = is_right and value <= MOST.get(name, value)
            if not is_right:
                raise ValueError(f"{name} is {value!r}")

    def areas(self, num_pixels: int) -> tuple[float, float]:
        """The smallest and the largest area, as shares of a frame.

        Raises:
            UsageError: No thing can have both.
        """
        least, most = self.min_area, self.max_area
        if least is not None and least > num_pixels:
            raise UsageError(
                f"--min-area is {least} pixels, but a frame has {num_pixels:,}; give less."
            )
        # Half a pixel below: rounding must not leave out a mask of exactly this area.
        low = 0.001 if least is None else max(0, least - 0.5) / num_pixels
        high = 0.5 if most is None else min(1.0, (most + 0.5) / num_pixels)
        if low >= high:
            at_least = least if least is not None else f"{low * num_pixels:.0f} (the default)"
            at_most = most if most is not None else f"{high * num_pixels:.0f} (the default)"
            raise UsageError(
                f"--min-area is {at_least} and --max-area {at_most} pixels; the first must be the "
                "smaller one."
            )
        return low, high

    def check(self, frame_size: tuple[int, int]) -> None:
        """Refuse obvious mistakes before a model is loaded.

        Raises:
            UsageError: Nothing can be both large and small enough.
            ImportError: scipy, which no other command needs, is missing.
        """
        import longsam.detections  # noqa: F401

        self.areas(frame_size[0] * frame_size[1])

    @property
    def max_prompt_frames(self) -> int:
        """As in `track_detections`: how many frames with prompts are kept for each object."""
        from longsam.detections.run import MAX_PROMPT_FRAMES

        return MAX_PROMPT_FRAMES

    def steps(
        self,
        predictor: LongVideoPredictor,
        state: State,
        video: Any,
        *,
        is_resumed: bool = False,
        autosave: Autosave | None = None,
    ) -> Generator[Step, None, None]:
        """A new run, or the rest of one.

        Args:
            predictor: What finds and tracks.
            state: Fresh, or loaded.
            video: What the state is of, or its frames in their own size.
            is_resumed: Whether the state was loaded; it then has the settings.
            autosave: As in `propagate_in_video`.

        Yields:
            As `propagate_in_video`.
        """
        from longsam.detections import everything, resume_detections, track_detections

        height, width = state.source.frame_size
        min_area, max_area = self.areas(height * width)
        detector = everything(
            predictor,
            min_area=min_area,
            max_area=max_area,
            points_per_side=self.points_per_side,
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.pred_iou_thresh,
            stability_score_thresh=self.stability_score_thresh,
        )
        if is_resumed:
            steps = resume_detections(predictor, state, detector, video=video, autosave=autosave)
        else:
            steps = track_detections(
                predictor,
                video,
                detector,
                detect_every=self.detect_every,
                min_score=0,  # the two thresholds come from flags
                min_hits=self.min_hits,
                retire_after=self.retire_after,
                max_objects=self.max_objects,
                autosave=autosave,
                state=state,
            )
        return _without_labels(steps)


def _without_labels(steps: Generator[Any, None, None]) -> Generator[Step, None, None]:
    with closing(steps):
        for frame_idx, obj_ids, mask_logits, _ in steps:
            yield frame_idx, obj_ids, mask_logits


def times(state: State, source: FrameSource) -> Callable[[int], float | None]:
    """The time stamps of a state's frames.

    Args:
        state: It reads no frames while there are no objects.
        source: The whole video, which is read then.
    """

    def time_of(frame_idx: int) -> float | None:
        time = state.source.time(frame_idx)
        return source.time(state.source.frames[frame_idx]) if time is None else time

    return time_of


NAMES = tuple(field.name for field in fields(Everything))


def add_flags(parser: Any) -> None:
    group = parser.add_argument_group(
        "everything: all things that the model finds, without prompts"
    )
    group.add_argument(
        "--everything", action="store_true",
        help="find the objects instead of being told where they are: the model is prompted with a "
        "grid of points, as upstream's SAM2AutomaticMaskGenerator does; objects are numbered from "
        "1 (off)",
    )  # fmt: skip
    for flag, parse, metavar, text in (
        ("detect-every", _number(1), "FRAMES",
         "look for new things on every Nth tracked frame; each time takes longer than "
         "tracking many frames (30)"),
        ("min-area", _number(0), "PIXELS",
         "leave out things smaller than this (0.1 %% of a frame)"),
        ("max-area", _number(0), "PIXELS",
         "leave out things larger than this, such as the background (50 %% of a frame)"),
        ("min-hits", _number(1), "N",
         "how many times in a row a thing must be found before it is written: 2 leaves out what "
         "was found by chance, and has no masks before frame FRAMES of --detect-every (1)"),
        ("retire-after", _number(1), "FRAMES",
         "drop an object whose mask was empty for this many frames; if it comes back, it is a "
         "new one (100)"),
        ("max-objects", _number(1), "N",
         "track at most this many at a time; memory and time grow with their number (no limit)"),
        ("points-per-side", _number(1, MOST["points_per_side"]), "N",
         "of the grid; small things need more points (32)"),
        ("points-per-batch", _number(1, MOST["points_per_batch"]), "N",
         "points prompted at once; 64 briefly take 3 GB at 1920 x 1080, fewer take less (64)"),
        ("pred-iou-thresh", _share, "SHARE",
         "leave out masks with a lower predicted IoU, 0 to 1 (0.8)"),
        ("stability-score-thresh", _share, "SHARE",
         "leave out masks that are less stable when the threshold of their logits moves, 0 to 1 "
         "(0.95)"),
    ):  # fmt: skip
        group.add_argument(f"--{flag}", type=parse, metavar=metavar, help=text)


def given(options: argparse.Namespace) -> Everything | None:
    """The flags' settings; None without --everything.

    Raises:
        UsageError: A flag needs --everything, or cannot be combined with it.
    """
    values = flags_of(options)
    if not options.everything:
        for name in values:
            raise UsageError(f"{_flag(name)} is only for --everything; leave it out, or give both.")
        return None
    _check_alone(options)
    return Everything(**values)


def flags_of(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given."""
    return {name: getattr(options, name) for name in NAMES if getattr(options, name) is not None}


def check_resumed(options: argparse.Namespace, recorded: dict[str, Any] | None) -> None:
    """Refuse flags that differ from those of the resumed run.

    Raises:
        UsageError: A flag differs.
    """
    out, values = options.out, flags_of(options)
    if recorded is None:
        if options.everything or values:
            name = "--everything" if options.everything else _flag(next(iter(values)))
            raise UsageError(
                f"{name}: the run in {out} tracks what its prompts name; leave {name} out to "
                "resume it."
            )
        return
    _check_alone(options)
    for name, value in values.items():
        if value != recorded[name]:
            before = "the default" if recorded[name] is None else recorded[name]
            raise UsageError(
                f"{_flag(name)}: the run in {out} has {before}, so it would not be resumed as it "
                f"was; leave {_flag(name)} out."
            )


def _check_alone(options: argparse.Namespace) -> None:
    """Refuse flags that --everything cannot use."""
    for flag, value, why in (
        (
            "--point, --box, --mask and --prompts",
            options.prompt or options.prompts,
            "it finds the objects itself",
        ),
        (
            f"--{options.direction}",
            options.direction,
            "it looks for new things only in forward order",
        ),
        (
            "--vos-optimized",
            options.vos_optimized,
            "a compiled model cannot be prompted with a grid",
        ),
        (
            "--snapshot-every",
            options.snapshot_every,
            "it keeps no snapshots, and `longsam correct` cannot correct it",
        ),
        (
            "--format png",
            "png" in (options.format or []),
            "its images hold 255 objects, and there may be more; give rle or object_png",
        ),
    ):
        if value:
            raise UsageError(f"{flag} cannot be combined with --everything: {why}. Leave it out.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(least: int, most: int = 10**9) -> Callable[[str], int]:
    def parse(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not (is_number and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a whole number from {least} to {most}"
            )
        return int(text)

    return parse


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return share
