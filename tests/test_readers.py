"""The frames are those upstream sees: decord's, bit for bit, in any order of reading."""

import gc
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import psutil
import pytest
import torch
import videos
from PIL import Image
from sam2.utils.misc import load_video_frames

from longsam import LongVideoPredictor
from longsam.frames import EndOfVideoError, FrameBuffer, FrameSource, VideoFile, open_source
from longsam.frames.ffmpeg import open_video as open_with_ffmpeg
from longsam.frames.seek_index import (
    MAX_KEYFRAMES,
    HeaderKeyframes,
    Keyframe,
    PacketScan,
    SeekIndex,
)

SIZE = 96


def as_numpy(frame: Any) -> np.ndarray[Any, Any]:
    """A frame of decord's, which are torch tensors once upstream's loader has run."""
    return frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)


def decord_frames(path: Path) -> np.ndarray[Any, Any]:
    """What upstream's loader iterates over."""
    reader = decord.VideoReader(str(path), width=SIZE, height=SIZE)
    return np.stack([as_numpy(frame) for frame in reader])


def open_video(path: Any, **options: Any) -> FrameSource:
    options.setdefault("frames_per_chunk", 8)
    return open_source(path, SIZE, **options)


Encode = Callable[[Path], Path]


def h264(**options: str) -> Encode:
    return lambda folder: videos.write_video(folder / "video.mp4", options=options)


FILES: dict[str, Encode] = {
    "h264 without B-frames": h264(bf="0", g="12"),
    "h264 with B-frames": h264(bf="3", g="12", **{"b-pyramid": "normal"}),
    "h264 open GOP": h264(bf="2", g="10", **{"x264-params": "open-gop=1:bframes=2:b-adapt=0"}),
    "h264 one keyframe": h264(g="1000", bf="2"),
    "h264 all keyframes": h264(g="1"),
    "h264 intra refresh": h264(g="10", **{"x264-params": "intra-refresh=1"}),
    "h264 variable frame rate": lambda folder: videos.write_video(
        folder / "video.mp4",
        options={"g": "12", "bf": "2"},
        times=np.cumsum(np.random.default_rng(1).integers(5, 200, 60)).tolist(),
    ),
    "h264 10 bit": lambda folder: videos.write_video(
        folder / "video.mp4", pix_fmt="yuv420p10le", options={"g": "12"}
    ),
    "h264 4:4:4": lambda folder: videos.write_video(
        folder / "video.mp4", pix_fmt="yuv444p", options={"g": "12"}
    ),
    "h264 odd size": lambda folder: videos.write_video(
        folder / "video.mp4", height=91, width=133, pix_fmt="yuv444p", options={"g": "12"}
    ),
    "h264 larger than the model": lambda folder: videos.write_video(
        folder / "video.mp4", 20, height=400, width=722, options={"g": "12"}
    ),
    # As 1280x1024 and 576x1024 at 1024: decord's FFmpeg scales chroma in a way of its own.
    "h264 as high as the model": lambda folder: videos.write_video(
        folder / "video.mp4", height=SIZE, width=160, options={"g": "12"}
    ),
    "h264 as high as the model, narrow, 10 bit": lambda folder: videos.write_video(
        folder / "video.mp4", height=SIZE, width=62, pix_fmt="yuv420p10le", options={"g": "12"}
    ),
    "h264 as high as the model, 4:2:2": lambda folder: videos.write_video(
        folder / "video.mp4", height=SIZE, width=160, pix_fmt="yuv422p", options={"g": "12"}
    ),
    "h264 as wide as the model": lambda folder: videos.write_video(
        folder / "video.mp4", height=60, width=SIZE, options={"g": "12"}
    ),
    "h264 of the model's size": lambda folder: videos.write_video(
        folder / "video.mp4", height=SIZE, width=SIZE, options={"g": "12"}
    ),
    "h264 rotated to the model's height": lambda folder: videos.rotate(
        videos.write_video(folder / "video.mp4", height=60, width=SIZE, options={"g": "12"}), 90
    ),
    "h264 full range": h264(g="12", **{"x264-params": "range=pc"}),
    "h264 BT.709": h264(
        g="12", **{"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"}
    ),
    "h264 chroma at the top left": h264(g="12", **{"x264-params": "chromaloc=2"}),
    "h264 interlaced": h264(g="12", **{"x264-params": "interlaced=1"}),
    "h264 rotated by 90": lambda f: videos.rotate(h264(g="12")(f), 90),
    "h264 rotated by 180": lambda f: videos.rotate(h264(g="12")(f), 180),
    "h264 rotated by 270": lambda f: videos.rotate(h264(g="12")(f), 270),
    "hevc": lambda folder: videos.write_video(
        folder / "video.mp4", codec="libx265", options={"x265-params": "keyint=12:open-gop=0"}
    ),
    "hevc open GOP": lambda folder: videos.write_video(
        folder / "video.mp4", codec="libx265", options={"x265-params": "keyint=12:open-gop=1"}
    ),
    "vp9": lambda folder: videos.write_video(
        folder / "video.webm", codec="libvpx-vp9", options={"g": "12", "deadline": "good"}
    ),
    "mkv": lambda folder: videos.remux(h264(g="12", bf="2")(folder), folder / "video.mkv"),
    "fragmented mp4": lambda folder: videos.remux(
        h264(g="12", bf="2")(folder), folder / "f.mp4", movflags="frag_keyframe+empty_moov"
    ),
}


# Here decord is no reference: it cannot read AV1, loses frames of MPEG-TS, and its old FFmpeg
# rounds a few pixels of MPEG-4 part 2 (whose transform is not fixed to the last bit) differently.
MORE_FILES: dict[str, Encode] = {
    "mpeg4 in avi": lambda folder: videos.write_video(
        folder / "video.avi", codec="mpeg4", options={"g": "12"}
    ),
    "av1": lambda folder: videos.write_video(
        folder / "video.mp4", codec="libsvtav1", options={"g": "12", "preset": "12"}
    ),
    "mpeg ts": lambda f: videos.remux(h264(g="12", bf="2")(f), f / "video.ts"),
}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FILES[request.param](tmp_path)


def test_av_equals_decord(file: Path) -> None:
    expected = decord_frames(file)
    source = open_video(file)
    assert source.num_frames == len(expected)
    height, width, _ = decord.VideoReader(str(file)).next().shape
    assert source.frame_size == (height, width)
    np.testing.assert_array_equal(np.stack(list(source.read(0, len(expected)))), expected)


@pytest.mark.parametrize("encode", {**FILES, **MORE_FILES}.values(), ids={**FILES, **MORE_FILES})
def test_random_and_reverse_access_give_the_frames_of_the_sequential_pass(
    encode: Encode, tmp_path: Path
) -> None:
    file = encode(tmp_path)
    source = open_video(file)
    sequence = np.stack(list(open_video(file).read(0, source.num_frames)))
    order = random.Random(3)
    for attempt in range(2):  # first with nothing known of the file, then with all
        for _ in range(25):
            start = order.randrange(source.num_frames)
            stop = min(start + order.randrange(1, 12), source.num_frames)
            np.testing.assert_array_equal(
                np.stack(list(source.read(start, stop))), sequence[start:stop]
            )
        for start in reversed(range(0, source.num_frames, 7)):
            stop = min(start + 7, source.num_frames)
            np.testing.assert_array_equal(
                np.stack(list(source.read(start, stop))), sequence[start:stop]
            )
        other = open_video(file)  # knows what this one has found out
        other.learn(source)
        for _ in range(10):
            start = order.randrange(source.num_frames)
            np.testing.assert_array_equal(next(other.read(start, start + 1)), sequence[start])
        if attempt == 0:
            list(source.read(0, source.num_frames))


@pytest.mark.parametrize("suffix", [".ts", ".mov", ".flv"])
def test_other_containers_give_the_frames_that_were_encoded(suffix: str, tmp_path: Path) -> None:
    mp4 = h264(g="12", bf="2")(tmp_path)
    source = open_video(videos.remux(mp4, tmp_path / f"video{suffix}"))
    expected = np.stack(list(open_video(mp4).read(0, 60)))
    assert source.num_frames == 60
    np.testing.assert_array_equal(np.stack(list(source.read(0, 60))), expected)
    np.testing.assert_array_equal(np.stack(list(source.read(31, 40))), expected[31:40])


def test_frames_cut_off_by_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    """A cut without encoding anew keeps the frames before the cut in the file, hidden."""
    whole = h264(g="30", bf="0")(tmp_path)
    cut = tmp_path / "cut.mp4"
    with av.open(whole) as input_, av.open(cut, "w") as output:
        stream = input_.streams.video[0]
        copy = output.add_stream_from_template(stream)
        shift = int(10 / 30 / stream.time_base)
        for packet in input_.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                output.mux(packet)
    expected = np.stack(list(open_video(whole).read(0, 60)))[10:]
    source = open_video(cut)
    assert source.num_frames == 50
    np.testing.assert_array_equal(np.stack(list(source.read(0, 50))), expected)
    np.testing.assert_array_equal(np.stack(list(source.read(5, 9))), expected[5:9])


def packets_from(source: Path, target: Path, first: int) -> Path:
    """Copy a video's packets from the n-th on, as a recording that begins anywhere."""
    with av.open(source) as input_, av.open(target, "w") as output:
        stream = input_.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(input_.demux(stream)):
            if number >= first and packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    return target


def check_access_in_any_order(path: Path, num_frames: int) -> None:
    """A fresh source that jumps, and one that has read all, give the frames of one pass."""
    sequence = np.stack(list(open_video(path).read(0, num_frames)))
    for start in (num_frames - 5, num_frames // 2, 13, 2):
        fresh = open_video(path)
        (frame,) = fresh.read(start, start + 1)
        np.testing.assert_array_equal(frame, sequence[start])
        for again in reversed(range(0, num_frames, 7)):
            stop = min(again + 7, num_frames)
            np.testing.assert_array_equal(
                np.stack(list(fresh.read(again, stop))), sequence[again:stop]
            )


def test_joined_recordings_whose_time_starts_again(tmp_path: Path) -> None:
    part = videos.remux(h264(g="12", bf="2")(tmp_path), tmp_path / "part.ts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    assert open_video(joined).num_frames == 120
    check_access_in_any_order(joined, 120)


@pytest.mark.parametrize("first", [5, 12])
def test_recordings_that_begin_between_two_keyframes(first: int, tmp_path: Path) -> None:
    """Packets that cannot be decoded come first, or (after an open GOP's keyframe) second."""
    whole = FILES["h264 open GOP"](tmp_path)
    keyframes = [n for n, p in enumerate(av.open(whole).demux(video=0)) if p.is_keyframe]
    begin = keyframes[2] if first == 12 else first
    path = packets_from(whole, tmp_path / "cut.mkv", begin)
    source = open_video(path)
    frames = []
    with suppress(EndOfVideoError):
        for frame in source.read(0, source.num_frames):
            frames.append(frame)
    assert 0 <= source.num_frames - len(frames) <= 2  # at most the leading pictures
    assert len(frames) >= 60 - keyframes[2] - 2
    with suppress(RuntimeError):
        check_access_in_any_order(path, len(frames))


def test_a_pass_ends_where_the_video_does(ours: LongVideoPredictor, tmp_path: Path) -> None:
    """Packets without a frame were counted: the pass ends early, with a warning and no error."""
    path = packets_from(h264(g="12", bf="0")(tmp_path), tmp_path / "cut.h264", 5)
    state = ours.init_state(path)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    tracked: list[int] = []
    with pytest.warns(UserWarning, match=r"cut\.h264 ends after \d+ frames; .*The pass ends there"):
        tracked += [frame_idx for frame_idx, _, _ in ours.propagate_in_video(state)]
    assert tracked == list(range(len(tracked)))
    assert 40 < len(tracked) < state["num_frames"]


def test_a_truncated_file_without_a_stated_count_warns(tmp_path: Path) -> None:
    whole = videos.remux(h264(g="12", bf="2")(tmp_path), tmp_path / "video.mkv")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.warns(
        UserWarning, match=r"video\.mkv states a length of 2\.0 s, but its video ends"
    ):
        source = open_video(whole)
    assert 10 < source.num_frames < 50


def test_decord_reader_equals_decord(mp4: Path) -> None:
    expected = decord_frames(mp4)
    source = open_video(mp4, reader="decord")
    assert source.num_frames == len(expected)
    assert source.frame_size == (120, 160)
    np.testing.assert_array_equal(np.stack(list(source.read(0, 50))), expected[:50])
    np.testing.assert_array_equal(np.stack(list(source.read(50, 100))), expected[50:])
    np.testing.assert_array_equal(np.stack(list(source.read(20, 31))), expected[20:31])


def test_decord_reader_refuses_a_file_that_decord_reads_wrongly(tmp_path: Path) -> None:
    file = FILES["hevc open GOP"](tmp_path)
    with pytest.raises(
        RuntimeError, match=r"video\.mp4: decord gives a different frame .*reader=\"av\""
    ):
        list(open_video(file, reader="decord").read(0, 60))


FILES_READ_AFTER_A_SEEK = (
    "h264 with B-frames",
    "h264 open GOP",
    "h264 intra refresh",
    "h264 rotated by 90",
    "hevc open GOP",
    "vp9",
    "mkv",
    "fragmented mp4",
)


@pytest.mark.parametrize("name", FILES_READ_AFTER_A_SEEK)
@pytest.mark.parametrize("frames_per_chunk", [1, 4, 8])
def test_decord_reader_never_gives_a_wrong_frame(
    name: str, frames_per_chunk: int, tmp_path: Path
) -> None:
    """In any order of reading; without the check 8 frames of the HEVC file are wrong in reverse."""
    path = FILES[name](tmp_path)
    expected = decord_frames(path)
    starts = list(range(0, len(expected), frames_per_chunk))
    order = random.Random(2)
    refused = 0
    for run in (starts, starts[::-1], order.sample(starts, len(starts))):
        source = open_video(path, reader="decord", frames_per_chunk=frames_per_chunk)
        for start in run:
            stop = min(start + frames_per_chunk, len(expected))
            given = []
            try:
                for frame in source.read(start, stop):
                    given.append(frame)
            except RuntimeError as error:
                assert 'reader="av"' in str(error)  # noqa: PT017
                refused += 1
            else:
                assert len(given) == stop - start
            for frame_idx, frame in enumerate(given, start):
                np.testing.assert_array_equal(frame, expected[frame_idx])
        source.close()
    if name == "hevc open GOP":
        assert refused > 0
    elif name == "h264 with B-frames":
        assert refused == 0


@pytest.mark.parametrize("bridge", ["torch", "native"])
def test_decord_reader_whatever_bridge_the_user_has_set(bridge: str, mp4: Path) -> None:
    decord.bridge.set_bridge(bridge)
    try:
        (frame,) = open_video(mp4, reader="decord").read(3, 4)
    finally:
        decord.bridge.set_bridge("native")
    assert isinstance(frame, np.ndarray)


@pytest.mark.parametrize("source", ["mp4", "jpegs"])
def test_buffer_gives_upstreams_tensors(source: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(source)
    cpu = torch.device("cpu")
    images, height, width = load_video_frames(str(path), SIZE, False, compute_device=cpu)
    opened = open_video(path)
    buffer = FrameBuffer(opened, SIZE, 8, cpu)
    assert (len(buffer), opened.frame_size) == (len(images), (height, width))
    for frame_idx in (0, 1, 50, 49, 99):
        frame = buffer[frame_idx]
        assert torch.equal(frame, images[frame_idx])
        assert frame.stride() == images[frame_idx].stride()


def test_every_value_of_a_pixel_is_normalized_as_upstream_does(tmp_path: Path) -> None:
    """Upstream divides in float64 for JPEGs and in float32 for video; all 256 values agree."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, None].repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "0.png")
    (tmp_path / "0.png").rename(tmp_path / "0.jpg")  # upstream asks for the name of a JPEG only
    cpu = torch.device("cpu")
    images, _, _ = load_video_frames(str(tmp_path), 16, False, compute_device=cpu)
    from_file = FrameBuffer(open_source(tmp_path, 16, frames_per_chunk=1), 16, 1, cpu)
    from_array = FrameBuffer(open_source(ramp[None], 16, frames_per_chunk=1), 16, 1, cpu)
    assert torch.equal(from_file[0], images[0])
    assert torch.equal(from_array[0], images[0])


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".bmp", ".tiff"])
def test_image_folders(suffix: str, tmp_path: Path) -> None:
    folder = videos.write_folder(tmp_path / "images", 12, suffix)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "notes.txt").write_text("not a frame")
    source = open_video(folder)
    assert (source.num_frames, source.frame_size) == (12, (120, 160))
    frames = list(source.read(0, 12))
    for frame_idx in (2, 10, 11):
        image = Image.open(folder / f"{frame_idx}{suffix}").convert("RGB").resize((SIZE, SIZE))
        np.testing.assert_array_equal(frames[frame_idx], np.array(image))


def test_folder_of_jpegs_with_masks_beside_them(tmp_path: Path) -> None:
    folder = videos.write_folder(tmp_path / "images", 3)
    Image.new("L", (160, 120)).save(folder / "0.png")
    with pytest.warns(UserWarning, match="3 JPEGs and 1 other images; only the JPEGs are frames"):
        assert open_video(folder).num_frames == 3


def test_names_that_are_no_integers_sort_in_natural_order(tmp_path: Path) -> None:
    names = ["a2_f10.png", "a2_f9.png", "A1_f100.png", "b.png"]
    for grey, name in enumerate(names):
        Image.new("L", (8, 8), grey).save(tmp_path / name)
    frames = open_video(tmp_path).read(0, 4)
    assert [int(frame[0, 0, 0]) for frame in frames] == [2, 1, 0, 3]


def test_arrays_and_indexables(jpegs: Path, tmp_path: Path) -> None:
    paths = [jpegs / f"{i}.jpg" for i in range(5)]
    array = np.stack([np.array(Image.open(path).convert("RGB")) for path in paths])
    memmap = np.memmap(tmp_path / "frames.raw", dtype=np.uint8, mode="w+", shape=array.shape)
    memmap[:] = array

    class Indexable:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, frame_idx: int) -> Any:
            return array[frame_idx]

    expected = np.stack(list(open_video(jpegs).read(0, 5)))
    for frames in (
        array,
        memmap,
        torch.from_numpy(array),
        list(array),
        tuple(torch.from_numpy(array)),
        Indexable(),
        paths,
        [str(path) for path in paths],
    ):
        source = open_video(frames)
        assert (source.num_frames, source.frame_size) == (5, (120, 160))
        np.testing.assert_array_equal(np.stack(list(source.read(0, 5))), expected)


def test_path_like(mp4: Path) -> None:
    assert open_video(mp4).num_frames == open_video(str(mp4)).num_frames == 100


def test_opening_decodes_one_frame_only(mp4: Path, tmp_path: Path) -> None:
    """All behind the first GOP may be garbage: opening does not look at it."""
    damaged = tmp_path / "damaged.mp4"
    videos.remux(mp4, damaged, movflags="faststart")
    data = bytearray(damaged.read_bytes())
    at = len(data) // 2
    data[at:] = bytes(len(data) - at)
    damaged.write_bytes(data)
    assert open_video(damaged).num_frames == 100


def test_seek_index_stays_bounded() -> None:
    index = SeekIndex()
    for frame_idx in range(1, 100_000):
        index.add(Keyframe(frame_idx, 512 * frame_idx))
    known = {index.before(frame_idx) for frame_idx in range(0, 100_000, 5)}
    assert MAX_KEYFRAMES / 4 < len(known) <= MAX_KEYFRAMES
    for frame_idx in (0, 17, 4096, 77_777, 99_999):
        keyframe = index.before(frame_idx)
        assert frame_idx - 64 < keyframe.frame_idx <= frame_idx
        assert keyframe.pts == (512 * keyframe.frame_idx or None)


def test_titles_need_not_be_utf_8(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "video.mkv", 3, title="T\u00fcr")
    data = path.read_bytes()
    assert data.count("T\u00fcr".encode()) == 1
    path.write_bytes(data.replace("T\u00fcr".encode(), b"T\xfc\xfcr"))
    assert len(list(open_source(path, 64).read(0, 3))) == 3


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "video.mkv", 3)
    data = path.read_bytes()
    assert data.count(b"V_MPEG4/ISO/AVC") == 1
    path.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/AVC"))
    with pytest.raises(ValueError, match="of a codec that FFmpeg cannot decode"):
        open_source(path, 64)


@pytest.mark.parametrize("kind", FILES)
def test_the_headers_keyframes_are_those_of_the_packets(kind: str, tmp_path: Path) -> None:
    path = FILES[kind](tmp_path)
    source = open_source(path, None)
    assert isinstance(source, VideoFile)
    listed = HeaderKeyframes(*open_with_ffmpeg(path)) if source._is_listed else None
    first = None if listed is None or not listed.agrees else listed.first()
    if listed is None or first is None:
        assert kind not in {"h264 without B-frames", "h264 with B-frames", "h264 open GOP"}
        return  # the packets are read
    index = SeekIndex()
    PacketScan(*open_with_ffmpeg(path), source._first_pts, index).run(progress="")
    assert index.first() == first
    for frame_idx in range(source.num_frames):
        assert listed.before(frame_idx) == index.before(frame_idx)
    source.close()


def test_a_jump_back_after_a_far_jump_begins_at_the_keyframe_before(tmp_path: Path) -> None:
    """The far jump leaves keyframes unknown behind it; the header has them."""
    path = videos.write_video(
        tmp_path / "v.mp4", 600, 48, 64, options={"g": "30", "sc_threshold": "0", "bf": "2"}
    )
    keyframes = [n for n, frame in enumerate(av.open(path).decode(video=0)) if frame.key_frame]
    assert len(keyframes) >= 20
    source = VideoFile(path, None)
    frames = {}
    for target in (541, 302, 125, 400, 126, 30, 599):
        (frames[target],) = source.read(target, target + 1)
        for other in (200, 410, 590):
            expected = max(n for n in keyframes if n <= other)
            assert source.quick_frame(other) in (expected, other), (target, other)
    in_order = dict(enumerate(VideoFile(path, None).read(0, 600)))
    other = VideoFile(path, None)
    other.learn(source)
    container = other._container
    (frame,) = other.read(450, 451)
    assert np.array_equal(frame, in_order[450])
    assert other._container is container  # it has not gone back to look at the start
    for target, frame in frames.items():
        assert np.array_equal(frame, in_order[target])


def test_going_back_to_the_start_again_and_again_holds_one_decoder(tmp_path: Path) -> None:
    """A decoder of 720p holds 15 MB and more; it must not wait for the garbage collector."""
    path = videos.write_video(tmp_path / "v.mp4", 12, 720, 1280, options={"g": "100", "bf": "2"})
    source = VideoFile(path, SIZE)
    process, resident = psutil.Process(), []
    gc.disable()
    try:
        for _ in range(25):
            for frame_idx in (10, 2):
                next(source.read(frame_idx, frame_idx + 1))
            resident.append(process.memory_info().rss)
    finally:
        gc.enable()
    assert max(resident[5:]) - max(resident[:5]) < 60_000_000
    source.close()
