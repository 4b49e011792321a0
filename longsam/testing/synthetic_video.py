"""Videos with known answers: textured objects that move in front of a moving background.

Every frame is computed from the seed and its index alone. So a video can have any length, can be
read in any order, and keeps only its textures in memory.
"""

import colorsys
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

FrameArray = npt.NDArray[np.uint8]
MaskArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Texture = Callable[[FloatArray, FloatArray], FloatArray]

VISIBLE_FRACTION = 0.001
"""An object counts as visible when at least this fraction of the frame's pixels shows it."""


@dataclass(frozen=True)
class Difficulty:
    """The contents of a world; lengths are fractions of the frame's shorter side."""

    num_objects: tuple[int, int]
    radius: tuple[float, float]
    frames_per_knot: tuple[float, float]  # after this many frames an object heads for a new place
    leaves: float  # the probability that this place is outside
    background_saturation: float
    lookalikes: int = 0  # objects that resemble another one
    distractors: int = 0  # moving things that are not objects
    occluders: int = 0  # slabs that move before everything
    clutter: int = 0  # small still things on the background


DIFFICULTIES = {
    "easy": Difficulty((2, 3), (0.13, 0.20), (50, 80), 0.15, 0.3),
    "hard": Difficulty((3, 4), (0.10, 0.17), (35, 60), 0.2, 0.6, 1, 1, 1, 10),
}


class SyntheticVideo:
    """A generated video whose masks are known; the same seed gives the same video.

    Give it to `init_state` as it is (it has `len` and `[]`), or write it to a file first.

    Args:
        seed: Any integer of 0 or more.
        num_frames: The length; costs nothing until frames are asked for.
        frame_size: Height and width in pixels, each at least 32.
        difficulty: "easy" has two or three objects of different colours that move, turn, change
            size, pass in front of each other, leave and come back. "hard" has three or four smaller
            and faster ones, two of which look alike, and also clutter, a moving thing that is not
            an object, and a slab that passes in front of them all.
        num_objects: How many objects; None lets the seed decide.
        still_background: The camera stands still. The testing model was trained on moving ones.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        seed: int,
        num_frames: int,
        frame_size: tuple[int, int] = (256, 256),
        difficulty: str = "easy",
        *,
        num_objects: int | None = None,
        still_background: bool = False,
    ):
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more")
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; it must be at least 1")
        if min(frame_size) < 32:
            raise ValueError(f"frame_size is {frame_size}; both must be at least 32 pixels")
        if difficulty not in DIFFICULTIES:
            known = " or ".join(map(repr, DIFFICULTIES))
            raise ValueError(f"difficulty is {difficulty!r}; it must be {known}")
        if num_objects is not None and not 1 <= num_objects <= 100:
            raise ValueError(f"num_objects is {num_objects}; it must be from 1 to 100")
        self.seed = seed
        self.num_frames = num_frames
        self.frame_size = frame_size
        self.difficulty = difficulty
        self.still_background = still_background

        world = DIFFICULTIES[difficulty]
        rng = np.random.default_rng(seed)
        fewest, most = world.num_objects
        drawn = fewest + int(rng.random() * (most + 1 - fewest))
        self.num_objects = num_objects or drawn
        looks = _looks(rng, world, self.num_objects)
        self._background = _background(rng, world, frame_size)
        self._sprites = [_sprite(rng, look, frame_size) for look in looks]
        self._motion = _Motion(rng, world, looks, self.num_objects, frame_size)
        self._rendered: tuple[int, FrameArray, npt.NDArray[np.int8]] | None = None

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> FrameArray:
        return self.frame(index)

    def __iter__(self) -> Iterator[FrameArray]:
        return (self.frame(i) for i in range(self.num_frames))

    def frame(self, index: int) -> FrameArray:
        """The frame as uint8 RGB, height x width x 3.

        Raises:
            IndexError: The index is not from 0 to num_frames - 1.
        """
        return self._render(index)[0].copy()

    def masks(self, index: int) -> MaskArray:
        """The visible part of each object: bool, num_objects x height x width; no two overlap."""
        labels = self._render(index)[1]
        numbers: npt.NDArray[np.int8] = np.arange(self.num_objects, dtype=np.int8)[:, None, None]
        masks: MaskArray = labels == numbers
        return masks

    def visible(self, index: int) -> MaskArray:
        """Which objects cover at least a thousandth of the frame: bool, (num_objects,)."""
        height, width = self.frame_size
        shown: MaskArray = self.masks(index).sum(axis=(1, 2)) >= VISIBLE_FRACTION * height * width
        return shown

    def click(self, index: int, object_index: int) -> tuple[float, float]:
        """The pixel (x, y) deepest inside the visible part of an object.

        Raises:
            ValueError: The object is not visible on that frame.
        """
        mask = self._mask_of(index, object_index)
        depth = np.zeros(mask.shape, np.int32)
        left = np.pad(mask, 1)
        while left.any():  # erode by one pixel until nothing is left
            depth += left[1:-1, 1:-1]
            core = left[1:-1, 1:-1] & left[:-2, 1:-1] & left[2:, 1:-1]
            left[1:-1, 1:-1] = core & left[1:-1, :-2] & left[1:-1, 2:]
        rows, columns = np.nonzero(depth == depth.max())
        middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        return float(columns[middle]), float(rows[middle])

    def box(self, index: int, object_index: int) -> tuple[float, float, float, float]:
        """The box (x0, y0, x1, y1) in pixels around the visible part of an object.

        Raises:
            ValueError: The object is not visible on that frame.
        """
        rows, columns = np.nonzero(self._mask_of(index, object_index))
        return (
            float(columns.min()),
            float(rows.min()),
            float(columns.max() + 1),
            float(rows.max() + 1),
        )

    def write(self, path: str | os.PathLike[str], *, frame_rate: int = 30, crf: int = 18) -> None:
        """Encode the video as H.264 (4:2:0), in the container that the path's suffix names.

        Args:
            path: Overwritten if it exists.
            frame_rate: Frames a second.
            crf: x264's constant rate factor; at 18 differences are hardly visible.

        Raises:
            ValueError: A side of the frame is odd, which 4:2:0 cannot hold.
        """
        height, width = self.frame_size
        if height % 2 or width % 2:
            raise ValueError(f"frame_size is {self.frame_size}; H.264 needs even sides")
        with av.open(os.fspath(path), "w") as output:
            options = {"crf": str(crf), "preset": "veryfast"}
            stream: Any = output.add_stream("libx264", rate=Fraction(frame_rate), options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in self:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            output.mux(stream.encode(None))

    def _mask_of(self, index: int, object_index: int) -> MaskArray:
        if not 0 <= object_index < self.num_objects:
            raise ValueError(
                f"there is no object {object_index}; this video has 0 to {self.num_objects - 1}"
            )
        mask: MaskArray = self._render(index)[1] == object_index
        if not mask.any():
            raise ValueError(f"object {object_index} is not visible on frame {index}")
        return mask

    def _render(self, index: int) -> tuple[FrameArray, npt.NDArray[np.int8]]:
        if not 0 <= index < self.num_frames:
            raise IndexError(f"frame {index} is not in 0 to {self.num_frames - 1}")
        rendered = self._rendered  # another thread may render another frame meanwhile
        if rendered is None or rendered[0] != index:
            rendered = self._rendered = (index, *self._draw(index))
        return rendered[1:]

    def _draw(self, index: int) -> tuple[FrameArray, npt.NDArray[np.int8]]:
        height, width = self.frame_size
        places = self._motion.at(index)
        x, y, _, scale = self._motion.at(0)[-1] if self.still_background else places[-1]
        spare_x, spare_y = self._background.width - width, self._background.height - height
        window_x, window_y = width + 0.4 * spare_x * scale, height + 0.4 * spare_y * scale
        left, top = (
            x * (self._background.width - window_x),
            y * (self._background.height - window_y),
        )
        frame = self._background.resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, left + window_x, top + window_y)
        )
        labels = np.full((height, width), -1, np.int8)
        for sprite, (x, y, angle, scale) in zip(self._sprites, places, strict=False):
            half = sprite.radius * scale + 1
            left, top = max(0, int(x - half)), max(0, int(y - half))
            right, bottom = min(width, int(x + half) + 2), min(height, int(y + half) + 2)
            if left >= right or top >= bottom:
                continue
            cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
            centre = sprite.image.width / 2
            affine = (
                *(cos, sin, centre - cos * (x - left) - sin * (y - top)),
                *(-sin, cos, centre + sin * (x - left) - cos * (y - top)),
            )
            drawn = sprite.image.transform(
                (right - left, bottom - top),
                Image.Transform.AFFINE,
                affine,
                Image.Resampling.BILINEAR,
            )
            alpha = drawn.getchannel("A")
            frame.paste(drawn, (left, top), alpha)
            labels[top:bottom, left:right][np.asarray(alpha) >= 128] = sprite.label
        return np.asarray(frame), labels


@dataclass(frozen=True)
class _Look:
    """What a moving thing looks like, before it is drawn."""

    label: int  # the object's index, -1 if it is not an object
    radius: float
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]  # RGB, 0 to 1
    pattern: int
    fineness: float
    outline: tuple[float, ...]
    slab: bool = False


@dataclass(frozen=True)
class _Sprite:
    label: int
    radius: float  # pixels
    image: Image.Image  # RGBA


def _looks(rng: np.random.Generator, world: Difficulty, num_objects: int) -> list[_Look]:
    """Draws each mover, in the order in which they lie over each other."""

    def new(label: int, hue: float) -> _Look:
        light, dark = (0.75 + 0.25 * rng.random(), 0.25 + 0.3 * rng.random())
        other_hue = hue + 0.12 * (rng.random() - 0.5)
        saturation = 0.6 + 0.4 * rng.random()
        colours = (
            colorsys.hsv_to_rgb(hue % 1, saturation, light),
            colorsys.hsv_to_rgb(other_hue % 1, saturation, dark),
        )
        return _Look(
            label,
            world.radius[0] + rng.random() * (world.radius[1] - world.radius[0]),
            colours if rng.random() < 0.5 else colours[::-1],
            int(rng.random() * 4),
            3 + 3 * rng.random(),
            tuple(rng.random(8)),
        )

    first_hue = rng.random()
    total = num_objects + world.distractors
    looks = [
        new(label, first_hue + (label + 0.3 * rng.random()) / total) for label in range(num_objects)
    ]
    for _ in range(min(world.lookalikes, num_objects - 1)):
        twin, other = (int(rng.random() * num_objects) for _ in range(2))
        if twin == other:
            other = (twin + 1) % num_objects
        model, own = looks[twin], looks[other]
        looks[other] = _Look(
            other, own.radius, model.colours, model.pattern, model.fineness, own.outline
        )
    looks += [new(-1, rng.random()) for _ in range(world.distractors)]
    looks = [looks[i] for i in np.argsort(rng.random(len(looks)))]
    for _ in range(world.occluders):
        grey = 0.2 + 0.6 * rng.random()
        tint = colorsys.hsv_to_rgb(rng.random(), 0.2 * rng.random(), grey)
        other_tint = colorsys.hsv_to_rgb(rng.random(), 0.2 * rng.random(), 0.8 * grey)
        looks.append(
            _Look(
                -1,
                0.4 + 0.2 * rng.random(),
                (tint, other_tint),
                int(rng.random() * 4),
                8.0,
                tuple(rng.random(8)),
                slab=True,
            )
        )
    return looks


def _sprite(rng: np.random.Generator, look: _Look, frame_size: tuple[int, int]) -> _Sprite:
    radius = max(4.0, look.radius * min(frame_size))
    side = 2 * (int(radius) + 2)
    axis = (np.arange(side) + 0.5 - side / 2) / radius
    x, y = np.meshgrid(axis, axis)
    if look.slab:
        half_width = 0.2 + 0.12 * look.outline[0]
        inside = radius * np.minimum(half_width - abs(x), 0.94 - abs(y))
    else:
        inside = radius * (_reach(look.outline, np.arctan2(y, x)) - np.hypot(x, y))
    alpha = np.clip(inside + 0.5, 0, 1)
    mixture = _pattern(rng, look.pattern, look.fineness, x, y)[..., None]
    first, second = (np.array(colour) for colour in look.colours)
    rgb = first * mixture + second * (1 - mixture)
    rgba = np.concatenate([rgb, alpha[..., None]], axis=2) * 255
    return _Sprite(look.label, radius, Image.fromarray(rgba.astype(np.uint8)))


def _reach(outline: tuple[float, ...], angle: FloatArray) -> FloatArray:
    """How far a shape reaches in each direction, at most 1: a smooth blob or a star."""
    kind, corners, *rest = outline
    wave = np.zeros_like(angle)
    if kind < 0.5:
        for k, (size, phase) in enumerate(zip(rest[0::2], rest[1::2], strict=True), start=2):
            wave += size / k * np.cos(k * angle + 2 * np.pi * phase)
        depth = 0.35
    else:
        wave = np.cos((3 + int(3 * corners)) * angle)
        depth = 0.1 + 0.15 * rest[0]
    return 1 - depth * (1 - wave) / 2


def _pattern(
    rng: np.random.Generator, kind: int, fineness: float, x: FloatArray, y: FloatArray
) -> FloatArray:
    """How much of the first colour each point gets, 0 to 1."""
    turn, phase = np.pi * rng.random(), 2 * np.pi * rng.random()
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    if kind == 0:  # stripes
        wave = np.sin(fineness * u * 2 + phase)
    elif kind == 1:  # checks
        wave = np.sin(fineness * u * 1.5 + phase) * np.sin(fineness * v * 1.5 + phase) * 1.5
    elif kind == 2:  # rings
        wave = np.sin(fineness * np.hypot(x, y) * 2 + phase)
    else:  # blotches
        size = 2 + int(fineness)
        wave = 3 * _noise(rng, x.shape, size) - 1.5
    mixture: FloatArray = np.clip(0.5 + 1.2 * wave, 0, 1)
    return mixture


def _noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> FloatArray:
    """Smooth noise from 0 to 1: a small random picture, enlarged."""
    small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    large = small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    noise: FloatArray = np.clip(np.asarray(large), 0, 1).astype(np.float64)
    return noise


def _background(
    rng: np.random.Generator, world: Difficulty, frame_size: tuple[int, int]
) -> Image.Image:
    height, width = (int(1.5 * side) for side in frame_size)
    mixture = sum(
        _noise(rng, (height, width), cells)[..., None] * share
        for cells, share in ((5, 0.5), (14, 0.3), (45, 0.2))
    )
    mixture = np.clip(0.5 + 1.8 * (np.asarray(mixture) - 0.5), 0, 1)
    value = 0.3 + 0.5 * rng.random()
    colours = [
        np.array(
            colorsys.hsv_to_rgb(
                rng.random(), world.background_saturation * rng.random(), value + change
            )
        )
        for change in (-0.2, 0.2)
    ]
    image = Image.fromarray(
        ((colours[0] * mixture + colours[1] * (1 - mixture)) * 255).astype(np.uint8)
    )
    for _ in range(world.clutter):
        (look,) = _looks(rng, Difficulty((1, 1), (0.03, 0.07), (1, 1), 0, 0), 1)
        sprite = _sprite(rng, look, frame_size)
        at = (int(rng.random() * width - sprite.radius), int(rng.random() * height - sprite.radius))
        image.paste(sprite.image, at, sprite.image)
    return image


class _Motion:
    """The position of everything at any time: smooth curves through points hashed from the seed."""

    def __init__(
        self,
        rng: np.random.Generator,
        world: Difficulty,
        looks: list[_Look],
        num_objects: int,
        frame_size: tuple[int, int],
    ):
        height, width = frame_size
        count = len(looks) + 1  # the background is the last mover
        short = min(frame_size)
        self._size = np.array([width, height], np.float64)
        self._key = np.uint64(int(rng.random() * 2**53))
        low, high = world.frames_per_knot
        self._frames_per_knot = low + (high - low) * rng.random(count)
        self._frames_per_knot[-1] *= 4
        margin = np.array([1.25 * look.radius + 0.03 for look in looks] + [0.0])
        self._margin = margin[:, None] * short / self._size  # as fractions of width and height
        self._start = _apart(rng, looks, self._size / short)
        slab = np.array([look.slab for look in looks] + [False])
        self._leaves = np.where(slab, 0.5, world.leaves)
        self._leaves[-1] = 0
        self._turns = np.where(slab, 0.4, 1.5)
        self._inset = np.where(slab, 0.0, 0.12)
        self._inset[-1] = 0

    def at(self, index: int) -> FloatArray:
        """x, y (pixels), angle (radians) and scale of each mover; x, y of the last: fractions."""
        time = index / self._frames_per_knot
        knot = np.floor(time).astype(np.int64)
        t = (time - knot)[:, None]
        before, now, after, later = self._knots(knot)
        place: FloatArray = now + 0.5 * t * (  # Catmull-Rom
            after
            - before
            + t
            * (2 * before - 5 * now + 4 * after - later + t * (3 * (now - after) + later - before))
        )
        place[:-1, :2] *= self._size
        place[-1] = np.clip(place[-1], 0, 1)
        return place

    def _knots(self, knot: npt.NDArray[np.int64]) -> FloatArray:
        """The four points around the present, 4 x movers x (x, y, angle, scale)."""
        movers = np.arange(len(knot))
        knots = knot + np.arange(-1, 3)[:, None]
        draws = _hashed(self._key, knots[..., None], movers[:, None], np.arange(6))
        inset = self._inset[:, None]
        place = inset + draws[..., :2] * (1 - 2 * inset)
        # Outside: one coordinate is beyond an edge, far enough to be gone for a while.
        outside = draws[..., 2] < self._leaves
        side = (draws[..., 3] * 4).astype(np.int64)
        beyond = self._margin + 0.15
        for edge in range(4):
            axis = edge % 2
            gone = outside & (side == edge)
            edge_at = -beyond[:, axis] if edge < 2 else 1 + beyond[:, axis]
            place[..., axis] = np.where(gone, edge_at, place[..., axis])
        place[:, :-1] = np.where((knots == 0)[:, :-1, None], self._start, place[:, :-1])
        angle = self._turns * (2 * draws[..., 4] - 1)
        scale = 0.8 + 0.4 * draws[..., 5]
        scale[:, -1] = draws[:, -1, 5]
        return np.concatenate([place, angle[..., None], scale[..., None]], axis=-1)


def _apart(rng: np.random.Generator, looks: list[_Look], aspect: FloatArray) -> FloatArray:
    """Places for frame 0, the best of several draws: no object hides another."""
    radii = np.array([look.radius for look in looks])
    slabs = np.array([look.slab for look in looks])
    apart_from = radii[:, None] + radii[None] + 0.02
    np.fill_diagonal(apart_from, -np.inf)
    best, best_gap = None, -np.inf
    for _ in range(60):
        places = 0.16 + 0.68 * rng.random((len(looks), 2))
        places[slabs] = -1.0  # slabs appear later
        distance = np.hypot(*np.moveaxis((places[:, None] - places[None]) * aspect, -1, 0))
        gap = (distance - apart_from).min()
        if gap > best_gap:
            best, best_gap = places, gap
    assert best is not None
    return best


def _hashed(key: np.uint64, *numbers: npt.NDArray[np.int64]) -> FloatArray:
    """A number from 0 to 1 for every combination of the integers, by splitmix64."""
    with np.errstate(over="ignore"):
        mixed: npt.NDArray[np.uint64] = np.asarray(key)
        for number in numbers:
            mixed = (mixed ^ number.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    uniform: FloatArray = np.divide(mixed >> np.uint64(11), 2.0**53)
    return uniform
