"""How fast the page answers, in a real browser on this machine.

    python tests/benchmarks/page.py                       # all parts, 20 minutes on two cores
    python tests/benchmarks/page.py --parts frames,click

Needs Debian's chromium. Parts:

- frames: an hour of 1080p, H.264, a key frame each 250 (a clip of 20 s, repeated without encoding):
  the first jump, jumps, steps forward and back, while no pass runs.
- click: from a click to its painted mask, on a frame that has rested and on one that has not.
- slow: the same video through a proxy of 80 ms and 20 Mbit/s: dragging the slider for five seconds,
  and how long after it the right frame shows.
- timeline: 200,000 frames of 20 objects: the intervals between frames of the browser, and the time
  of the page's own drawing, while the timeline is panned and zoomed; bytes until the first paint.
- memory: the server's resident memory while a scripted user scrubs and tracks: the most until ten
  minutes, or half of `--minutes`, and the most after that. The cache of pictures is full before.

Writes results/page.json; other parts of an earlier run are kept.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import report
from app_client import Server, point

from longsam import Snapshots
from longsam.app.pictures import CACHE_BYTES
from longsam.masks.lines import FrameLine, Header
from longsam.testing import SyntheticVideo, load_predictor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RATE = 25
GOP = 250
CLIP_FRAMES = 2 * GOP
HOUR_FRAMES = 3600 * RATE
SMALL = (270, 480)

MAX_MEGABYTES = 30
"""How much the server's memory may grow after the first ten minutes."""


def make_clip(path: Path) -> None:
    """20 s of 1080p with grain, in two groups of pictures."""
    video = SyntheticVideo(5, CLIP_FRAMES, SMALL)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 2, (8, 1080, 1920, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.gop_size = GOP
        stream.options = {"crf": "23", "preset": "fast", "x264-params": "scenecut=0:keyint=250"}
        for number, small in enumerate(video):
            large = Image.fromarray(small).resize((1920, 1080), Image.Resampling.BICUBIC)
            noisy = np.clip(np.asarray(large) + grain[number % 8], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())


def repeat(clip: Path, path: Path, num_frames: int) -> None:
    """The clip again and again, packet by packet."""
    with av.open(str(path), "w") as container:
        out = None
        shift, written = 0, 0
        while written < num_frames:
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                if out is None:
                    out = container.add_stream_from_template(stream)
                length = int(Fraction(CLIP_FRAMES, RATE) / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = out
                    container.mux(packet)
                    written += 1
            shift += length


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def open_page(made: Any, url: str, token: str) -> Any:
    tab = made.new_page(viewport={"width": 1280, "height": 720})
    tab.goto(f"{url}/?token={token}")
    wait(tab, "p && p.video && p.model.state === 'ready' && !p.busy && s.exact")
    return tab


def wait(tab: Any, what: str, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    script = f"(() => {{ const p = longsam.project(), s = longsam.shown(); return !!({what}); }})()"
    while not tab.evaluate(script):
        assert time.monotonic() < until, what
        tab.wait_for_timeout(10)


TIMED = """async ([action, frame, key]) => {
  const shown = () => longsam.shown();
  const began = performance.now();
  if (action === "key") {
    document.getElementById("view").dispatchEvent(
      new KeyboardEvent("keydown", { key, code: "Key" + key.toUpperCase(), bubbles: true }));
  } else {
    const field = document.getElementById("frame");
    field.value = String(frame);
    field.dispatchEvent(new Event("change"));
  }
  let near = null;
  while (true) {
    const now = shown();
    if (near === null && Math.abs(now.frame - frame) <= 250 && now.frame <= frame)
      near = performance.now() - began;
    if (now.frame === frame && now.exact) return [near, performance.now() - began];
    if (performance.now() - began > 60000) return [near, null];
    await new Promise(requestAnimationFrame);
  }
}"""
"""Milliseconds until a frame near before shows, and until the frame itself does."""


def numbers(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 1),
        "p95": round(float(np.percentile(values, 95)), 1),
        "most": round(max(values), 1),
        "count": len(values),
    }


def timed(tab: Any, action: str, frame: int, key: str = "") -> list[float]:
    result: list[float] = tab.evaluate(TIMED, [action, frame, key])
    return result


def part_frames(made: Any, hour: Path, work: Path) -> dict[str, Any]:
    rng = random.Random(0)
    with Server(hour, work / "frames") as server:
        server.ready()
        tab = open_page(made, server.url, server.token)
        found: dict[str, Any] = {"first_jump_ms": timed(tab, "jump", 70_001)}
        jumps = [timed(tab, "jump", rng.randrange(HOUR_FRAMES)) for _ in range(40)]
        found["jump_to_near_ms"] = numbers([near for near, _ in jumps])
        found["jump_to_exact_ms"] = numbers([exact for _, exact in jumps])
        for name, key, step in (("next", "f", 1), ("previous", "d", -1)):
            at = 40_100
            timed(tab, "jump", at)
            times = []
            for _ in range(200):
                at += step
                times.append(timed(tab, "key", at, key)[1])
                tab.wait_for_timeout(60)  # a key that is held repeats 15 to 30 times a second
            found[f"{name}_ms"] = numbers(times)
        tab.close()
    return found


CLICK = """async ([x, y, count]) => {
  const at = longsam.toWindow(x, y), view = document.getElementById("view");
  const began = performance.now();
  for (const kind of ["pointerdown", "pointerup"]) {
    view.dispatchEvent(new PointerEvent(kind, { clientX: at.x, clientY: at.y, button: 0,
      buttons: kind === "pointerdown" ? 1 : 0, bubbles: true, pointerId: 1, isPrimary: true }));
  }
  while (true) {
    const now = longsam.shown();
    if (now.masksOf.length === count && now.waiting === 0) return performance.now() - began;
    if (performance.now() - began > 60000) return null;
    await new Promise(requestAnimationFrame);
  }
}"""


def part_click(made: Any, hour: Path, work: Path) -> dict[str, Any]:
    video = SyntheticVideo(5, CLIP_FRAMES, SMALL)
    found: dict[str, list[float]] = {"rested": [], "at_once": []}
    for project in range(4):  # of ten objects each
        with Server(hour, work / f"click_{project}") as server:
            server.ready()
            tab = open_page(made, server.url, server.token)
            for number in range(10):
                name = ("rested", "at_once")[number % 2]
                frame_idx = 1000 * (10 * project + number) + 40
                timed(tab, "jump", frame_idx)
                if name == "rested":
                    tab.wait_for_timeout(1500)
                x, y = video.click(frame_idx % CLIP_FRAMES, 0)
                tab.keyboard.press("n")
                found[name].append(tab.evaluate(CLICK, [4 * x, 4 * y, 1]))
            tab.close()
    return {f"{name}_ms": numbers(times) for name, times in found.items()}


class Proxy:
    """A line of so many milliseconds there and back, and so many bits a second."""

    def __init__(self, port: int, milliseconds: float, bits: float):
        self._target, self._delay, self._rate = port, milliseconds / 2000, bits / 8
        self._loop = asyncio.new_event_loop()
        self._free_at = 0.0
        self.num_bytes = 0
        started = threading.Event()
        self.port = 0

        async def start() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()

        def work() -> None:
            self._loop.create_task(start())
            self._loop.run_forever()

        threading.Thread(target=work, daemon=True).start()
        started.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._pump(reader, to_writer, counts=False), self._pump(to_reader, writer, counts=True)
        )

    async def _pump(self, reader: Any, writer: Any, *, counts: bool) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not piece:
                    writer.close()
                    return
                writer.write(piece)

        sending = asyncio.create_task(send())
        try:
            while piece := await reader.read(4096):
                now = self._loop.time()
                if counts:  # all connections share the line
                    self._free_at = max(self._free_at, now) + len(piece) / self._rate
                    self.num_bytes += len(piece)
                    await asyncio.sleep(max(0.0, self._free_at - now - 0.1))
                await pieces.put(((self._free_at if counts else now) + self._delay, piece))
        except ConnectionError:
            pass
        await pieces.put((self._loop.time() + self._delay, b""))
        await sending


def part_slow(made: Any, hour: Path, work: Path) -> dict[str, Any]:
    with Server(hour, work / "slow") as server:
        server.ready()
        proxy = Proxy(int(server.url.rsplit(":", 1)[1]), 80, 20e6)
        tab = open_page(made, f"http://127.0.0.1:{proxy.port}", server.token)
        answers: list[int] = []
        tab.on("response", lambda answer: answers.append(answer.status)
               if "/api/frame/" in answer.url else None)  # fmt: skip
        box = tab.locator("#scrubber").bounding_box()
        middle = box["y"] + box["height"] / 2
        tab.mouse.move(box["x"] + 5, middle)
        tab.mouse.down()
        began, num_moves, seen = time.monotonic(), 0, set()
        while time.monotonic() - began < 5:
            share = 0.05 + 0.9 * (time.monotonic() - began) / 5
            tab.mouse.move(box["x"] + share * box["width"], middle)
            num_moves += 1
            tab.wait_for_timeout(25)
            seen.add(tab.evaluate("longsam.shown().frame"))
        tab.mouse.up()
        released = time.monotonic()
        wait(tab, "s.exact")
        settled = 1000 * (time.monotonic() - released)
        steps = []
        at = tab.evaluate("longsam.shown().frame")
        for _ in range(40):
            at += 1
            steps.append(timed(tab, "key", at, "f")[1])
            tab.wait_for_timeout(60)
        tab.close()
    return {
        "moves_in_5_s": num_moves,
        "frames_seen_while_dragging": len(seen),
        "frame_answers": len(answers),
        "exact_after_release_ms": round(settled),
        "next_ms": numbers(steps),
        "megabytes": round(proxy.num_bytes / 1e6, 1),
    }


def make_long(path: Path, out: Path, num_frames: int, num_objects: int) -> None:
    """A small video of so many frames, and its masks as a run would have left them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "40"}
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for number in range(num_frames):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    out.mkdir(parents=True)
    rng = np.random.default_rng(0)
    areas = 200 + 150 * np.sin(np.arange(num_frames)[:, None] / rng.uniform(50, 5000, num_objects))
    masks = json.dumps({"frame": 0, "objects": []}).encode() + b"\n"
    header = Header(("rle",), (48, 64))
    with open(out / "frames.jsonl", "wb") as file, open(out / "masks.jsonl", "wb") as of_masks:
        file.write(header.to_line())
        of_masks.write(masks)
        ids = list(range(1, num_objects + 1))
        for number, row in enumerate(areas.astype(int).tolist()):
            line = FrameLine(
                number, ids, row, [(0, 0, 64, 48)] * num_objects, [row[0] / 100.0] * num_objects,
                [0.9] * num_objects, None, (0, len(masks)),
            )  # fmt: skip
            file.write(line.to_line(("rle",)))
    predictor = load_predictor()
    snapshots = Snapshots(500, folder=out / "snapshots")
    with predictor.init_state(path, snapshots=snapshots) as state:  # as after a whole run
        state.extras["last_frame_idx"] = num_frames - 1
        predictor.save_state(state, out / "state.pt")


FLUID = """async (seconds) => {
  const times = [], timeline = document.getElementById("timeline");
  const box = timeline.getBoundingClientRect(), y = box.top + box.height / 2;
  const send = (kind, x, more) => timeline.dispatchEvent(new (kind === "wheel" ? WheelEvent :
    PointerEvent)(kind, { clientX: x, clientY: y, bubbles: true, cancelable: true, pointerId: 1,
    isPrimary: true, ...more }));
  const began = performance.now();
  let before = null, step = 0;
  while (performance.now() - began < 1000 * seconds) {
    const now = await new Promise(requestAnimationFrame);
    if (before !== null) times.push(now - before);
    before = now;
    const x = box.left + box.width * (0.5 + 0.4 * Math.sin(step / 30));
    if (step % 240 < 120) send("wheel", x, { deltaY: step % 240 < 60 ? -40 : 40 });
    else {
      if (step % 240 === 120) send("pointerdown", x, { button: 0, buttons: 1 });
      send("pointermove", x, { button: -1, buttons: 1 });
      if (step % 240 === 239) send("pointerup", x, { button: 0, buttons: 0 });
    }
    step++;
  }
  return [times, longsam.drawTimes()];
}"""


def part_timeline(made: Any, work: Path) -> dict[str, Any]:
    video, out = work / "long.mp4", work / "timeline"
    make_long(video, out, 200_000, 20)
    began = time.monotonic()
    with Server(video, out) as server:
        server.until(lambda project: project["video"] is not None and not project["busy"], 300)
        opened = time.monotonic() - began
        tab = open_page(made, server.url, server.token)
        rows, spans = tab.evaluate("[longsam.project().objects.length, longsam.project().tracked]")
        assert (rows, spans) == (20, [[0, 199_999]])
        loaded = tab.evaluate(
            "performance.getEntriesByType('resource').filter(e => e.responseEnd <="
            " (performance.getEntriesByType('paint').at(-1)?.startTime ?? Infinity))"
            ".reduce((sum, e) => sum + e.transferSize, 0)"
        )
        everything = tab.evaluate(
            "performance.getEntriesByType('resource').reduce((sum, e) => sum + e.transferSize, 0)"
        )
        tab.evaluate(FLUID, 3)  # tiles come
        times, draws = tab.evaluate(FLUID, 15)
        tab.close()
    return {
        "opened_s": round(opened, 1),
        "bytes_until_first_paint": loaded,
        "bytes_until_ready": everything,
        "frame_interval_ms": numbers(times),
        "script_ms": numbers(draws),
    }


def part_memory(made: Any, hour: Path, work: Path, minutes: float) -> dict[str, Any]:
    rng, found = random.Random(1), []
    video = SyntheticVideo(5, CLIP_FRAMES, SMALL)
    with Server(hour, work / "memory") as server:
        server.ready()
        process = psutil.Process(server.process.pid)
        tab = open_page(made, server.url, server.token)
        x, y = video.click(0, 0)
        server.client.post("/api/control", json={})
        click = point(video, 0, 0) | {"x": 4 * x, "y": 4 * y}
        server.post("prompts", object=1, frame=0, edits=[click])
        server.post("track")
        size = 0
        for frame_idx in range(HOUR_FRAMES):
            path = f"/api/frame/{frame_idx}.jpg?width=1280"
            while (answer := server.client.get(path)).status_code == httpx.codes.CONFLICT:
                pass  # the tab waits for another frame, which comes first
            size += len(answer.raise_for_status().content)
            if size > CACHE_BYTES:
                break
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 60 * minutes:
            timed(tab, "jump", rng.randrange(HOUR_FRAMES))
            for key in rng.choices(("f", "d", "v", "c"), k=5):
                tab.keyboard.press(key)
                tab.wait_for_timeout(100)
            if not found or passed - found[-1][0] >= 15:
                found.append((passed, process.memory_info().rss / 1e6))
        tracked = server.get("project")["tracking"]
        server.post("stop")
        tab.close()
    settled = min(10, minutes / 2)
    first = max(size for passed, size in found if passed <= 60 * settled + 15)
    later = max(size for passed, size in found if passed > 60 * settled + 15)
    return {
        "minutes": minutes,
        "tracked_frames": tracked and tracked["done"],
        "settled_after_minutes": settled,
        "megabytes_until_then": round(first),
        "most_megabytes_later": round(later),
        "megabytes_more": round(max(0, later - first)),
        "megabytes_by_second": [(round(passed), round(size)) for passed, size in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="frames,click,slow,timeline,memory")
    parser.add_argument("--minutes", type=float, default=60, help="of the part memory")
    parser.add_argument("--check", action="store_true", help="exit 1 where memory grows")
    options = parser.parse_args()
    parts = options.parts.split(",")
    before = report.numbers_so_far("page")
    with tempfile.TemporaryDirectory(prefix="longsam-page-") as folder, browser() as made:
        work = Path(folder)
        hour = work / "hour.mp4"
        if set(parts) & {"frames", "click", "slow", "memory"}:
            make_clip(work / "clip.mp4")
            repeat(work / "clip.mp4", hour, HOUR_FRAMES)
        runs = {
            "frames": lambda: part_frames(made, hour, work),
            "click": lambda: part_click(made, hour, work),
            "slow": lambda: part_slow(made, hour, work),
            "timeline": lambda: part_timeline(made, work),
            "memory": lambda: part_memory(made, hour, work, options.minutes),
        }
        for name in parts:
            before[name] = runs[name]() | {"commit": report.COMMIT}
            print(name, json.dumps(before[name])[:1500], flush=True)
            report.write("page", before)
            more = before[name].get("megabytes_more", 0)
            if options.check and more > MAX_MEGABYTES:
                raise SystemExit(f"memory grew by {more} MB; at most {MAX_MEGABYTES} MB")


if __name__ == "__main__":
    main()
