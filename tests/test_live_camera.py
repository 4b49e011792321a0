"""The camera example in a real window: a click on an object, and masks from then on."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from longsam.testing import SyntheticVideo

SCRIPT = Path(__file__).parents[1] / "examples" / "live_camera.py"
NEEDED = ("Xvfb", "xdotool")

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED),
    reason="needs Xvfb and xdotool (apt install xvfb xdotool)",
)


@pytest.fixture
def display() -> Iterator[str]:
    """A screen that nobody sees."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as number:
        yield f":{number.readline().strip()}"
    server.terminate()
    server.wait()


def test_a_click_on_the_picture_adds_an_object(display: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DISPLAY": display, "QT_LOGGING_RULES": "*=false"}
    example = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--frames", "240", "--out", str(tmp_path / "last.png")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def xdotool(*words: str) -> str:
        result = subprocess.run(
            ["xdotool", *words], env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    window = xdotool("search", "--sync", "--onlyvisible", "--name", "^longsam$").split()[0]
    size = re.search(r"Geometry: (\d+)x(\d+)", xdotool("getwindowgeometry", window))
    assert size is not None
    x, y = SyntheticVideo(3, 1, (480, 640)).click(0, 0)
    across, down = x / 640 * int(size[1]), y / 480 * int(size[2])
    xdotool("mousemove", "--window", window, str(round(across)), str(round(down)), "click", "1")
    out, err = example.communicate(timeout=120)
    assert example.returncode == 0, err
    told = re.match(r"(\d+) frames tracked, (\d+) dropped", out)
    assert told is not None
    assert int(told[1]) > 5
    with Image.open(tmp_path / "last.png") as picture:
        assert picture.size == (640, 480)
