"""The server of the page: what it gives, whom it refuses, and what it says then."""

import contextlib
import http.client
import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from app_client import TAB, Server, point
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from longsam.app.guard import MAX_BODY_BYTES
from longsam.cli import main
from longsam.frames import open_source
from longsam.testing import SyntheticVideo

NUM_FRAMES = 90
SIZE = (72, 96)
VIDEO = SyntheticVideo(2, NUM_FRAMES, SIZE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "video.mp4"
    VIDEO.write(path)
    return path


@pytest.fixture(scope="module")
def server(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(video, tmp_path_factory.mktemp("project")) as server:
        server.ready()
        yield server


def host(server: Server) -> str:
    return server.url.removeprefix("http://")


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes


def asked(server: Server, method: str, path: str, **headers: str) -> Answer:
    """A request with these headers and no others."""
    connection = http.client.HTTPConnection(host(server), timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, path, b"{}" if method == "POST" else None, given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def edits(*given: Any) -> tuple[str, Any]:
    return "prompts", {"object": 1, "frame": 0, "edits": list(given)}


# Who may talk to it --------------------------------------------------------------------------


def test_without_the_token_nothing_is_given(server: Server) -> None:
    own = server.url
    for path in ("/", "/index.html", "/api/project", "/api/frame/0.jpg", "/?token=wrong"):
        assert asked(server, "GET", path).status == 401
    assert asked(server, "POST", "/api/stop", Origin=own, X_Tab=TAB).status == 401
    name = server.cookie.split("=")[0]
    assert asked(server, "GET", "/api/project", Cookie=f"{name}=guess").status == 401
    assert asked(server, "GET", "/api/project", Cookie=f"{name}=; =;").status == 401
    assert asked(server, "GET", "/api/project", Cookie=server.cookie).status == 200


def test_the_token_is_exchanged_for_a_cookie_that_scripts_cannot_read(server: Server) -> None:
    answer = asked(server, "GET", f"/?token={server.token}")
    assert answer.status == 303
    assert answer.headers["location"] == "./"
    given = answer.headers["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=Strict" in given
    page = asked(server, "GET", "/", Cookie=given.split(";")[0])
    assert page.status == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "[::2]"]
)
def test_another_host_is_refused(server: Server, name: str) -> None:
    """DNS rebinding: a name of somebody else's that resolves to this machine."""
    answer = asked(server, "GET", "/api/project", Cookie=server.cookie, Host=name)
    assert answer.status in (400, 421)
    token = asked(server, "GET", f"/?token={server.token}", Host=name)
    assert token.status in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "localhost:9999", "127.0.0.1:1", "[::1]:8264"])
def test_this_machines_own_names_are_taken_at_any_port(server: Server, name: str) -> None:
    """`ssh -L` changes the port."""
    given = {"Cookie": server.cookie, "Host": name, "X_Tab": TAB}
    assert asked(server, "GET", "/api/project", **given).status == 200
    given["Content_Type"] = "application/json"
    assert asked(server, "POST", "/api/control", **given, Origin=f"http://{name}").status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", None])
def test_another_origin_changes_nothing(server: Server, origin: str | None) -> None:
    given = {"Cookie": server.cookie, "Content_Type": "application/json", "X_Tab": TAB}
    if origin is not None:
        given["Origin"] = origin
    assert asked(server, "POST", "/api/stop", **given).status == 403
    if origin is not None:
        assert asked(server, "GET", "/api/project", **given).status == 403


def test_the_websocket_is_guarded_too(server: Server) -> None:
    url = f"ws://{host(server)}/api/events?tab=x"
    good = {"Cookie": server.cookie}
    for origin, headers in (
        (server.url, {}),
        ("https://evil.example", good),
        (None, good),
        (server.url, {"Cookie": "a=b"}),
    ):
        with pytest.raises(InvalidStatus), connect(url, origin=origin, additional_headers=headers):
            pass
    with connect(url, origin=server.url, additional_headers=good) as socket:
        assert json.loads(socket.recv())["type"] == "project"


@pytest.mark.parametrize(
    "path",
    [
        "frame/../../etc/passwd.jpg", "frame/..%2f..%2fetc%2fpasswd.jpg", "frame/-1.jpg",
        "frame/1e3.jpg", "frame/99999999999999999999.jpg", f"frame/{NUM_FRAMES}.jpg",
        "frame/0.jpg?width=99999", "frame/0.svg", "keyframe/..%2f0.jpg",
        f"keyframe/{NUM_FRAMES}.jpg", "keyframe/0.jpg?width=641", "keyframe/0",
        f"masks/{NUM_FRAMES}",
        "masks/..%2f..%2frun.json", "timeline/99/0", "timeline/0/99999999999", "timeline/-1/0",
        "download/..%2f..%2fstate.pt", "download/../state.pt", "download/state.pt",
        "download/%00", "nothing",
    ],
)  # fmt: skip
def test_paths_of_others_lead_nowhere(server: Server, path: str) -> None:
    answer = asked(server, "GET", f"/api/{path}", Cookie=server.cookie)
    assert 400 <= answer.status < 500
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "path", ["/..%2fserver.py", "/../server.py", "/%2e%2e/log.py", "//etc/passwd"]
)
def test_static_files_are_those_of_the_page(server: Server, path: str) -> None:
    assert asked(server, "GET", path, Cookie=server.cookie).status == 404


def test_large_bodies_are_refused(server: Server) -> None:
    large = json.dumps({"to": "x" * MAX_BODY_BYTES})
    given = {"content": large, "headers": {"Content-Type": "application/json"}}
    assert server.client.post("/api/export", **given).status_code == 413

    def parts() -> Iterator[bytes]:  # does not say how long it is
        yield b'{"to": "'
        for _ in range(MAX_BODY_BYTES >> 16):
            yield b"x" * (1 << 16)
        yield b'"}'

    try:
        status = server.client.post("/api/export", content=parts()).status_code
    except httpx.TransportError:  # it was cut off
        status = 0
    assert status != 200
    server.get("project")


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("prompts", {"object": 1, "frame": 0}, "edits"),
        ("prompts", {"object": 1, "frame": NUM_FRAMES, "edits": []}, "frames 0 to 89"),
        ("prompts", {"object": "", "frame": 0, "edits": []}, "cannot be an object's id"),
        ("prompts", {"object": "a\n", "frame": 0, "edits": []}, "cannot be an object's id"),
        ("prompts", {"object": True, "frame": 0, "edits": []}, "object"),
        (*edits({"kind": "point"}), "no edit"),
        (*edits(*[{}] * 2000), "edits"),
        (*edits(point(VIDEO, 0, 0) | {"x": 500}), "outside"),
        (*edits({"kind": "box", "box": [9, 9, 3, 3]}), "box"),
        (*edits({"kind": "mask", "counts": "PPYo0"}), "counts"),
        (*edits({"kind": "mask", "counts": "zz"}), "counts"),
        ("track", {"direction": "sideways"}, "direction"),
        ("track", {}, "click on one first"),
        ("track", {"resume": True}, "no pass"),
        ("keep", {}, "no frame is being corrected"),
        ("object", {"remove": 77}, "no object 77"),
        ("export", {"to": "../../x"}, "no format"),
        ("export", {"to": "coco"}, "no masks yet"),
        ("open", {"video": "../../etc/passwd"}, "no video"),
        ("open", {"video": "a", "path": "b"}, "path"),
    ],
)  # fmt: skip
def test_bad_commands_say_what_is_wrong(server: Server, path: str, body: Any, says: str) -> None:
    server.client.post("/api/control", json={})
    answer = server.client.post(f"/api/{path}", json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert says in answer.json()["error"]


def test_a_second_tab_watches_until_it_takes_control(server: Server) -> None:
    server.client.post("/api/control", json={})
    with server.page(TAB) as first, server.page("second") as socket:
        assert json.loads(first.recv())["control"] is True
        assert json.loads(socket.recv())["control"] is False
        headers = {"X-Tab": "second"}
        answer = server.client.post("/api/stop", json={}, headers=headers)
        assert answer.status_code == 409
        assert "another tab controls" in answer.json()["error"]
        server.client.post("/api/control", json={}, headers=headers)
        while not json.loads(socket.recv(timeout=10)).get("control"):
            pass
        assert server.client.post("/api/stop", json={}, headers=headers).status_code == 200
    server.client.post("/api/control", json={})


# What it gives -------------------------------------------------------------------------------


def test_frames_are_the_videos(server: Server, video: Path) -> None:
    source = open_source(str(video), None)
    for frame_idx in (0, 1, 2, 60, 59, 58, 3, 89):
        (expected,) = source.read(frame_idx, frame_idx + 1)
        png = server.client.get(f"/api/frame/{frame_idx}.png", params={"seq": frame_idx})
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.content))), expected)
        jpeg = server.client.get(f"/api/frame/{frame_idx}.jpg", params={"width": 640})
        image = np.asarray(Image.open(io.BytesIO(jpeg.content)), np.float64)
        assert image.shape == expected.shape
        assert np.abs(image - expected).mean() < 6
        near = server.client.get(f"/api/keyframe/{frame_idx}.jpg", params={"width": 960})
        shown = int(near.headers["X-Frame"])
        assert 0 <= shown <= frame_idx
        (expected,) = source.read(shown, shown + 1)
        image = np.asarray(Image.open(io.BytesIO(near.content)), np.float64)
        assert image.shape == expected.shape
        assert np.abs(image - expected).mean() < 6
    source.close()


@pytest.mark.slow
def test_the_timeline_has_area_and_score(video: Path, tmp_path: Path) -> None:
    with Server(video, tmp_path) as server:
        server.ready()
        server.post("prompts", object=1, frame=10, edits=[point(VIDEO, 10, 0)])
        server.post("track", end=49)
        server.tracked()
        rows, version, *codes = _tile(server, 0, 0)
        assert (rows, version > 0) == (1, True)
        least, most, score = codes
        there = slice(10, 50)
        assert (least[there] > 1).any()
        assert (score[there] > 127).any()
        for part in codes:
            assert not part[:10].any()
            assert not part[50:].any()
        assert np.array_equal(least, most)
        _, _, coarse_least, coarse_most, _ = _tile(server, 3, 0)
        for bin_idx in range(2, 6):
            of_bin = least[bin_idx * 8 : bin_idx * 8 + 8]
            assert coarse_most[bin_idx] == of_bin.max()
            assert coarse_least[bin_idx] == of_bin[of_bin > 0].min()
        assert _tile(server, 0, 5)[2:] is not None


def _tile(server: Server, level: int, number: int) -> tuple[Any, ...]:
    content = server.client.get(f"/api/timeline/{level}/{number}").content
    rows, version = np.frombuffer(content, "<u4", 2)
    codes = np.frombuffer(content, np.uint8, offset=8).reshape(rows * 3, 256)
    return int(rows), int(version), *codes


@pytest.mark.slow
def test_masks_are_exported(video: Path, tmp_path: Path) -> None:
    with Server(video, tmp_path) as server:
        server.ready()
        server.post("prompts", object=1, frame=0, edits=[point(VIDEO, 0, 0)])
        server.post("track", end=20)
        server.tracked()
        server.post("review")
        assert isinstance(server.get("project")["spans"], list)
        for name, start in (("coco", b"PK"), ("overlay", b"")):
            server.post("export", to=name)
            project = server.until(lambda project, name=name: _files(project, name) is not None)
            (file,) = _files(project, name)
            content = server.client.get(f"/api/download/{file}")
            assert content.status_code == 200
            assert content.content.startswith(start)
            assert len(content.content) > 500


def _files(project: dict[str, Any], name: str) -> Any:
    return next(one["files"] for one in project["exports"] if one["name"] == name)


@pytest.mark.slow
def test_a_folder_of_videos(video: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(video.read_bytes())
    (tmp_path / "notes.txt").write_text("no video")
    with Server(tmp_path, tmp_path / "out") as server:
        project = server.until(lambda project: project["model"]["state"] == "ready")
        assert project["video"] is None
        assert project["videos"] == ["a.mp4", "b.mp4"]
        assert server.client.get("/api/frame/0.jpg").status_code == 503
        server.post("open", video="b.mp4")
        assert server.ready()["folder"] == str(tmp_path / "out" / "b_masks")
        server.post("open", video="a.mp4")
        assert server.ready()["folder"] == str(tmp_path / "out" / "a_masks")


@pytest.mark.slow
def test_two_servers_cannot_have_one_project(video: Path, tmp_path: Path) -> None:
    with Server(video, tmp_path) as first:
        first.ready()
        with Server(video, tmp_path) as second:
            second.until(lambda project: project["model"]["state"] == "ready")
            answer = second.client.post("/api/open", json={"video": video.name})
            assert answer.status_code >= 400
            assert "another" in answer.json()["error"]


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_it(video: Path, tmp_path: Path) -> None:
    server = Server(video, tmp_path)
    server.ready()
    server.post("prompts", object=1, frame=0, edits=[point(VIDEO, 0, 0)])
    server.post("track")
    server.process.send_signal(signal.SIGINT)
    _, errors = server.process.communicate(timeout=60)
    server.client.close()
    assert "Traceback" not in errors
    with Server(video, tmp_path) as server:
        project = server.ready()
        assert project["prompts"][0]["edits"] == [point(VIDEO, 0, 0)]
        if project["unfinished"]:
            server.post("track", resume=True)
        assert server.tracked()["tracked"] == [[0, NUM_FRAMES - 1]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give a video"),
        (("nothing.mp4", "--testing-model"), "there is no video at nothing.mp4"),
        (("VIDEO",), "no model"),
        (("VIDEO", "--testing-model", "--port", "99999"), "cannot listen on 127.0.0.1, port 99999"),
        (("VIDEO", "--demo"), "--demo makes its own video"),
    ],
)
def test_wrong_words_are_refused_at_once(
    video: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["app", *(str(video) if word == "VIDEO" else word for word in words)]) == 1
    assert says in capsys.readouterr().err
