"""Files and streams from somebody else: they read no other file and run no program."""

import functools
import http.server
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import videos
from PIL import Image

from longsam.frames import EndOfStreamError, LiveVideo, open_source
from longsam.frames.ffmpeg import FORMATS_OF_OTHER_FILES, formats_of_one_file

SIZE = 64


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's videos, which a hostile file would like to read."""
    folder = tmp_path_factory.mktemp("secret")
    video = videos.write_video(folder / "secret.mp4", 12, options={"g": "6"})
    videos.remux(video, folder / "secret.ts")
    return folder


def ffconcat(secret: Path) -> str:
    return f"ffconcat version 1.0\nfile {secret / 'secret.mp4'}\n"


def ffconcat_beside(secret: Path) -> str:
    os.link(secret / "secret.mp4", secret / "beside.mp4")
    return "ffconcat version 1.0\nfile beside.mp4\n"


def hls(secret: Path) -> str:
    return (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n"
        f"{secret / 'secret.ts'}\n#EXT-X-ENDLIST\n"
    )


def sdp(secret: Path) -> str:
    return (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )


def dash(secret: Path) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-live:2011"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="0"><BaseURL>{secret / "secret.mp4"}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )


@pytest.mark.parametrize("name", ["video.mp4", "video.m3u8", "video.ts", "frame%d.jpg.mp4"])
@pytest.mark.parametrize("playlist", [ffconcat, ffconcat_beside, hls, sdp, dash])
@pytest.mark.parametrize("reader", ["av", "decord"])
def test_playlists_are_not_followed(
    playlist: Any, name: str, reader: Any, secret: Path, tmp_path: Path
) -> None:
    path = (secret if playlist is ffconcat_beside else tmp_path) / name
    (secret / "beside.mp4").unlink(missing_ok=True)
    path.write_text(playlist(secret))
    try:
        with pytest.raises(ValueError, match=f"{name} cannot be opened .*playlist"):
            open_source(path, SIZE, reader=reader)
    finally:
        path.unlink()


def test_a_playlist_that_also_looks_like_mpeg_ts(secret: Path, tmp_path: Path) -> None:
    """PyAV's FFmpeg takes it for MPEG-TS, and decord's, which is older, for a playlist."""
    path = tmp_path / "video.mp4"
    path.write_bytes(hls(secret).encode() + (secret / "secret.ts").read_bytes() * 4)
    with pytest.raises(ValueError, match=r"video\.mp4 cannot be opened by decord"):
        open_source(path, SIZE, reader="decord")


def test_formats_that_hold_their_video_themselves(tmp_path: Path) -> None:
    allowed = set(formats_of_one_file().split(","))
    assert not FORMATS_OF_OTHER_FILES & allowed
    assert {"mov", "matroska", "mpegts", "avi", "flv", "gif", "h264", "hevc", "ivf"} <= allowed
    for suffix, codec, pix_fmt in (
        ("mp4", "libx264", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("ts", "libx264", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mov", "mjpeg", "yuvj420p"),
        ("flv", "libx264", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("h264", "libx264", "yuv420p"),
        ("hevc", "libx265", "yuv420p"),
        ("mjpeg", "mjpeg", "yuvj420p"),
        ("mpg", "mpeg2video", "yuv420p"),
        ("y4m", "rawvideo", "yuv420p"),
        ("ivf", "libvpx-vp9", "yuv420p"),
    ):
        options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
        path = tmp_path / f"video.{suffix}"
        videos.write_video(path, 8, codec=codec, pix_fmt=pix_fmt, options=options)
        source = open_source(path, SIZE)
        assert source.frame_size == (120, 160), suffix
        frames = list(source.read(0, 5))
        assert len(frames) == 5, suffix
        source.close()


def test_a_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos.write_video(tmp_path / "video.mp4", 3).rename(tmp_path / "12:30:05.mp4")
    monkeypatch.chdir(tmp_path)
    assert open_source("12:30:05.mp4", SIZE).num_frames == 3


# Images -------------------------------------------------------------------------------------------


def test_postscript_in_a_jpeg_runs_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked for again
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "0.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(RuntimeError, match=r"0\.jpg cannot be read .*none of JPEG, PNG, WEBP, BMP"):
        open_source(folder, SIZE)
    assert not ran.exists()


def test_other_formats_under_the_name_of_a_jpeg(tmp_path: Path) -> None:
    for name in ("png", "webp", "bmp", "tiff"):  # that is how upstream reads them too
        Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / f"image.{name}")
        (tmp_path / f"image.{name}").rename(tmp_path / "0.jpg")
        assert open_source(tmp_path, SIZE).frame_size == (6, 8)
    Image.new("RGB", (8, 6)).save(tmp_path / "image.gif")
    (tmp_path / "image.gif").rename(tmp_path / "0.jpg")
    with pytest.raises(RuntimeError, match="none of JPEG, PNG"):
        open_source(tmp_path, SIZE)


def png(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes, most of its pixels missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return len(content).to_bytes(4, "big") + name + content + check.to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 65_535])  # Pillow warns of the first, refuses the second
def test_decompression_bombs(side: int, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(side, side))
    with pytest.raises(RuntimeError, match=rf"0\.png is {side}x{side} .* 89,478,485 pixels"):
        open_source(tmp_path, SIZE)


# URLs ---------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL of a server of its files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *message: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def num_frames(live: LiveVideo) -> int:
    live.attach(SIZE)
    count = 0
    with suppress(EndOfStreamError):
        while True:
            live.next_frame()
            count += 1
    return count


@pytest.mark.parametrize("playlist", [ffconcat, hls])
def test_a_playlist_at_a_url_reads_no_local_file(
    playlist: Any, secret: Path, served: tuple[Path, str]
) -> None:
    folder, url = served
    (folder / "list.m3u8").write_text(playlist(secret))
    (folder / "file.m3u8").write_text(playlist(Path(f"file:{secret}")))
    for name in ("list.m3u8", "file.m3u8"):
        with pytest.raises(RuntimeError, match=f"{name} cannot be opened, or sends no video"):
            LiveVideo(f"{url}/{name}", mode="every", timeout_seconds=5)


def test_a_playlist_at_a_url_of_its_own_files(secret: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "secret.ts").write_bytes((secret / "secret.ts").read_bytes())
    (folder / "list.m3u8").write_text(hls(Path(".")))
    with LiveVideo(f"{url}/list.m3u8", mode="every", reconnect_seconds=0) as live:
        assert num_frames(live) == 12


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_of_a_video_at_a_url(degrees: int, served: tuple[Path, str]) -> None:
    folder, url = served
    path = videos.rotate(videos.write_video(folder / "video.mp4", 5), degrees)
    file, whole = open_source(path, SIZE), open_source(path, None)
    with LiveVideo(f"{url}/video.mp4", reconnect_seconds=0) as live:
        assert live.frame_size == file.frame_size == ((120, 160) if degrees == 180 else (160, 120))
        live.attach(SIZE)
        for expected, in_full in zip(file.read(0, 5), whole.read(0, 5), strict=True):
            np.testing.assert_array_equal(live.next_frame(), expected)
            np.testing.assert_array_equal(live.frame, in_full)


def test_a_local_path_as_a_live_source(secret: Path, tmp_path: Path) -> None:
    with LiveVideo(secret / "secret.mp4") as live:
        assert num_frames(live) == 12
    (tmp_path / "list.m3u8").write_text(hls(secret))
    with pytest.raises(RuntimeError, match="cannot be opened"):
        LiveVideo(tmp_path / "list.m3u8")


def test_nothing_is_passed_to_ffmpeg_without_a_whitelist() -> None:
    """`av.open` for reading is called in one place of the readers."""
    folder = Path(open_source.__code__.co_filename).parent
    callers = [path.name for path in folder.glob("*.py") if "av.open(" in path.read_text()]
    assert callers == ["ffmpeg.py"]
