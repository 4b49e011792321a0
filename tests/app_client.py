"""A real `longsam app` in a process of its own, and what a page says to it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from longsam.testing import SyntheticVideo

TAB = "test"


class Server:
    """`longsam app` as a user starts it.

    Args:
        video: The video.
        out: The folder of the project; a test that kills gives it again.
        words: Further words of the command.
    """

    def __init__(self, video: Path, out: Path, *words: str):
        command = [sys.executable, "-m", "longsam", "app", str(video), "--out", str(out)]
        self.process = subprocess.Popen(
            [*command, "--testing-model", "--device", "cpu", "--port", "0", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"(http://\S+)/\?token=(\S+)$", line)
        if found is None:
            assert self.process.stderr is not None
            raise AssertionError(line + self.process.stderr.read())
        self.url, self.token = found[1], found[2]
        self.client = httpx.Client(base_url=self.url, headers={"Origin": self.url}, timeout=60)
        self.client.headers["X-Tab"] = TAB
        self.client.get("/", params={"token": self.token})

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            _, self.errors = self.process.communicate(timeout=60)
        finally:
            self.process.kill()

    def kill(self) -> None:
        """SIGKILL, as the system does when memory runs out."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.client.close()

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/{path}").raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(f"/api/{path}", json=body)
        if answer.status_code != 200:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        return answer.json()

    def ready(self) -> dict[str, Any]:
        """The project, once it is open."""
        return self.until(lambda project: project["video"] is not None and not project["busy"])

    def until(self, is_so: Any, seconds: float = 120) -> dict[str, Any]:
        """The project, once something is so."""
        until = time.monotonic() + seconds
        while True:
            project: dict[str, Any] = self.get("project")
            assert project["model"]["state"] != "failed", project["model"]
            if is_so(project):
                return project
            assert time.monotonic() < until, project
            time.sleep(0.02)  # there is nothing to wait on but the server's answer

    @property
    def cookie(self) -> str:
        """What a browser sends back."""
        return "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    def page(self, tab: str) -> ClientConnection:
        """The events that a page is told."""
        url = f"ws{self.url.removeprefix('http')}/api/events?tab={tab}"
        return connect(url, origin=Origin(self.url), additional_headers={"Cookie": self.cookie})

    def tracked(self) -> dict[str, Any]:
        """The project, once no pass runs."""
        return self.until(lambda project: project["tracking"] is None and not project["busy"])


def point(video: SyntheticVideo, frame_idx: int, number: int, label: int = 1) -> dict[str, Any]:
    """A click on an object, as a page sends it."""
    x, y = video.click(frame_idx, number)
    return {"kind": "point", "x": float(x), "y": float(y), "label": label}
