"""The pictures of the page in docs/pictures, taken in a real browser.

    python tests/benchmarks/page_pictures.py      # three minutes

Needs Debian's chromium. The video is that of `longsam app --demo`. Look at the pictures before you
commit them.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from app_client import Server
from page import browser, open_page, wait

from longsam.cli.app import DEMO_FRAMES
from longsam.testing import SyntheticVideo

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
VIDEO = SyntheticVideo(0, DEMO_FRAMES, (360, 640))


def take(tab: Any, name: str) -> None:
    tab.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(tab.screenshot()))
    picture.convert("RGB").save(PICTURES / f"page_{name}.webp", quality=80, method=6)
    print(name, (PICTURES / f"page_{name}.webp").stat().st_size, flush=True)


def click(tab: Any, frame_idx: int, number: int) -> None:
    x, y = VIDEO.click(frame_idx, number)
    at = tab.evaluate(f"longsam.toWindow({x}, {y})")
    tab.mouse.click(at["x"], at["y"])
    wait(tab, "s.waiting === 0 && s.fresh")


def go_to(tab: Any, frame_idx: int) -> None:
    tab.fill("#frame", str(frame_idx))
    tab.press("#frame", "Enter")
    wait(tab, f"s.frame === {frame_idx} && s.exact && s.fresh")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as made:
        path = Path(folder) / "demo.mp4"
        VIDEO.write(path)
        with Server(path, Path(folder) / "masks") as server:
            server.ready()
            tab = open_page(made, server.url, server.token)
            for number in range(VIDEO.num_objects):
                tab.focus("#view")
                tab.keyboard.press("n")
                click(tab, 0, number)
            take(tab, "prompts")
            tab.focus("#view")
            tab.keyboard.press("t")
            wait(tab, "p.tracking && p.tracking.done > 170")
            go_to(tab, 90)
            take(tab, "tracking")
            wait(tab, f"!p.tracking && !p.busy && p.tracked[0]?.[1] === {DEMO_FRAMES - 1}")
            tab.click("#review")
            wait(tab, "p.spans")
            span = next(
                span
                for span in tab.evaluate("longsam.project().spans")
                if span["first"] > 100
                and VIDEO.masks(span["first"])[span["object"] - 1].sum() > 1000
            )
            go_to(tab, span["first"])
            tab.get_by_test_id(f"object-{span['object']}").click()
            take(tab, "flagged")
            click(tab, span["first"], span["object"] - 1)
            wait(tab, "p.correction && s.kind === 'prompted'")
            go_to(tab, span["first"] + 10)
            take(tab, "correction")
            tab.click("#correction-track")
            wait(tab, "!p.correction && !p.tracking && !p.busy")
            tab.get_by_test_id("export-coco").click()
            wait(tab, "p.exports[0].files")
            tab.get_by_test_id("export-coco").scroll_into_view_if_needed()
            take(tab, "export")


if __name__ == "__main__":
    main()
