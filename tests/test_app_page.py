"""The page in a real browser: what a person does, by the pointer and the keyboard alone.

Needs Debian's chromium, which `.ci/run` installs; skipped where there is none.
"""

import json
import random
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_client import Server
from pycocotools import mask as coco
from sam2.build_sam import build_sam2_video_predictor

from longsam.masks import read_masks
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]

NUM_FRAMES = 600
NUM_OBJECTS = 3
VIDEO = SyntheticVideo(3, NUM_FRAMES, (120, 160), "hard", num_objects=NUM_OBJECTS)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "video.mp4"
    VIDEO.write(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """A tab with the page of a server.

    Args:
        browser: The browser.
        server: The server.
    """

    def __init__(self, browser: Any, server: Server):
        self.errors: list[str] = []
        self.tab = browser.new_page(viewport={"width": 1280, "height": 720})
        self.tab.on("pageerror", lambda error: self.errors.append(f"{error}"))
        self.tab.goto(f"{server.url}/?token={server.token}")
        self.until("p && p.video && p.model.state === 'ready' && !p.busy && s.exact")

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        self.tab.close()
        assert self.errors == []

    def until(self, what: str, seconds: float = 120) -> None:
        """Wait until something is so of the project p and what is shown, s."""
        until = time.monotonic() + seconds
        # Not wait_for_function, which the page's Content-Security-Policy forbids.
        while not self.tab.evaluate(
            f"(() => {{ const p = longsam.project(), s = longsam.shown(); return !!({what}); }})()"
        ):
            assert time.monotonic() < until, (what, self.shown(), self.project())
            self.tab.wait_for_timeout(20)

    def project(self) -> dict[str, Any]:
        project: dict[str, Any] = self.tab.evaluate("longsam.project()")
        return project

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.tab.evaluate("longsam.shown()")
        return shown

    def click(self, x: float, y: float, **how: Any) -> None:
        """Click on a pixel of the video."""
        at = self.tab.evaluate(f"longsam.toWindow({x}, {y})")
        self.tab.mouse.click(at["x"], at["y"], **how)
        self.until("s.waiting === 0 && s.fresh")

    def press(self, *keys: str) -> None:
        self.tab.focus("#view")
        for key in keys:
            self.tab.keyboard.press(key)

    def go_to(self, frame_idx: int) -> None:
        self.tab.fill("#frame", str(frame_idx))
        self.tab.press("#frame", "Enter")
        self.until(f"s.frame === {frame_idx} && s.exact && s.fresh")


def test_prompt_track_find_correct_and_export(video: Path, browser: Any, tmp_path: Path) -> None:
    """Through the page alone, with the video's truth for eyes; the masks are upstream's."""
    with Server(video, tmp_path / "out") as server, Page(browser, server) as page:
        for number in range(NUM_OBJECTS):
            page.press("n")
            page.click(*VIDEO.click(0, number))
        assert [one["id"] for one in page.project()["objects"]] == [1, 2, 3]
        assert sorted(page.shown()["masksOf"]) == [1, 2, 3]
        page.press("t")
        page.until("p.tracking", 30)
        page.until(f"!p.tracking && !p.busy && p.tracked[0]?.[1] === {NUM_FRAMES - 1}", 300)
        page.tab.click("#review")
        page.until("p.spans")
        spans = page.project()["spans"]
        span, frame_idx = next(
            (span, frame_idx)
            for span in spans
            for frame_idx in range(max(span["first"], 20), span["last"] + 1)
            if VIDEO.masks(frame_idx)[span["object"] - 1].sum() > 100
        )
        page.press(".")
        page.until("s.frame > 0 && s.exact")
        assert any(one["first"] <= page.shown()["frame"] <= one["last"] for one in spans)
        page.go_to(frame_idx)
        page.tab.get_by_test_id(f"object-{span['object']}").click()
        before = page.shown()["counts"]
        page.click(*VIDEO.click(frame_idx, span["object"] - 1))
        page.until("p.correction && s.kind === 'prompted'")
        corrected = page.shown()["counts"]
        assert corrected.keys() == before.keys()
        page.go_to(NUM_FRAMES - 1)
        assert page.shown()["kind"] == "before"
        page.tab.click("#correction-track")
        page.until("p.tracking", 30)
        page.until("!p.correction && !p.tracking && !p.busy", 300)
        page.go_to(frame_idx)
        assert page.shown()["kind"] == "tracked"
        assert page.shown()["counts"] == corrected
        with page.tab.expect_download(timeout=120_000) as download:
            page.tab.get_by_test_id("export-coco").click()
            page.tab.get_by_text("Download coco.zip").click(timeout=120_000)
        archive = zipfile.ZipFile(download.value.path())
        contents = map(json.loads, map(archive.read, archive.namelist()))
        exported = next(content for content in contents if "annotations" in content)
    clicks = [(0, number + 1, VIDEO.click(0, number)) for number in range(NUM_OBJECTS)]
    correction = (frame_idx, span["object"], VIDEO.click(frame_idx, span["object"] - 1))
    expected = upstream_masks(video, clicks, correction)
    found = {frame: dict(zip(ids, masks, strict=True)) for frame, ids, masks in
             read_masks(tmp_path / "out")}  # fmt: skip
    assert found.keys() == expected.keys()
    for frame, masks in expected.items():
        for obj_id, mask in masks.items():
            assert np.array_equal(found[frame][obj_id], mask), (frame, obj_id)
    check_coco(exported, expected)


def upstream_masks(
    video: Path, clicks: list[Any], correction: tuple[int, int, Any]
) -> dict[int, dict[int, Any]]:
    predictor = build_sam2_video_predictor(
        CONFIG,
        str(CHECKPOINT),
        device="cpu",
        hydra_overrides_extra=[*OVERRIDES, "++model.add_all_frames_to_correct_as_cond=true"],
    )
    state = predictor.init_state(str(video))
    masks = {}
    for frame_idx, obj_id, xy in clicks:
        predictor.add_new_points_or_box(state, frame_idx, obj_id, points=[xy], labels=[1])
    steps = list(predictor.propagate_in_video(state, 0))
    frame_idx, obj_id, xy = correction
    steps.append(predictor.add_new_points_or_box(state, frame_idx, obj_id, points=[xy], labels=[1]))
    steps += predictor.propagate_in_video(state, frame_idx + 1)
    for frame, obj_ids, logits in steps:
        masks[frame] = dict(zip(obj_ids, (logits[:, 0] > 0).numpy(), strict=True))
    return masks


def check_coco(exported: dict[str, Any], expected: dict[int, dict[int, Any]]) -> None:
    num_pixels = sum(int(mask.sum()) for masks in expected.values() for mask in masks.values())
    found = sum(int(coco.area(one["segmentation"])) for one in exported["annotations"])
    assert found == num_pixels


def test_it_comes_back_where_it_was_when_the_server_is_killed(
    video: Path, browser: Any, tmp_path: Path
) -> None:
    rng = random.Random(0)
    out = tmp_path / "out"
    server = Server(video, out)
    with Page(browser, server) as page:
        page.press("n")
        page.click(*VIDEO.click(0, 0))
        page.press("t")
        page.until("p.tracking && p.tracking.done > 5")
        counts = page.shown()["counts"]
    for _ in range(3):
        time.sleep(rng.uniform(0, 1))  # a moment that nothing else chooses
        server.kill()
        server = Server(video, out)
        with Page(browser, server) as page:  # the pass runs again by itself
            page.until("p.tracking || p.tracked[0]?.[1] > 500")
            page.go_to(0)
            assert page.shown()["counts"] == counts
    with Page(browser, server) as page:
        page.until(f"!p.tracking && p.tracked[0]?.[1] === {NUM_FRAMES - 1}", 300)
    server.__exit__()


def test_keys_and_pointer(video: Path, browser: Any, tmp_path: Path) -> None:
    with Server(video, tmp_path / "out") as server, Page(browser, server) as page:
        for keys, frame_idx in (
            (["f"], 1), (["ArrowRight"], 2), (["v"], 12), (["c"], 2), (["d", "ArrowLeft"], 0),
        ):  # fmt: skip
            page.press(*keys)
            page.until(f"s.frame === {frame_idx} && s.exact")
        page.press("n")
        x, y = VIDEO.click(0, 0)
        page.click(x, y)
        first = page.shown()["counts"]
        assert len(first) == 1
        other = VIDEO.click(0, 1)
        page.click(*other, button="right")
        page.until("p.prompts[0].edits.length === 2")
        page.press("Control+z")
        page.until("p.prompts[0].edits.length === 1 && s.waiting === 0 && s.fresh")
        assert page.shown()["counts"] == first
        page.press("Control+Shift+z")
        page.until("p.prompts[0].edits.length === 2 && s.waiting === 0")
        assert [edit["label"] for edit in page.project()["prompts"][0]["edits"]] == [1, 0]
        page.click(*other)  # on the point: takes it away
        page.until("p.prompts[0].edits.length === 1")
        page.press("n")
        left, top, right, bottom = _box(VIDEO.masks(0)[1])
        ends = [page.tab.evaluate(f"longsam.toWindow({x}, {y})")
                for x, y in ((left, top), (right, bottom))]  # fmt: skip
        page.tab.mouse.move(ends[0]["x"], ends[0]["y"])
        page.tab.mouse.down()
        page.tab.mouse.move(ends[1]["x"], ends[1]["y"], steps=5)
        page.tab.mouse.up()
        page.until("p.prompts.length === 2 && p.prompts[1].edits[0].kind === 'box'")
        page.until("s.waiting === 0 && s.masksOf.length === 2")
        page.press("h")  # hides the selected object
        page.press("2")
        at = page.tab.evaluate(f"longsam.toWindow({x}, {y})")
        page.press("n")
        page.tab.mouse.move(at["x"], at["y"])
        page.tab.mouse.down()
        page.tab.mouse.move(at["x"] + 40, at["y"] + 10, steps=4)
        page.tab.mouse.up()
        page.until("p.prompts.length === 3 && p.prompts[2].edits[0].kind === 'mask'")
        page.press("F1")
        page.tab.wait_for_selector("#help[open]")


def _box(mask: Any) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_second_tab_watches(video: Path, browser: Any, tmp_path: Path) -> None:
    with (
        Server(video, tmp_path / "out") as server,
        Page(browser, server) as first,
        Page(browser, server) as second,
    ):
        assert second.project()["control"] is False
        second.tab.wait_for_selector("#watching:not([hidden])")
        first.press("n")
        first.click(*VIDEO.click(0, 0))
        second.until("p.prompts.length === 1 && s.masksOf.length === 1")
        second.tab.click("#take")
        second.until("p.control")
        first.until("!p.control")
        assert second.project()["control"] is True


def test_what_is_loaded_is_small(video: Path, browser: Any, tmp_path: Path) -> None:
    with Server(video, tmp_path / "out") as server, Page(browser, server) as page:
        sizes = page.tab.evaluate(
            "performance.getEntriesByType('resource').filter(e => !e.name.includes('/frame/'))"
            ".reduce((sum, e) => sum + e.transferSize, 0)"
        )
        assert 0 < sizes < 300_000
        others = page.tab.evaluate(
            "performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
        )
        assert set(others) == {server.url}
