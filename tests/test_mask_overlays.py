"""Overlays: every frame that is in the index is in the video, whatever happened to the writer."""

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import videos

from longsam.masks import MaskWriter, render_overlay
from longsam.masks.overlay_file import OverlayFile, num_frames

SIZE = (48, 64)


def image(frame_idx: int) -> np.ndarray:
    picture = np.full((*SIZE, 3), 60 + frame_idx % 90, np.uint8)
    picture[:, frame_idx % 64] = 250
    return picture


def write(writer: MaskWriter, frames: range) -> None:
    for i in frames:
        mask = torch.full((1, *SIZE), -1.0)
        mask[0, 10:30, 20 + i % 9 : 40] = 1
        writer.write(i, [1], mask, image=image(i))


def frames_of(path: Path) -> tuple[list[float], np.ndarray]:
    with av.open(path) as overlay:
        frames = list(overlay.decode(video=0))
        assert overlay.streams.video[0].average_rate in {25, 30}
    return [float(f.time) for f in frames], np.stack([f.to_ndarray(format="rgb24") for f in frames])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], np.ndarray]:
    folder = tmp_path_factory.mktemp("whole")
    with MaskWriter(folder, "overlay") as writer:
        write(writer, range(90))
    return frames_of(folder / "overlay.mp4")


def test_it_is_a_stream_while_it_is_written_and_mp4_after(tmp_path: Path) -> None:
    with MaskWriter(tmp_path, "overlay") as writer:
        write(writer, range(5))
        writer.flush()
        with av.open(tmp_path / "overlay.ts") as overlay:
            assert sum(1 for _ in overlay.decode(video=0)) == 5
        assert not (tmp_path / "overlay.mp4").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"overlay.mp4", "frames.jsonl"}
    with MaskWriter(tmp_path, "overlay", resume=True) as writer:
        write(writer, range(5, 6))
        writer.flush()
        assert not (tmp_path / "overlay.mp4").exists()
        with av.open(tmp_path / "overlay.ts") as overlay:
            assert sum(1 for _ in overlay.decode(video=0)) == 6
    assert {p.name for p in tmp_path.iterdir()} == {"overlay.mp4", "frames.jsonl"}


CHILD = """
import os, signal, sys, types
sys.modules["longsam"] = types.ModuleType("longsam")  # without the model, which takes seconds
sys.modules["longsam"].__path__ = [{package!r}]
sys.path.insert(0, {tests!r})
from test_mask_overlays import MaskWriter, write
writer = MaskWriter({folder!r}, "overlay", resume=True)
write(writer, range(len(writer), {until}))
writer.flush()
if {further}:
    write(writer, range({until}, {until} + {further}))
    while len(writer) < {until} + {further}:
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_the_frame_after_a_flush_nothing_lags(
    whole: tuple[list[float], np.ndarray], tmp_path: Path
) -> None:
    """Four times over; the state of the flush finds its frame in the overlay."""
    for until, further in ((7, 0), (30, 1), (55, 3), (80, 1)):
        code = CHILD.format(
            package=str(Path(__file__).parents[1] / "longsam"),
            tests=str(Path(__file__).parent),
            folder=str(tmp_path),
            until=until,
            further=further,
        )
        child = subprocess.run([sys.executable, "-c", code])
        assert child.returncode == -signal.SIGKILL
        assert num_frames(tmp_path) == until + further
        times, _ = frames_of(tmp_path / "overlay.ts")
        assert len(times) == until + further
        with MaskWriter(tmp_path, "overlay", resume=True) as writer:
            assert len(writer) == until + further
            writer.drop_after(until - 1)
    with MaskWriter(tmp_path, "overlay", resume=True) as writer:
        writer.drop_after(79)
        write(writer, range(80, 90))
    times, frames = frames_of(tmp_path / "overlay.mp4")
    assert times == whole[0]
    assert psnr(frames, whole[1]) > 35


def test_killed_with_nothing_left_to_write(tmp_path: Path) -> None:
    """A kill while the MP4 is made: the next writer makes it, though it writes no frame."""
    with MaskWriter(tmp_path, "overlay") as writer:
        write(writer, range(20))
        writer.flush()
        left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "overlay.mp4").unlink()
    for path, data in left.items():
        path.write_bytes(data)
    (tmp_path / "overlay.partial").write_bytes(b"torn")
    with MaskWriter(tmp_path, "overlay", resume=True) as writer:
        assert writer.last_frame_idx == 19
    assert {p.name for p in tmp_path.iterdir()} == {"overlay.mp4", "frames.jsonl"}
    assert len(frames_of(tmp_path / "overlay.mp4")[0]) == 20


def test_damage_inside_a_packet_names_the_file(tmp_path: Path) -> None:
    """A length in it that reaches beyond its end is noticed by the muxer alone."""
    with MaskWriter(tmp_path, "overlay") as writer:
        write(writer, range(20))
    path = tmp_path / "overlay.mp4"
    with av.open(path) as video:
        at = [packet.pos for packet in video.demux(video=0) if packet.size][5]
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
    with (
        pytest.raises(RuntimeError, match=r"overlay\.mp4 is damaged: .*Invalid data"),
        MaskWriter(tmp_path, "overlay", resume=True) as writer,
    ):
        write(writer, range(20, 22))
    assert path.read_bytes() == data


def test_drops_and_resumes_keep_frames_and_times(
    whole: tuple[list[float], np.ndarray], tmp_path: Path
) -> None:
    for last, until in ((-1, 20), (12, 64), (61, 62), (60, 90)):
        with MaskWriter(tmp_path, "overlay", resume=True) as writer:
            writer.drop_after(last)
            write(writer, range(last + 1, until))
    times, frames = frames_of(tmp_path / "overlay.mp4")
    assert times == whole[0]
    assert psnr(frames, whole[1]) > 35


def test_time_stamps_go_on_when_those_of_mpeg_ts_start_again(tmp_path: Path) -> None:
    """They have 33 bits at 90 kHz: 26.5 hours. At one frame an hour, that is frame 27."""
    rate, total = Fraction(1, 3600), 60
    for first, last in ((0, 20), (20, 40), (40, total)):  # and an encoder that starts again
        file = OverlayFile(tmp_path, first, rate)
        for i in range(first, last):
            file.append(image(i))
        file.close()
    with av.open(tmp_path / "overlay.ts") as stream:
        times = [packet.pts for packet in stream.demux(video=0) if packet.size]
    assert len(times) == total
    assert max(times) < 2**34
    OverlayFile(tmp_path, total, rate).finish()
    with av.open(tmp_path / "overlay.mp4") as overlay:
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in overlay.decode(video=0)]
    assert [time / 3600 for time, _ in frames] == list(range(total))
    for i, (_, frame) in enumerate(frames):
        assert psnr(frame, image(i)) > 25


def test_a_finish_that_fails_leaves_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = MaskWriter(tmp_path, "overlay")
    write(writer, range(20))
    (tmp_path / "overlay.partial").mkdir()  # in the way of the MP4
    with pytest.raises(OSError, match=r"overlay\.partial"):
        writer.close()
    assert len(frames_of(tmp_path / "overlay.ts")[0]) == 20
    assert not (tmp_path / "writer.lock").exists()
    (tmp_path / "overlay.partial").rmdir()
    with MaskWriter(tmp_path, "overlay", resume=True) as writer:
        write(writer, range(20, 25))
    assert len(frames_of(tmp_path / "overlay.mp4")[0]) == 25


@pytest.mark.parametrize("damage", ["stream", "ends", "missing", "mp4", "foreign"])
def test_an_overlay_that_is_not_whole_is_named(damage: str, tmp_path: Path) -> None:
    with MaskWriter(tmp_path, "overlay") as writer:
        write(writer, range(20))
    if damage in {"stream", "ends"}:
        writer = MaskWriter(tmp_path, "overlay", resume=True)
        write(writer, range(20, 21))
        writer.flush()
        (tmp_path / "writer.lock").unlink()  # as if it had been killed
        path = tmp_path / f"overlay.{'ts' if damage == 'stream' else 'ends'}"
        data = path.read_bytes()
        writer.close()
        (tmp_path / "overlay.ts").write_bytes(data)
        (tmp_path / "overlay.ends").write_bytes(data)
        path.write_bytes(data[: len(data) // 2])
        expected = rf"{path.name} has \d+ bytes, but \d+ were written"
    elif damage == "missing":
        (tmp_path / "overlay.mp4").unlink()
        expected = r"holds no overlay\.ts and no overlay\.mp4, but 20 frames"
    elif damage == "mp4":
        path = tmp_path / "overlay.mp4"
        path.write_bytes(path.read_bytes()[:900])
        expected = r"overlay\.mp4 (is damaged|holds \d+ frames, but 20)"
    else:
        (tmp_path / "overlay.mp4").write_bytes(b"#EXTM3U\nhttp://127.0.0.1/secret.ts\n")
        expected = r"overlay\.mp4 is damaged"
    writer = MaskWriter(tmp_path, "overlay", resume=True)
    with pytest.raises(RuntimeError, match=expected):
        write(writer, range(20, 21))
    assert not (tmp_path / "writer.lock").exists()


def test_the_rate_of_the_video_stays(mp4: Path, tmp_path: Path) -> None:
    """Also when a resumed writer is given the frames one by one."""
    with av.open(tmp_path / "slow.mp4", "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(image(i), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    mask = torch.ones(1, *SIZE)
    with MaskWriter(tmp_path / "a", "overlay", video=tmp_path / "slow.mp4") as writer:
        for i in range(5):
            writer.write(i, [1], mask)
    with MaskWriter(tmp_path / "a", "overlay", resume=True) as writer:
        for i in range(5, 10):
            writer.write(i, [1], mask, image=image(i))
    assert frames_of(tmp_path / "a" / "overlay.mp4")[0] == [i / 25 for i in range(10)]


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (1, 64), (47, 1)])
def test_small_and_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    with MaskWriter(tmp_path, "overlay") as writer:
        for i in range(3):
            writer.write(i, [1], torch.ones(1, *size), image=np.zeros((*size, 3), np.uint8))
    with av.open(tmp_path / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 3


UNEVEN = [0, 40, 80, 200, 240, 500, 540, 1000, 1033, 1066, 1100, 3000]


def write_of(writer: MaskWriter, frames: range) -> None:
    for i in frames:
        writer.write(i, [1], torch.ones(1, 120, 160) > 0)


def test_the_time_stamps_of_the_video_stay(tmp_path: Path) -> None:
    """Of a variable rate; also of a writer that continues, from the middle, and drawn again."""
    video = videos.write_video(
        tmp_path / "uneven.mp4", len(UNEVEN), options={"bf": "0"}, times=UNEVEN
    )
    expected = [time / 1000 for time in UNEVEN]

    def shown(path: Path) -> list[float]:
        with av.open(path) as overlay:
            return [float(frame.time or 0) for frame in overlay.decode(video=0)]

    with MaskWriter(tmp_path / "a", ["rle", "overlay"], video=video) as writer:
        write_of(writer, range(7))
    assert shown(tmp_path / "a" / "overlay.mp4") == pytest.approx(expected[:7], abs=2e-5)
    with MaskWriter(tmp_path / "a", ["rle", "overlay"], video=video, resume=True) as writer:
        write_of(writer, range(7, 12))
    assert shown(tmp_path / "a" / "overlay.mp4") == pytest.approx(expected, abs=2e-5)
    with MaskWriter(tmp_path / "b", "overlay", video=video) as writer:
        write_of(writer, range(3, 12))
    assert shown(tmp_path / "b" / "overlay.mp4") == pytest.approx(
        [time - expected[3] for time in expected[3:]], abs=2e-5
    )
    with MaskWriter(tmp_path / "c", "overlay", video=video) as writer:
        write_of(writer, range(3))
        write_of(writer, range(2, 4))  # time goes back: at the rate
    times = shown(tmp_path / "c" / "overlay.mp4")
    assert np.allclose(np.diff(times), np.diff(times)[0], rtol=0.1)
    path = render_overlay(tmp_path / "a", video)
    assert shown(path) == pytest.approx(expected, abs=2e-5)


def test_time_stamps_that_a_caller_gives(tmp_path: Path) -> None:
    times = [0.0, 0.5, 0.6, 4.0]
    with MaskWriter(tmp_path, "overlay") as writer:
        for i, time in enumerate(times):
            writer.write(
                i, ['"time":9,', "x"], torch.ones(2, *SIZE) > 0, image=image(i), time=10 + time
            )
    with av.open(tmp_path / "overlay.mp4") as overlay:
        shown = [float(frame.time or 0) for frame in overlay.decode(video=0)]
    assert shown == pytest.approx(times, abs=2e-5)
