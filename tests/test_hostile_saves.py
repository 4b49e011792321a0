"""Saves from somebody else: nothing is run, fetched, written or removed because of them."""

import os
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import videos

from longsam import LongVideoPredictor, Snapshots, storage


def saved(
    predictor: LongVideoPredictor, video: Path, path: Path, num_frames: int = 12, **options: Any
) -> dict[str, Any]:
    """The content of a save, as an attacker would start from."""
    state = predictor.init_state(video, **options)
    predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    for _ in predictor.propagate_in_video(state, max_frame_num_to_track=num_frames):
        pass
    predictor.save_state(state, path)
    return storage.read(path, "longsam_state", "state", 4)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.write_video(tmp_path_factory.mktemp("hostile") / "video.mp4", 20)


@pytest.mark.parametrize(
    "name", ["../victim/other.txt", "/etc/hosts", "other.txt", "segment_00001_frame_00000000.pt/.."]
)
def test_snapshots_of_other_names_are_refused(
    ours: LongVideoPredictor, video: Path, tmp_path: Path, name: str
) -> None:
    content = saved(ours, video, tmp_path / "state.pt", snapshots=Snapshots(5, tmp_path / "s"))
    victim = tmp_path / "victim" / "other.txt"
    victim.parent.mkdir()
    victim.write_text("precious")
    segment = content["session"]["history"]["segments"][0]
    segment["snapshots"] = {first: name for first in segment["snapshots"]}
    storage.write(content, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="does not hold a state as longsam saves it"):
        ours.load_state(tmp_path / "state.pt")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("folder", ["..", "../victim", "/tmp/victim", "", ".", 5])
def test_snapshots_in_other_folders_are_refused(
    ours: LongVideoPredictor, video: Path, tmp_path: Path, folder: Any
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    content = saved(ours, video, inner / "state.pt", snapshots=Snapshots(5, inner / "s"))
    content["session"]["history"]["folder"] = folder
    storage.write(content, inner / "state.pt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="does not hold a state as longsam saves it"):
        ours.load_state(inner / "state.pt")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_snapshots_that_is_a_link_is_refused(
    ours: LongVideoPredictor, video: Path, tmp_path: Path
) -> None:
    saved(ours, video, tmp_path / "state.pt", snapshots=Snapshots(5, tmp_path / "s"))
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "s").rename(elsewhere)
    (tmp_path / "s").symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    with pytest.raises(ValueError, match="is a link; name the folder for snapshots itself"):
        ours.load_state(tmp_path / "state.pt")
    assert sorted(elsewhere.iterdir()) == before


def test_snapshots_elsewhere_are_named_by_the_caller(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    (tmp_path / "saves").mkdir()
    path = tmp_path / "saves" / "state.pt"
    saved(ours, mp4, path, 60, snapshots=Snapshots(5, tmp_path / "far"))
    with pytest.warns(UserWarning, match=r"load_state\(\.\.\., snapshots=folder\)"):
        loaded = ours.load_state(path)
    list(ours.resume_propagation(loaded))
    with pytest.raises(ValueError, match="cannot be tracked again: there is no snapshot"):
        ours.rewind(loaded, 30)
    loaded = ours.load_state(path, snapshots=tmp_path / "far")
    list(ours.resume_propagation(loaded))
    ours.rewind(loaded, 30)


def test_another_sessions_snapshots_are_not_read(
    ours: LongVideoPredictor, mp4: Path, tmp_path: Path
) -> None:
    saved(ours, mp4, tmp_path / "state.pt", 60, snapshots=Snapshots(5, tmp_path / "s"))
    saved(ours, mp4, tmp_path / "other.pt", 60, snapshots=Snapshots(5, tmp_path / "t"))
    loaded = ours.load_state(tmp_path / "state.pt")
    for path in (tmp_path / "s").iterdir():
        path.write_bytes((tmp_path / "t" / path.name).read_bytes())
    list(ours.resume_propagation(loaded))
    with pytest.raises(ValueError, match="is a snapshot of another session"):
        ours.rewind(loaded, 30)


class _Server(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_nothing_is_fetched(ours: LongVideoPredictor, video: Path, tmp_path: Path) -> None:
    content = saved(ours, video, tmp_path / "state.pt")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for path, said in (
            (f"http://127.0.0.1:{server.server_port}/video.mp4", "not a path on this machine"),
            (str(fifo), "is not a file or a folder"),
            ("/dev/zero", "is not a file or a folder"),
            ("video.mp4", "not a path on this machine"),
            (5, "not a path on this machine"),
        ):
            content["video"]["path"] = path
            storage.write(content, tmp_path / "state.pt")
            with pytest.raises(ValueError, match=said):
                ours.load_state(tmp_path / "state.pt")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert _Server.asked == []


def test_a_file_that_unpacks_to_more_is_refused_at_once(tmp_path: Path, ours: Any) -> None:
    """A few MB of zeros, deflated, would take gigabytes and half a minute."""
    torch.save({"longsam_state": 4, "zeros": torch.zeros(50_000_000)}, tmp_path / "big.pt")
    with (
        zipfile.ZipFile(tmp_path / "big.pt") as big,
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in big.namelist():
            bomb.writestr(name, big.read(name))
    data = (tmp_path / "bomb.zip").read_bytes()
    import zlib

    (tmp_path / "bomb.pt").write_bytes(data + b"\nlongsam crc32 %08x\n" % zlib.crc32(data))
    assert len(data) < 1_000_000
    began = time.process_time()
    with pytest.raises(ValueError, match="it unpacks to more than its size"):
        ours.load_state(tmp_path / "bomb.pt")
    assert time.process_time() - began < 5


def test_tensors_without_their_numbers_are_refused(tmp_path: Path, ours: Any) -> None:
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    storage.write({"longsam_state": 4, "huge": huge}, tmp_path / "huge.pt")
    with pytest.raises(ValueError, match="without its numbers"):
        ours.load_state(tmp_path / "huge.pt")


def test_every_flipped_bit_is_refused(
    ours: LongVideoPredictor, video: Path, tmp_path: Path
) -> None:
    saved(ours, video, tmp_path / "state.pt")
    whole = (tmp_path / "state.pt").read_bytes()
    generator = torch.Generator().manual_seed(0)
    ends = [*range(200), *range(len(whole) - 200, len(whole))]  # headers and directories lie there
    places = torch.randint(len(whole), (200,), generator=generator).tolist()
    for number, place in enumerate(ends + places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << number % 8
        (tmp_path / "flipped.pt").write_bytes(flipped)
        with pytest.raises(ValueError, match="or it is damaged"):
            ours.load_state(tmp_path / "flipped.pt")
