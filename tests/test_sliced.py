"""`init_state(frames=slice(...))`: the masks of upstream on a video of these frames alone."""

from pathlib import Path

import numpy as np
import pytest
import videos
from sam2.sam2_video_predictor import SAM2VideoPredictor
from test_exact import assert_equal, click, outputs

from longsam import LiveVideo, LongVideoPredictor
from longsam.frames import Reader, SlicedSource, open_source
from longsam.masks import MaskFolder, MaskWriter


def calls(predictor: SAM2VideoPredictor, state: object):  # type: ignore[no-untyped-def]
    yield click(predictor, state, 6)
    yield from predictor.propagate_in_video(state)
    yield from predictor.propagate_in_video(state, start_frame_idx=5, reverse=True)


@pytest.mark.parametrize("which", [slice(10, 40), slice(None, None, 3), slice(8, 90, 4)])
@pytest.mark.parametrize("kind", ["mp4", "jpegs"])
def test_masks_are_upstreams_on_these_frames_alone(
    kind: str,
    which: slice,
    mp4: Path,
    jpegs: Path,
    tmp_path: Path,
    upstream: SAM2VideoPredictor,
    ours: LongVideoPredictor,
) -> None:
    if kind == "jpegs":
        for number, path in enumerate(
            sorted(jpegs.iterdir(), key=lambda path: int(path.stem))[which]
        ):
            (tmp_path / f"{number:05d}.jpg").symlink_to(path)
        theirs = outputs(upstream, tmp_path, calls)
    else:
        # Without loss, so that the frames of the shorter video are those of the longer one.
        options = {"qp": "0", "g": "12"}
        mp4 = videos.write_video(tmp_path / "all.mp4", 100, options=options, pix_fmt="yuv444p")
        kept = list(videos.frames(100))[which]
        short = videos.write_video(
            tmp_path / "short.mp4", options=options, pix_fmt="yuv444p", source=kept
        )
        theirs = outputs(upstream, short, calls)
    own = outputs(ours, mp4 if kind == "mp4" else jpegs, calls, frames=which)
    assert_equal(theirs, own)
    assert len(own) == len(range(100)[which]) + 1  # and what the click gave


@pytest.mark.parametrize("reader", ["av", "decord"])
def test_frames_are_those_of_the_video(mp4: Path, reader: Reader) -> None:
    whole = open_source(mp4, 64, reader=reader, frames_per_chunk=8)
    every = list(whole.read(0, 100))
    for which in (slice(5, 50, 7), slice(30, None), slice(90, 500), slice(None, 3)):
        sliced = SlicedSource(open_source(mp4, 64, reader=reader, frames_per_chunk=8), which)
        assert list(sliced.frames) == list(range(100)[which])
        assert sliced.num_frames == len(sliced.frames)
        expected = every[which]
        for start, stop in ((0, sliced.num_frames), (1, 3), (sliced.num_frames - 1,) * 2):
            got = list(sliced.read(start, stop))
            assert len(got) == len(expected[start:stop])
            assert all(map(np.array_equal, got, expected[start:stop]))
        if whole.frame_rate is not None:
            assert sliced.frame_rate == whole.frame_rate / sliced.frames.step
        sliced.close()
    whole.close()


def test_a_save_has_its_frames(mp4: Path, tmp_path: Path, ours: LongVideoPredictor) -> None:
    with ours.init_state(mp4, frames=slice(10, 60, 2)) as state:
        click(ours, state, 3)
        steps = ours.propagate_in_video(state)
        for _ in range(6):
            next(steps)
        ours.save_state(state, tmp_path / "state.pt")
        expected = [(i, logits.clone()) for i, _, logits in steps]
    with ours.load_state(tmp_path / "state.pt") as state:
        assert list(state.source.frames) == list(range(10, 60, 2))
        again = list(ours.resume_propagation(state))
    assert [i for i, _ in expected] == [i for i, _, _ in again] == list(range(9, 25))
    assert all((a == b).all() for (_, a), (_, _, b) in zip(expected, again, strict=True))


def test_masks_on_disk_have_the_videos_own_indices(
    mp4: Path, tmp_path: Path, ours: LongVideoPredictor
) -> None:
    with ours.init_state(mp4, frames=slice(10, 60, 5)) as state:
        click(ours, state)
        frames = state.source.frames
        with MaskWriter(tmp_path / "out", ["rle", "overlay"], video=mp4, frames=frames) as writer:
            for number, step in enumerate(ours.propagate_in_video(state)):
                writer.write(*step)
                if number == 5:
                    ours.save_state(state, tmp_path / "state.pt")
        assert MaskFolder(tmp_path / "out").frames == list(range(10, 60, 5))
    with ours.load_state(tmp_path / "state.pt") as state:
        writer = MaskWriter(
            tmp_path / "out", ["rle", "overlay"], video=mp4, resume=state, frames=frames
        )
        assert writer.last_frame_idx == 35
        with writer:
            for step in ours.resume_propagation(state):
                writer.write(*step)
    assert MaskFolder(tmp_path / "out").frames == list(range(10, 60, 5))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (slice(0, 10, -1), "reverse=True"),
        (slice(-5, None), "numbers from 0 on"),
        (slice(0, 10, 0), "numbers from 0 on"),
        (slice(0.5, 10), "numbers from 0 on"),
        ((0, 10), "must be slice"),
        (slice(100, None), "selects no frame of"),
        (slice(20, 10), "it has 100 frames, 0 to 99"),
    ],
)
def test_other_slices_are_refused(
    which: object, message: str, mp4: Path, ours: LongVideoPredictor
) -> None:
    with pytest.raises(ValueError, match=message):
        ours.init_state(mp4, frames=which)  # type: ignore[arg-type]


def test_a_live_source_has_no_slice(ours: LongVideoPredictor) -> None:
    live = LiveVideo(iter(videos.frames(3)))
    with pytest.raises(ValueError, match="is live"):
        ours.init_state(live, frames=slice(0, 2))
    live.close()


def test_another_slice_is_another_video(mp4: Path) -> None:
    prints = {
        source.fingerprint()
        for which in (slice(0, 50), slice(1, 51), slice(0, 100, 2))
        for source in [SlicedSource(open_source(mp4, 64), which)]
    }
    assert len(prints) == 3
