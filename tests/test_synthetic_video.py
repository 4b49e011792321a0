"""Generated videos: the same for the same seed, in any order, and what they promise to show."""

from pathlib import Path

import av
import numpy as np
import pytest

from longsam.testing import SyntheticVideo, iou

DIFFICULTIES = ("easy", "hard")


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_deterministic_and_in_any_order(difficulty: str) -> None:
    forward = SyntheticVideo(3, 1000, (96, 128), difficulty)
    frames = [forward.frame(i) for i in range(0, 1000, 83)]
    masks = [forward.masks(i) for i in range(0, 1000, 83)]
    longer = SyntheticVideo(3, 10**9, (96, 128), difficulty)
    for place, i in reversed(list(enumerate(range(0, 1000, 83)))):
        assert np.array_equal(longer.masks(i), masks[place])
        assert np.array_equal(longer.frame(i), frames[place])
    assert not np.array_equal(frames[0], frames[1])
    other = SyntheticVideo(4, 1000, (96, 128), difficulty)
    assert not np.array_equal(frames[0], other.frame(0))
    assert longer.frame(10**9 - 1).shape == (96, 128, 3)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_what_it_shows(difficulty: str) -> None:
    """Objects move, turn, change size, hide each other, leave and come back."""
    hidden = came_back = overlapped = 0
    for seed in range(6):
        video = SyntheticVideo(seed, 3000, (128, 128), difficulty)
        assert video.num_objects in ((2, 3) if difficulty == "easy" else (3, 4))
        assert video.visible(0).all(), f"seed {seed}: an object is hidden on frame 0"
        areas, centres = [], []
        for i in range(0, 3000, 10):
            masks = video.masks(i)
            assert masks.dtype == bool
            assert masks.shape == (video.num_objects, 128, 128)
            assert masks.sum(axis=0).max() <= 1, "masks overlap"
            areas.append(masks.sum(axis=(1, 2)))
            centres.append([m.nonzero()[0].mean() if m.any() else np.nan for m in masks])
        area = np.array(areas)
        visible = area >= 0.001 * 128 * 128
        assert np.array_equal(visible[-1], video.visible(2990))
        hidden += int((area == 0).any(axis=0).sum())
        came_back += sum(bool(v[np.argmin(v) :].any()) for v in visible.T if not v.all())
        largest = area.max(axis=0)
        overlapped += int(((area > 0) & (area < 0.3 * largest)).sum())
        assert (np.nanstd(np.array(centres), axis=0) > 5).all(), "objects stand still"
        assert visible.mean() > 0.6
    assert hidden >= 6
    assert came_back >= 6
    assert overlapped > 0


def test_lookalikes_share_their_colours() -> None:
    def hue_distances(difficulty: str) -> list[float]:
        nearest = []
        for seed in range(8):
            video = SyntheticVideo(seed, 1, difficulty=difficulty)
            colours = [video.frame(0)[m].mean(axis=0) for m in video.masks(0)]
            nearest.append(
                min(float(np.abs(a - b).sum()) for n, a in enumerate(colours) for b in colours[:n])
            )
        return nearest

    assert np.median(hue_distances("hard")) < 0.5 * np.median(hue_distances("easy"))


def test_prompts_lie_on_the_object() -> None:
    video = SyntheticVideo(5, 500)
    for i in (0, 123, 456):
        for number in np.flatnonzero(video.visible(i)):
            mask = video.masks(i)[number]
            x, y = video.click(i, number)
            assert mask[int(y), int(x)]
            x0, y0, x1, y1 = map(int, video.box(i, number))
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert mask[y0].any()
            assert mask[:, x1 - 1].any()


def test_written_file_is_h264_and_shows_the_frames(tmp_path: Path) -> None:
    video = SyntheticVideo(1, 40, (120, 160))
    video.write(tmp_path / "video.mp4")
    with av.open(tmp_path / "video.mp4") as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(decoded) == 40
    errors = [
        np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(decoded, video, strict=True)
    ]
    assert max(errors) < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"frame_size": (16, 256)}, "at least 32 pixels"),
        ({"difficulty": "medium"}, "'easy' or 'hard'"),
        ({"num_objects": 0}, "num_objects is 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"seed": 0, "num_frames": 10} | arguments
    with pytest.raises(ValueError, match=message):
        SyntheticVideo(**given)  # type: ignore[arg-type]


def test_bad_requests(tmp_path: Path) -> None:
    video = SyntheticVideo(0, 10, (65, 64))
    with pytest.raises(IndexError, match="frame 10 is not in 0 to 9"):
        video.frame(10)
    with pytest.raises(ValueError, match="there is no object 9"):
        video.click(0, 9)
    with pytest.raises(ValueError, match="even sides"):
        video.write(tmp_path / "odd.mp4")


def test_iou() -> None:
    truth = np.zeros((2, 4, 4), bool)
    truth[0, :2] = True
    mask = np.zeros((2, 4, 4), bool)
    mask[0, 1:3] = True
    assert iou(mask, truth).tolist() == [4 / 12, 1.0]
    assert iou(mask, truth[0]).tolist() == [4 / 12, 0.0]
    with pytest.raises(ValueError, match="same height, width"):
        iou(mask, np.zeros((4, 5), bool))
