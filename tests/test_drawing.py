"""Masks drawn over frames: ids, outlines that all can tell apart, and what is under them."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from longsam.masks import as_supervision, draw
from longsam.masks.drawing import COLOURS, TINT, colours_of

SIZE = (240, 320)

# What those see who lack one kind of cones: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHTS = {
    "all cones": np.eye(3),
    "no long": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "no medium": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "no short": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def cielab(colour: tuple[int, int, int], sight: np.ndarray) -> np.ndarray:
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    xyz = np.array(to_xyz) @ np.clip(sight @ linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart_without_one_kind_of_cones(sight: str) -> None:
    seen = [cielab(colour, SIGHTS[sight]) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 25


def box(row: int, column: int, side: int = 40) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_an_object_is_outlined_and_hardly_tinted() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    before = image.copy()
    mask = box(100, 150)
    drawn = draw(image, [1], mask[None])
    assert np.array_equal(image, before)
    assert (drawn[mask] == COLOURS[0]).all(axis=1).sum() == pytest.approx(4 * 39)
    inside = drawn[102:138, 152:188].astype(int)
    own = image[102:138, 152:188].astype(int)
    assert abs(inside - own).max() <= TINT * 255 + 1
    assert np.corrcoef(inside.ravel(), own.ravel())[0, 1] > 0.95
    far = np.ones(SIZE, bool)
    far[60:150, 100:240] = False
    assert np.array_equal(drawn[far], image[far])
    label = drawn[60:99, 100:240].astype(int) - image[60:99, 100:240]
    assert label.any()


def test_the_id_is_at_the_object_and_not_at_specks() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    mask = box(100, 150)
    specks = mask.copy()
    specks[3, 5] = specks[200, 310] = specks[120:122, 20] = True
    drawn = [draw(image, [1], one[None]) for one in (mask, specks)]
    beside = ~np.isin(np.arange(240), [2, 3, 4, 119, 120, 121, 122, 199, 200, 201])
    assert np.array_equal(drawn[0][beside], drawn[1][beside])
    wrong = draw(image, [1], mask[None], boxes=[(0, 0, 9, 9)])  # as a folder may hold it
    assert wrong[:40, :40].any()


def test_neighbours_never_share_a_colour() -> None:
    """Also of a hundred objects with numbers that would have the same."""
    places = [(r, c) for r in range(0, 200, 45) for c in range(0, 280, 45)]
    ids = [1 + 8 * n for n in range(len(places))]
    boxes = [(c, r, c + 40, r + 40) for r, c in places]
    colours = colours_of(ids, boxes)
    for one, other in itertools.combinations(range(len(ids)), 2):
        (r, c), (q, d) = places[one], places[other]
        if max(abs(r - q), abs(c - d)) <= 45:
            assert colours[one] != colours[other]
    assert colours_of([1, 2, 3], boxes[:3]) == list(COLOURS[:3])
    assert colours_of(["a", "b"], [None, boxes[0]]) == list(COLOURS[:2])


def test_logits_tensors_text_and_what_does_not_fit() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    masks = np.stack([box(0, 0), box(200, 290), np.zeros(SIZE, bool)])
    logits = torch.from_numpy(masks[:, None]).float() - 0.5
    logits[2] = torch.nan
    ids = ["ä" * 200, "\ud800", ""]
    drawn = draw(image, ids, logits)
    assert np.array_equal(drawn, draw(image, ids, masks))
    assert drawn.any()
    assert np.array_equal(draw(image, [], np.zeros((0, *SIZE), bool)), image)
    with pytest.raises(ValueError, match="320x240 pixels and there are 1 ids"):
        draw(image, [1], masks)
    with pytest.raises(ValueError, match="num_objects x height x width"):
        draw(image, [1], masks[0])


def test_as_supervision() -> None:
    masks = np.stack([box(0, 0), np.zeros(SIZE, bool), box(50, 60)])
    logits = torch.from_numpy(masks[:, None]).float() - 0.5
    detections = as_supervision([4, 5, 9], logits)
    assert detections.tracker_id.tolist() == [4, 9]
    assert detections.xyxy.tolist() == [[0, 0, 40, 40], [60, 50, 100, 90]]
    assert np.array_equal(detections.mask, masks[[0, 2]])
    with pytest.raises(ValueError, match=r"'bee' is text.*numbers=\{\}"):
        as_supervision(["bee", 5, 9], logits)
    numbers: dict[int | str, int] = {}
    first = as_supervision(["bee", 5, 2], logits, numbers=numbers)
    assert first.tracker_id.tolist() == [1, 2]
    later = as_supervision([2, "fly", "bee"], logits, numbers=numbers)
    assert later.tracker_id.tolist() == [2, 1]
    assert later.data["obj_id"].tolist() == [2, "bee"]
    assert as_supervision([7, 1, "bee"], logits, numbers=numbers).tracker_id.tolist() == [7, 1]
    empty = as_supervision([], np.zeros((0, *SIZE), bool))
    assert len(empty) == 0


def test_examples_draw_with_it() -> None:
    """None has colours or a blend of its own."""
    folder = Path(__file__).parents[1] / "examples"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.ipynb")]):
        text = path.read_text()
        assert not re.search(r"get_cmap|addWeighted", text), path.name
    assert "draw(image, obj_ids, masks)" in (folder / "long_video.ipynb").read_text()
