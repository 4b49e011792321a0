"""Bad input gets an error that names it and says what to do; what was yielded before stays good."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import videos
from PIL import Image

from longsam import LongVideoPredictor


def missing(folder: Path) -> Path:
    return folder / "missing.mp4"


def empty_file(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text_file(folder: Path) -> Path:
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    return folder / "text.mp4"


def audio_only(folder: Path) -> Path:
    path = folder / "audio.mp4"
    with av.open(path, "w") as output:
        stream: Any = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def cut_before_its_index(folder: Path) -> Path:
    """A recording that was cut off: the index at the end of the file is missing."""
    path = videos.write_video(folder / "cut.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.txt").touch()
    return folder / "empty"


def no_image(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images" / "0.jpg").write_text("no image")
    return folder / "images"


def images_of_16_bits(folder: Path) -> Path:
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "images" / "0.png")
    return folder / "images"


def one_image(folder: Path) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    return folder / "one.png"


def stack_of_images(folder: Path) -> Path:
    (folder / "images").mkdir()
    pages = [Image.new("L", (8, 8), grey) for grey in range(4)]
    pages[0].save(folder / "images" / "stack.tif", save_all=True, append_images=pages[1:])
    return folder / "images"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (one_image, ValueError, r"one\.png is a single image. Give the folder"),
        (stack_of_images, RuntimeError, r"stack\.tif holds 4 images, .*tifffile\.imread"),
        (missing, FileNotFoundError, r"no video file or image folder at .*missing\.mp4"),
        (empty_file, ValueError, r"empty\.mp4 is empty .*copy or record it again"),
        (text_file, ValueError, r"text\.mp4 cannot be opened as a video .*ffmpeg -i"),
        (audio_only, ValueError, r"audio\.mp4 has no video stream"),
        (cut_before_its_index, ValueError, r"cut\.mp4 cannot be opened .*cut off"),
        (empty_folder, ValueError, r"empty holds no images. Looked for files ending in \.jpg"),
        (no_image, RuntimeError, r"0\.jpg cannot be read as an image .*Replace or remove"),
        (images_of_16_bits, RuntimeError, r"0\.png has more than 8 bits.*astype"),
    ],
)
def test_unreadable_videos(
    make: Callable[[Path], Path],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    ours: LongVideoPredictor,
) -> None:
    with pytest.raises(error, match=message):
        ours.init_state(make(tmp_path))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (missing, FileNotFoundError, r"no video file .*missing\.mp4"),
        (empty_file, ValueError, r"empty\.mp4 cannot be opened by decord"),
        (text_file, ValueError, r"text\.mp4 cannot be opened by decord"),
        (audio_only, ValueError, r"audio\.mp4 cannot be opened by decord"),
        (cut_before_its_index, ValueError, r"cut\.mp4 cannot be opened by decord.*reader=\"av\""),
    ],
)
def test_unreadable_videos_with_decord(
    make: Callable[[Path], Path],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    ours: LongVideoPredictor,
) -> None:
    with pytest.raises(error, match=message):
        ours.init_state(make(tmp_path), reader="decord")


def faststart(folder: Path) -> Path:
    whole = videos.write_video(folder / "whole.mp4", 100, options={"g": "20", "bf": "2"})
    return videos.remux(whole, folder / "video.mp4", movflags="faststart")


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def corrupt_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reader"),
    [(cut_in_half, "av"), (corrupt_in_the_middle, "av"), (corrupt_in_the_middle, "decord")],
)
def test_frames_up_to_the_damage_are_tracked(
    damage: Callable[[Path], None], reader: Any, tmp_path: Path, ours: LongVideoPredictor
) -> None:
    path = faststart(tmp_path)
    state = ours.init_state(path)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    expected = [mask_logits for _, _, mask_logits in ours.propagate_in_video(state)]

    damage(path)
    state = ours.init_state(path, reader=reader, frames_per_chunk=4)
    assert state["num_frames"] == 100
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    tracked = []
    message = {
        "av": r"video\.mp4: frame \d+ of 100 cannot be decoded .*cut off or damaged.*are good",
        "decord": r"video\.mp4: decord .*frames? \d+",
    }
    with pytest.raises(RuntimeError, match=message[reader]) as error:  # noqa: PT012
        for _, _, mask_logits in ours.propagate_in_video(state):
            tracked.append(mask_logits)
    last = len(tracked) - 1
    assert 20 < last < 80
    assert all(torch.equal(a, b) for a, b in zip(tracked, expected, strict=False))
    if reader == "av":
        assert f"frame {last + 1} of 100" in str(error.value)

    # The state is as good as before the error, and says the same again.
    assert ours.memory_usage(state)["masks"]
    with pytest.raises(RuntimeError, match=r"video\.mp4"):
        list(ours.propagate_in_video(state, start_frame_idx=last))


def test_decord_does_not_open_a_file_that_is_cut_in_half(
    tmp_path: Path, ours: LongVideoPredictor
) -> None:
    path = faststart(tmp_path)
    cut_in_half(path)
    with pytest.raises(ValueError, match=r"video\.mp4 cannot be opened by decord .*reader=\"av\""):
        ours.init_state(path, reader="decord")


def test_going_on_past_the_damage(tmp_path: Path, ours: LongVideoPredictor) -> None:
    path = faststart(tmp_path)
    corrupt_in_the_middle(path)
    state = ours.init_state(path)
    ours.add_new_points_or_box(state, 80, 1, points=[[60, 50]], labels=[1])
    assert [f for f, _, _ in ours.propagate_in_video(state)] == list(range(80, 100))


def test_images_of_different_sizes(tmp_path: Path, ours: LongVideoPredictor) -> None:
    folder = videos.write_folder(tmp_path / "images", 10)
    Image.new("RGB", (100, 50)).save(folder / "6.jpg")
    state = ours.init_state(folder)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    tracked = []
    with pytest.raises(RuntimeError, match=r"6\.jpg \(frame 6\) is 100x50 pixels, but frame 0"):  # noqa: PT012
        for frame_idx, _, _ in ours.propagate_in_video(state):
            tracked.append(frame_idx)
    assert tracked == list(range(6))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (
            np.zeros((4, 3, 8, 8), np.uint8),
            r"ndarray of frames has dtype uint8 and shape \(3, 8, 8\)",
        ),
        (np.zeros((4, 8, 8), np.uint8), r"shape \(8, 8\).*np\.repeat"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"shape \(8, 8, 4\).*\[\.\.\., :3\]"),
        (np.zeros((4, 8, 8, 3), np.float32), r"dtype float32 .*\* 255"),
        (torch.zeros(4, 3, 8, 8), r"Tensor of frames has dtype float32"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"ndarray of frames is empty"),
        ([], r"list of frames is empty"),
        (4.2, r"type float cannot be read. Give the path"),
        (b"video.mp4", r"type bytes cannot be read"),
        ({"frames": []}, r"type dict cannot be read"),
    ],
)
def test_wrong_arrays(video: Any, message: str, ours: LongVideoPredictor) -> None:
    with pytest.raises(ValueError, match=message):
        ours.init_state(video)


def test_a_wrong_frame_among_good_ones(ours: LongVideoPredictor) -> None:
    frames = list(np.zeros((5, 8, 8, 3), np.uint8))
    frames[3] = np.zeros((8, 9, 3), np.uint8)
    state = ours.init_state(frames)
    ours.add_new_points_or_box(state, 0, 1, points=[[4, 4]], labels=[1])
    with pytest.raises(RuntimeError, match="Frame 3 of the list of frames is 9x8 pixels"):
        list(ours.propagate_in_video(state))


@pytest.mark.parametrize("window", [0, -1, 2.5, "31", True])
def test_wrong_memory_window(window: Any, ours: LongVideoPredictor, mp4: Path) -> None:
    with pytest.raises(ValueError, match=f"memory_window is {window!r}; .*at least 1.*15 to track"):
        ours.init_state(mp4, memory_window=window)


@pytest.mark.parametrize("frames_per_chunk", [0, -1, 2.5, None])
def test_wrong_frames_per_chunk(frames_per_chunk: Any, ours: LongVideoPredictor, mp4: Path) -> None:
    with pytest.raises(ValueError, match=f"frames_per_chunk is {frames_per_chunk!r}; it must be"):
        ours.init_state(mp4, frames_per_chunk=frames_per_chunk)


def test_unknown_reader(ours: LongVideoPredictor, mp4: Path) -> None:
    with pytest.raises(ValueError, match="reader is 'opencv'; it must be one of av, decord"):
        ours.init_state(mp4, reader="opencv")  # type: ignore[arg-type]


def test_decord_not_installed(
    ours: LongVideoPredictor, mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)  # as if the import failed
    with pytest.raises(ImportError, match=r"longsam\[decord\]"):
        ours.init_state(mp4, reader="decord")
    ours.init_state(mp4)


@pytest.mark.parametrize("frame_idx", [-1, 100, 5000])
def test_frame_outside_the_video(frame_idx: int, ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    message = rf"is {frame_idx}, which is outside .*video\.mp4: it has 100 frames, 0 to 99"
    with pytest.raises(ValueError, match=message):
        ours.add_new_points_or_box(state, frame_idx, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=message):
        ours.add_new_mask(state, frame_idx, 1, np.ones((120, 160), bool))
    assert state["obj_ids"] == []
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=message):
        next(iter(ours.propagate_in_video(state, start_frame_idx=frame_idx)))
    with pytest.raises(IndexError):
        state["images"][frame_idx]


@pytest.mark.parametrize("frame_idx", [1.5, "3", None, True])
def test_frame_index_of_another_type(frame_idx: Any, ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    with pytest.raises(ValueError, match=f"frame_idx is {frame_idx!r}; it must be a whole number"):
        ours.add_new_points_or_box(state, frame_idx, 1, points=[[60, 50]], labels=[1])


def test_a_refused_prompt_leaves_the_order_of_prompts(ours: LongVideoPredictor, mp4: Path) -> None:
    """In which conditioning frames are read, and so the last bit of a mask."""
    with ours.init_state(mp4) as state:
        for frame_idx in (5, 0):
            ours.add_new_points_or_box(state, frame_idx, 1, points=[[60, 50]], labels=[1])
        with pytest.raises(ValueError, match="clear_old_points=True"):
            ours.add_new_points_or_box(state, 5, 1, box=[30, 20, 110, 90], clear_old_points=False)
        assert list(state["temp_output_dict_per_obj"][0]["cond_frame_outputs"]) == [5, 0]


def test_a_refused_prompt_leaves_no_object_behind(ours: LongVideoPredictor, mp4: Path) -> None:
    """In upstream the object stays, without a prompt, and no pass can start."""
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match="points and labels must be provided together"):
        ours.add_new_points_or_box(state, 0, 2, points=[[60, 50]])
    with pytest.raises(AssertionError):
        ours.add_new_mask(state, 0, 3, np.ones((1, 120, 160), bool))
    assert state["obj_ids"] == [1]
    assert len(list(ours.propagate_in_video(state, max_frame_num_to_track=2))) == 3


def test_propagation_before_any_prompt(ours: LongVideoPredictor, mp4: Path) -> None:
    state = ours.init_state(mp4)
    with pytest.raises(RuntimeError, match="No input points or masks are provided"):
        next(iter(ours.propagate_in_video(state)))


def test_a_file_that_shrinks_between_opening_and_tracking(
    tmp_path: Path, ours: LongVideoPredictor
) -> None:
    path = faststart(tmp_path)
    state = ours.init_state(path, frames_per_chunk=2)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    cut_in_half(path)
    with pytest.raises(RuntimeError, match=r"video\.mp4: frame \d+ of 100 cannot be decoded"):
        list(ours.propagate_in_video(state))


def test_a_stream_that_changes_size(tmp_path: Path, ours: LongVideoPredictor) -> None:
    small = videos.write_video(tmp_path / "small.ts", 10)
    large = videos.write_video(tmp_path / "large.ts", 10, height=240, width=320)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    state = ours.init_state(joined)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(RuntimeError, match="frame size changes from 160x120 to 320x240 pixels"):
        list(ours.propagate_in_video(state))
