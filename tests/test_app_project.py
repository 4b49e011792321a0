"""A project of the page: its masks are upstream's of the same calls, and a kill loses nothing."""

import contextlib
import json
import random
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from app_client import TAB, Server, point
from sam2.build_sam import build_sam2_video_predictor

from longsam.app.log import LOG
from longsam.cli import main
from longsam.masks import MaskFolder, MaskWriter, read_masks, review
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo

NUM_FRAMES = 120
VIDEO = SyntheticVideo(2, NUM_FRAMES, (96, 128))
CORRECTED = 60
PROMPTED = 10

Masks = dict[int, dict[Any, Any]]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "video.mp4"
    VIDEO.write(path)
    return path


def edits_of(project: dict[str, Any], obj_id: Any, frame_idx: int) -> list[Any]:
    for entry in project["prompts"]:
        if (entry["object"], entry["frame"]) == (obj_id, frame_idx):
            return list(entry["edits"])
    return []


Step = tuple[Callable[[dict[str, Any]], bool], Callable[[Server], object]]


def work() -> list[Step]:
    """What a person does: whether each step is done, and how it is done."""

    def prompt(obj_id: Any, frame_idx: int, edits: list[Any]) -> Step:
        return (
            lambda project: edits_of(project, obj_id, frame_idx) == edits,
            lambda server: server.post("prompts", object=obj_id, frame=frame_idx, edits=edits),
        )

    track: Step = (
        lambda project: project["tracked"] == [[0, NUM_FRAMES - 1]],
        lambda server: server.post("track", direction="both"),
    )
    correction: Step = (
        lambda project: project["correction"] is None,
        lambda server: server.post("track", resume=True),
    )
    clicks = [point(VIDEO, CORRECTED, 0), point(VIDEO, CORRECTED, 1, label=0)]
    return [
        prompt(1, PROMPTED, [point(VIDEO, PROMPTED, 0)]),
        prompt("two", PROMPTED, [point(VIDEO, PROMPTED, 1)]),
        track,
        prompt(1, CORRECTED, clicks),
        correction,
        prompt("new", 5, [point(VIDEO, 5, 1)]),
        correction,
    ]


def upstream_masks(video: Path) -> Masks:
    """The masks of upstream after the same calls, of each frame as they were given last."""
    predictor = build_sam2_video_predictor(
        CONFIG,
        str(CHECKPOINT),
        device="cpu",
        hydra_overrides_extra=[*OVERRIDES, "++model.add_all_frames_to_correct_as_cond=true"],
    )
    state = predictor.init_state(str(video))
    masks: Masks = {}

    def note(step: Any) -> None:
        frame_idx, obj_ids, logits = step
        masks[frame_idx] = dict(zip(obj_ids, (logits[:, 0] > 0).numpy(), strict=True))

    def prompt(obj_id: Any, frame_idx: int, clicks: list[Any]) -> None:
        for number in range(1, len(clicks) + 1):
            note(
                predictor.add_new_points_or_box(
                    state,
                    frame_idx,
                    obj_id,
                    points=[[click["x"], click["y"]] for click in clicks[:number]],
                    labels=[click["label"] for click in clicks[:number]],
                )
            )

    def track(start: int, stop: int) -> None:
        for step in predictor.propagate_in_video(
            state, start, max_frame_num_to_track=abs(stop - start), reverse=stop < start
        ):
            note(step)

    prompt(1, PROMPTED, [point(VIDEO, PROMPTED, 0)])
    prompt("two", PROMPTED, [point(VIDEO, PROMPTED, 1)])
    track(PROMPTED, NUM_FRAMES - 1)
    track(PROMPTED - 1, 0)
    prompt(1, CORRECTED, [point(VIDEO, CORRECTED, 0), point(VIDEO, CORRECTED, 1, label=0)])
    track(CORRECTED + 1, NUM_FRAMES - 1)
    prompt("new", 5, [point(VIDEO, 5, 1)])
    track(4, 0)
    return masks


@pytest.fixture(scope="module")
def expected(video: Path) -> Masks:
    masks = upstream_masks(video)
    some = np.stack([mask for frame in masks.values() for mask in frame.values()])
    assert 0.005 < some.mean() < 0.5
    return masks


def check_masks(out: Path, expected: Masks) -> None:
    found = {frame_idx: dict(zip(ids, masks, strict=True)) for frame_idx, ids, masks in
             read_masks(out)}  # fmt: skip
    assert found.keys() == expected.keys()
    for frame_idx, masks in expected.items():
        assert found[frame_idx].keys() == masks.keys(), frame_idx
        for obj_id, mask in masks.items():
            assert np.array_equal(found[frame_idx][obj_id], mask), (frame_idx, obj_id)


def is_ready_or_late(kill_at: float, project: dict[str, Any]) -> bool:
    is_ready = project["video"] and not project["busy"] and project["tracking"] is None
    return bool(is_ready) or time.monotonic() > kill_at


def do_all(server: Server) -> None:
    for is_done, do in work():
        project = server.tracked()
        if not is_done(project):
            do(server)
            assert is_done(server.tracked())


def test_masks_are_upstreams_of_the_same_calls(
    video: Path, tmp_path: Path, expected: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with Server(video, out) as server:
        server.ready()
        do_all(server)
        masks = server.get("masks/60")
        assert masks["kind"] == "tracked"
        assert [one["id"] for one in masks["objects"]] == [1, "two"]
    check_masks(out, expected)
    # The folder is one of `longsam track`.
    assert isinstance(review(out), list)
    assert main(["track", str(video), "--out", str(out), "--testing-model", "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out
    check_masks(out, expected)


@pytest.mark.slow
def test_killed_twenty_times_it_continues_where_it_was(
    video: Path, tmp_path: Path, expected: Masks
) -> None:
    out, rng, num_kills = tmp_path / "out", random.Random(1), 0
    while num_kills < 20:
        shutil.rmtree(out, ignore_errors=True)
        server, at = Server(video, out), 0
        server.ready()
        kill_at = time.monotonic() + rng.uniform(0, 2.5)
        while at < len(work()):
            is_done, do = work()[at]
            try:
                project = server.until(partial(is_ready_or_late, kill_at))
                if time.monotonic() > kill_at:
                    raise httpx.ConnectError("it is time")
                if is_done(project):
                    at += 1
                else:
                    do(server)
            except httpx.TransportError:
                server.kill()
                num_kills += 1
                server = Server(video, out)
                if rng.random() < 0.8:  # else it is killed while it opens
                    server.ready()
                kill_at = time.monotonic() + rng.uniform(0, 2.5)
        server.__exit__()
        check_masks(out, expected)


@pytest.mark.slow
def test_a_correction_can_be_dropped_and_the_old_masks_are_back(
    video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    click = [point(VIDEO, 0, 0)]
    with Server(video, out) as server:
        server.ready()
        server.post("prompts", object=1, frame=0, edits=click)
        server.post("track", end=40)
        assert server.tracked()["tracked"] == [[0, 40]]
        before = server.get("masks/30")
        wrong = [point(VIDEO, 20, 1)]
        assert server.post("prompts", object=1, frame=20, edits=wrong)["kind"] == "prompted"
        project = server.tracked()
        assert project["correction"] | {"at": None} == {
            "frame": 20, "first": 20, "last": 40, "reverse": False, "at": None, "rewinding": None,
        }  # fmt: skip
        assert server.get("masks/30")["kind"] == "before"
        assert server.get("masks/10")["kind"] == "tracked"
        with pytest.raises(httpx.HTTPStatusError, match="frame 20 is being corrected"):
            server.post("prompts", object=1, frame=25, edits=wrong)
        server.post("drop")
        project = server.tracked()
        assert project["correction"] is None
        assert edits_of(project, 1, 20) == []
        assert server.get("masks/30") == before
        server.post("track", direction="forward")
        assert server.tracked()["tracked"] == [[0, NUM_FRAMES - 1]]
    with Server(video, out) as server:  # opened again
        project = server.ready()
        assert project["correction"] is None
        assert edits_of(project, 1, 0) == click
        assert server.get("masks/30") == before


def test_undo_gives_the_mask_that_was_there(video: Path, tmp_path: Path) -> None:
    first, second = point(VIDEO, 0, 0), point(VIDEO, 0, 1, label=0)
    with Server(video, tmp_path) as server:
        server.ready()
        one = server.post("prompts", object=1, frame=0, edits=[first])
        both = server.post("prompts", object=1, frame=0, edits=[first, second])
        assert server.post("prompts", object=1, frame=0, edits=[first]) == one
        assert server.post("prompts", object=1, frame=0, edits=[first, second]) == both
        assert server.post("prompts", object=1, frame=0, edits=[])["kind"] == "none"
        assert server.tracked()["objects"] == []
        mask = {"kind": "mask", "counts": one["objects"][0]["counts"]}
        painted = server.post("prompts", object="bee", frame=3, edits=[mask])
        # The model has it in its own size, so its outline is not the same to the pixel.
        areas = one["objects"][0]["area"], painted["objects"][0]["area"]
        assert abs(areas[0] - areas[1]) < 0.05 * areas[0]
        server.post("object", rename="bee", to="wasp")
        assert [entry["id"] for entry in server.tracked()["objects"]] == ["wasp"]
        server.post("object", remove="wasp")
        assert server.tracked()["objects"] == []


@pytest.mark.slow
def test_a_prompt_pauses_the_pass_and_only_track_continues_it(video: Path, tmp_path: Path) -> None:
    with Server(video, tmp_path) as server:
        server.ready()
        server.post("prompts", object=1, frame=0, edits=[point(VIDEO, 0, 0)])
        server.post("track")
        far = NUM_FRAMES - 1
        server.post("prompts", object=2, frame=far, edits=[point(VIDEO, far, 1)])
        project = server.get("project")
        assert project["tracking"] is None
        assert project["unfinished"]["end"] == far
        server.post("track", resume=True)
        assert server.tracked()["tracked"] == [[0, far]]
    assert MaskFolder(tmp_path).obj_ids(far) == [1, 2]


def test_masks_without_a_save_are_not_dropped(video: Path, tmp_path: Path) -> None:
    """Masks that a script wrote, or `longsam track --save-every 0`."""
    with MaskWriter(tmp_path) as writer:
        for frame_idx in range(3):
            writer.write(frame_idx, [1], np.ones((1, 96, 128), bool))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    with Server(video, tmp_path) as server:
        server.until(lambda project: project["model"]["state"] == "ready")
        with pytest.raises(httpx.HTTPStatusError, match="has masks of 3 frames and no save"):
            server.post("open", video=video.name)
    assert "has masks of 3 frames and no save" in server.errors
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert len(before) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--save-every", "0"), f"has masks of {NUM_FRAMES} frames and no save"),
        (("--snapshot-every", "0"), "kept no snapshots"),
        (("--save-every", "50"), None),
        ((), None),
    ],
)
def test_a_finished_run_keeps_all_its_masks(
    flags: tuple[str, ...], message: str | None, video: Path, tmp_path: Path
) -> None:
    words = ["track", str(video), "--out", str(tmp_path), "--testing-model", "--point",
             "64,48:1", "--quiet", *flags]  # fmt: skip
    assert main(words) == 0
    before = (tmp_path / "masks.jsonl").read_bytes()
    with Server(video, tmp_path) as server:
        project = server.until(lambda project: project["model"]["state"] == "ready")
        if message is not None:
            with pytest.raises(httpx.HTTPStatusError, match=message):
                server.post("open", video=video.name)
        else:
            project = server.ready()
            assert project["tracked"] == [[0, NUM_FRAMES - 1]]
    assert (tmp_path / "masks.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--format", "png,rle,overlay"], ["--format", "rle", "--both"]])
@pytest.mark.parametrize("was_killed", [False, True])
def test_other_formats_of_a_run_are_moved_aside(
    flags: list[str], was_killed: bool, video: Path, tmp_path: Path
) -> None:
    if flags[-1] == "--both":  # then the overlay is drawn after tracking
        flags = ["--format", "rle,overlay", "--both"]
    x, y = VIDEO.click(PROMPTED, 0)
    words = ["--testing-model", "--quiet"]
    prompt = ["--point", f"{x},{y}@{PROMPTED}:1"]
    assert main(["track", str(video), "--out", str(tmp_path), *prompt, *words, *flags]) == 0
    before = {frame_idx: masks for frame_idx, _, masks in read_masks(tmp_path)}
    names = [name for name in ("overlay.mp4", "png") if (tmp_path / name).exists()]
    assert len(names) == flags[1].count(",")
    if was_killed:  # after the record and the index were written
        for name in ("run.json", "frames.jsonl"):
            text = (tmp_path / name).read_text()
            changed = re.sub(r'"formats": ?\[[^]]*\]', '"formats": ["rle"]', text, count=1)
            (tmp_path / name).write_text(changed)
    with Server(video, tmp_path) as server:
        assert server.ready()["tracked"] == [[min(before), NUM_FRAMES - 1]]
        (aside,) = tmp_path.glob("moved-*")
        with server.page(TAB) as page:
            said = json.loads(next(text for text in page if '"message"' in text))["text"]
        assert all(word in said for word in (*names, str(aside)))
        assert sorted(path.name for path in aside.iterdir()) == names
        assert json.loads((tmp_path / "run.json").read_text())["formats"] == ["rle"]
        masks = {frame_idx: masks for frame_idx, _, masks in read_masks(tmp_path)}
        assert all(np.array_equal(masks[i], before[i]) for i in before)
        server.post("prompts", object=1, frame=CORRECTED, edits=[point(VIDEO, CORRECTED, 1)])
        server.post("track", resume=True)
        assert server.tracked()["correction"] is None
    masks = {frame_idx: masks for frame_idx, _, masks in read_masks(tmp_path)}
    assert masks.keys() == before.keys()
    same = [i for i in before if np.array_equal(masks[i], before[i])]
    assert set(range(min(before), CORRECTED)) <= set(same) < set(before)
    x, y = VIDEO.click(CORRECTED, 0)
    assert main(["correct", str(tmp_path), "--point", f"{x},{y}@{CORRECTED}:1", *words]) == 0


@pytest.mark.slow
def test_a_log_of_somebody_elses_is_checked(video: Path, tmp_path: Path) -> None:
    painted = b'{"kind":"mask","counts":"0","file":"/etc/passwd"}'
    for line in (
        b"[1]\n",
        b'{"op": "remove"}\n',
        b'{"op": []}\n',
        b"\xff\n",
        b'{"op":"prompts","object":1,"frame":0,"edits":[' + painted + b"]}\n",
    ):
        (tmp_path / LOG).write_bytes(line)
        with Server(video, tmp_path) as server, contextlib.suppress(httpx.HTTPStatusError):
            project = server.until(lambda project: project["model"]["state"] == "ready")
            assert project["video"] is None
            with pytest.raises(httpx.HTTPStatusError, match=rf"{LOG}, line 1"):
                server.post("open", video=video.name)
