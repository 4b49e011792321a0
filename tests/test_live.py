"""Live sources: iterators, cv2.VideoCapture, network streams that are killed and come back."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
import videos

from longsam import LiveVideo, LongVideoPredictor
from longsam.frames import EndOfStreamError
from longsam.testing import SyntheticVideo

SERVER = Path(__file__).parent / "stream_server.py"
FRAMES = list(videos.frames(50))


def prompted(predictor: LongVideoPredictor, source: Any, **options: Any) -> Any:
    state = predictor.init_state(source, **options)
    predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    return state


def masks(predictor: LongVideoPredictor, source: Any, **options: Any) -> list[torch.Tensor]:
    state = prompted(predictor, source, **options)
    steps = list(predictor.propagate_in_video(state))
    assert [frame_idx for frame_idx, _, _ in steps] == list(range(len(steps)))
    return [mask_logits for _, _, mask_logits in steps]


def all_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_an_iterator_gives_the_masks_of_the_same_frames_in_a_list(ours: LongVideoPredictor) -> None:
    expected = masks(ours, FRAMES)
    assert all_equal(masks(ours, iter(FRAMES), frames_per_chunk=4), expected)
    one_array = np.empty_like(FRAMES[0])

    def reuses_its_array() -> Iterator[videos.FrameArray]:
        for frame in FRAMES:
            one_array[:] = frame
            yield one_array

    assert all_equal(masks(ours, reuses_its_array(), frames_per_chunk=1), expected)
    live = LiveVideo(iter(FRAMES), mode="every")
    assert all_equal(masks(ours, live), expected)
    assert (live.num_arrived, live.num_dropped, live.has_ended) == (50, 0, True)
    assert np.array_equal(live.frame, FRAMES[-1])


def test_an_opened_capture(ours: LongVideoPredictor, mp4: Path) -> None:
    capture = cv2.VideoCapture(str(mp4))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))
    assert len(frames) == 100
    assert all_equal(masks(ours, cv2.VideoCapture(str(mp4))), masks(ours, frames))
    with pytest.raises(RuntimeError, match="is not open"):
        ours.init_state(cv2.VideoCapture("no such file"))


def test_prompts_between_two_yields(ours: LongVideoPredictor) -> None:
    """They count from the next frame on, as if the pass were stopped and started again there."""

    def change(state: Any, frame_idx: int) -> bool:
        if frame_idx == 10:
            ours.add_new_points_or_box(state, 10, "new", box=[30, 20, 110, 90])
        elif frame_idx == 20:
            ours.add_new_points_or_box(state, 18, 1, points=[[40, 40]], labels=[0])
        elif frame_idx == 30:
            ours.remove_object(state, 1)
        return frame_idx in {10, 20, 30}

    state, expected, start = prompted(ours, FRAMES), [], 0
    while start < len(FRAMES):
        for frame_idx, obj_ids, mask_logits in ours.propagate_in_video(state, start):
            expected.append((frame_idx, list(obj_ids), mask_logits))
            start = frame_idx + 1
            if change(state, frame_idx):
                break
    live = prompted(ours, iter(FRAMES), frames_per_chunk=4)
    steps = ours.propagate_in_video(live)
    for (frame_idx, obj_ids, mask_logits), wanted in zip(steps, expected, strict=True):
        assert (frame_idx, obj_ids) == wanted[:2]
        assert torch.equal(mask_logits, wanted[2])
        change(live, frame_idx)
    assert expected[15][1] == [1, "new"]
    assert expected[-1][1] == ["new"]


def test_removing_the_last_object_ends_the_pass(ours: LongVideoPredictor) -> None:
    state = prompted(ours, iter(FRAMES))
    for frame_idx, _, _ in ours.propagate_in_video(state):
        if frame_idx == 5:
            ours.remove_object(state, 1)
    assert frame_idx == 5
    assert ours.advance(state) == 6


def test_what_is_held(ours: LongVideoPredictor) -> None:
    state = ours.init_state(iter(FRAMES), frames_per_chunk=8)
    assert [ours.advance(state) for _ in range(20)] == list(range(1, 21))
    with pytest.raises(ValueError, match=r"frame_idx is 5.* frames 12 to 20; older ones"):
        ours.add_new_points_or_box(state, 5, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=r"12 to 20; later ones have not arrived"):
        ours.add_new_mask(state, 21, 1, np.ones((120, 160), bool))
    ours.add_new_points_or_box(state, 13, 1, points=[[60, 50]], labels=[1])
    with pytest.raises(ValueError, match=r"start_frame_idx is 2,"):
        ours.propagate_in_video(state, start_frame_idx=2)
    forward = [i for i, _, _ in ours.propagate_in_video(state, max_frame_num_to_track=11)]
    assert forward == list(range(13, 25))
    # The prompt has left the buffer: the next pass resumes after the last one.
    assert [i for i, _, _ in ours.propagate_in_video(state)] == list(range(25, 50))
    assert list(ours.propagate_in_video(state)) == []
    with pytest.warns(UserWarning, match="Frame 40 .* is not held; 41 to 49 are. The pass ends"):
        back = [i for i, _, _ in ours.propagate_in_video(state, 44, reverse=True)]
    assert back == [44, 43, 42, 41]


def test_newest_drops_what_the_model_has_no_time_for(ours: LongVideoPredictor) -> None:
    live = LiveVideo(iter(FRAMES), mode="newest")
    tracked = masks(ours, live)
    assert live.num_arrived == len(tracked)
    assert live.num_arrived + live.num_dropped == len(FRAMES)
    assert np.array_equal(live.frame, FRAMES[-1]), "the last frame is never dropped"
    live.close()
    assert not [t for t in threading.enumerate() if t.name == "longsam-newest-frame"]


def test_nothing_is_left_running_when_the_source_is_forgotten() -> None:
    def endless() -> Iterator[videos.FrameArray]:
        while True:
            yield FRAMES[0]

    live = LiveVideo(endless(), mode="newest")
    (thread,) = [t for t in threading.enumerate() if t.name == "longsam-newest-frame"]
    del live
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["every", "newest"])
def test_an_error_of_the_source_reaches_the_caller(ours: LongVideoPredictor, mode: Any) -> None:
    def fails() -> Iterator[videos.FrameArray]:
        yield from FRAMES[:7]
        raise OSError("the camera was unplugged")

    state = prompted(ours, LiveVideo(fails(), mode=mode))
    tracked: list[int] = []
    with pytest.raises(OSError, match="unplugged"):
        tracked.extend(frame_idx for frame_idx, _, _ in ours.propagate_in_video(state))
    assert len(tracked) == 7 or mode == "newest"


def test_bad_sources(ours: LongVideoPredictor) -> None:
    with pytest.raises(RuntimeError, match="gives no frame"):
        ours.init_state(iter([]))
    with pytest.raises(ValueError, match=r"Frame 0 of the list_iterator.*float64"):
        ours.init_state(iter([np.zeros((4, 4, 3))]))
    with pytest.raises(ValueError, match=r'mode is \'all\'; it must be "every", "newest" or None'):
        LiveVideo(iter(FRAMES), mode="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reconnect_seconds is -1"):
        LiveVideo("tcp://127.0.0.1:1", reconnect_seconds=-1)
    with pytest.raises(RuntimeError, match="cannot be opened"):
        ours.init_state("tcp://127.0.0.1:1")
    with pytest.raises(RuntimeError, match=r"Camera 42 cannot be opened"):
        ours.init_state(42)
    with pytest.raises(ValueError, match="type float cannot be read"):
        LiveVideo(0.5)
    live = LiveVideo(iter([FRAMES[0], FRAMES[0][:60]]))
    state = prompted(ours, live)
    with pytest.raises(RuntimeError, match=r"Frame 1 .* 160x60 pixels, but frame 0 is 160x120"):
        list(ours.propagate_in_video(state))
    with pytest.raises(ValueError, match="tracked by another state"):
        ours.init_state(live)
    with pytest.raises(ValueError, match="is not live"):
        ours.advance(ours.init_state(FRAMES))


class Blocked:
    """A source that gives some frames and then waits for one that does not come."""

    def __init__(self, num_frames: int) -> None:
        self.waits, self.comes = threading.Event(), threading.Event()
        self.is_closed = False
        self._num_frames = num_frames

    def frames(self) -> Iterator[videos.FrameArray]:
        try:
            yield from FRAMES[: self._num_frames]
            self.waits.set()
            assert self.comes.wait(60)
            yield from FRAMES[self._num_frames :]
        finally:
            self.is_closed = True


def in_a_thread(live: LiveVideo) -> tuple[threading.Thread, list[BaseException]]:
    """Somebody who waits for the next frame."""
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            live.next_frame()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("mode", ["every", "newest"])
def test_closing_a_source_that_waits_for_a_frame(
    mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longsam.frames.live.LONGEST_WAIT_SECONDS", 0.2)
    source = Blocked(1)
    live = LiveVideo(source.frames(), mode=mode)
    live.attach(64)
    live.next_frame()
    thread, raised = in_a_thread(live)
    assert source.waits.wait(60)
    with pytest.warns(UserWarning, match=r"still waits for a frame after 0.2 s") as warned:
        live.close()
    assert warned[0].filename == __file__
    source.comes.set()
    thread.join(60)
    assert [type(error) for error in raised] == [EndOfStreamError]
    for reader in threading.enumerate():
        if reader.name == "longsam-newest-frame":
            reader.join(60)
    assert source.is_closed
    live.close()  # now there is nothing left to wait for
    with pytest.raises(EndOfStreamError):
        live.next_frame()


@pytest.mark.parametrize("mode", ["every", "newest"])
def test_closing_waits_for_the_frame_that_is_on_its_way(mode: Any) -> None:
    source = Blocked(1)
    live = LiveVideo(source.frames(), mode=mode)
    live.attach(64)
    live.next_frame()
    thread, _ = in_a_thread(live)
    assert source.waits.wait(60)
    threading.Timer(0.2, source.comes.set).start()
    live.close()
    thread.join(60)
    assert source.is_closed
    assert not [t for t in threading.enumerate() if t.name == "longsam-newest-frame"]


def test_a_closed_source_gives_no_frame() -> None:
    live = LiveVideo(iter(FRAMES))
    live.attach(64)
    live.close()
    with pytest.raises(EndOfStreamError, match="list_iterator of frames is closed"):
        live.next_frame()
    assert live.has_ended


def test_closing_a_stream_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longsam.frames.live.LONGEST_WAIT_SECONDS", 0.2)
    server = Server(0, 4000)
    url = f"http://127.0.0.1:{server.port}/live.ts"
    live = LiveVideo(url, mode="newest", timeout_seconds=6, reconnect_seconds=60)
    server.stall()
    try:
        (reader,) = [t for t in threading.enumerate() if t.name == "longsam-newest-frame"]
        seen = -1
        while live.num_dropped > seen:  # what was sent before
            seen = live.num_dropped
            reader.join(0.5)
        with pytest.warns(UserWarning, match=r"live\.ts still waits for a frame after 0.2 s"):
            live.close()
        reader.join(60)  # its time-out
        assert not reader.is_alive()
    finally:
        server.kill()


class Server:
    """A stream server in a process of its own."""

    def __init__(self, first: int, num_frames: int, port: int = 0):
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *map(str, (port, first, num_frames, 60))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stall(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_a_stream_that_is_killed_and_comes_back(ours: LongVideoPredictor) -> None:
    server = Server(0, 400)
    url = f"http://127.0.0.1:{server.port}/live.ts"
    live = LiveVideo(url, reconnect_seconds=60)
    state = prompted(ours, live)
    tracked = 0
    for frame_idx, _, mask_logits in ours.propagate_in_video(state):
        assert (frame_idx, mask_logits.shape[-2:]) == (tracked, (120, 160))
        tracked += 1
        if tracked == 20:
            server.kill()
            server = Server(400, 40, server.port)
        if live.num_reconnects:
            break
    assert live.num_reconnects == 1
    for _ in ours.propagate_in_video(state, tracked, max_frame_num_to_track=9):
        tracked += 1
    assert live.num_arrived == tracked
    server.kill()
    live.close()


def test_a_file_on_a_server_without_range_requests(
    ours: LongVideoPredictor, tmp_path: Path
) -> None:
    SyntheticVideo(0, 300, (240, 320)).write(tmp_path / "index_last.mp4")
    with av.open(str(tmp_path / "index_last.mp4")) as whole, av.open(
        str(tmp_path / "index_first.mp4"), "w", options={"movflags": "faststart"}
    ) as rewritten:  # fmt: skip
        stream = rewritten.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                rewritten.mux(packet)

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *message: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(RuntimeError, match=r"range requests: download it.*faststart"):
            LiveVideo(f"{url}/index_last.mp4")
        with pytest.raises(RuntimeError, match=r"ffplay URL`\.$"):
            LiveVideo(f"{url}/none.mp4")
        with LiveVideo(f"{url}/index_first.mp4") as live:
            steps = ours.propagate_in_video(prompted(ours, live))
            assert [next(steps)[0] for _ in range(3)] == [0, 1, 2]
        server.shutdown()


def test_a_stream_that_does_not_come_back(ours: LongVideoPredictor) -> None:
    server = Server(0, 15)
    url = f"http://127.0.0.1:{server.port}/live.ts"
    state = prompted(ours, LiveVideo(url, reconnect_seconds=0.5))
    tracked: list[int] = []
    with pytest.raises(RuntimeError, match=r"lost after 15 frames .* within 0.5 s"):
        tracked.extend(frame_idx for frame_idx, _, _ in ours.propagate_in_video(state))
    assert len(tracked) == 15
    server.kill()


def test_a_stream_that_stalls(ours: LongVideoPredictor) -> None:
    """The sender hangs with its connection open."""
    server = Server(0, 4000)
    url = f"http://127.0.0.1:{server.port}/live.ts"
    live = LiveVideo(url, timeout_seconds=4.0, reconnect_seconds=0.5)
    state = prompted(ours, live)
    steps = ours.propagate_in_video(state)
    assert [next(steps)[0] for _ in range(10)] == list(range(10))
    server.stall()
    try:
        with pytest.raises(RuntimeError, match=r"lost after \d+ frames"):
            list(steps)
    finally:
        server.kill()


def test_without_reconnecting_the_end_of_a_stream_is_the_end(ours: LongVideoPredictor) -> None:
    server = Server(0, 15)
    url = f"http://127.0.0.1:{server.port}/live.ts"
    live = LiveVideo(url, reconnect_seconds=0)
    assert len(masks(ours, live)) == 15
    assert live.has_ended
    server.kill()
