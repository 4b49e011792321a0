"""What a writer holds, refuses and leaves behind: locks, retries, sizes, drops, threads."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from longsam.masks import FORMATS, MaskFolder, MaskWriter, read_masks
from longsam.masks.output import Output

SIZE = (32, 48)
IDS: list[int | str] = [1, "bee"]
IMAGE = np.zeros((*SIZE, 3), np.uint8)
THREAD = "longsam-mask-writer"


def logits(frame_idx: int) -> torch.Tensor:
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(frame_idx))


def write(writer: MaskWriter, frames: range) -> None:
    for i in frames:
        writer.write(i, IDS, logits(i), image=IMAGE)


def make(folder: Path, formats: Any = "rle", num_frames: int = 6) -> Path:
    with MaskWriter(folder, formats) as writer:
        write(writer, range(num_frames))
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with MaskWriter(tmp_path) as writer:
        write(writer, range(2))
        since = r"\d{4}-\d\d-\d\dT[\d:]+[+-][\d:]+"
        mine = rf"is being written by another MaskWriter of this process \(since {since}\)\."
        with pytest.raises(RuntimeError, match=mine):
            MaskWriter(tmp_path, resume=True)
        code = f"""
from longsam.masks import MaskWriter
try:
    MaskWriter({str(tmp_path)!r}, resume=True)
except RuntimeError as error:
    print(error)
"""
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert re.search(rf"by process {os.getpid()} on [\w.-]+ since {since}\.", child.stdout)
        write(writer, range(2, 4))
    assert not (tmp_path / "writer.lock").exists()
    with pytest.raises(FileExistsError):
        MaskWriter(tmp_path)
    assert not (tmp_path / "writer.lock").exists()
    MaskWriter(tmp_path, resume=True).close()
    assert MaskFolder(tmp_path).frames == [0, 1, 2, 3]


HOLDER = """
import os, sys, time
from longsam.masks import MaskWriter
writer = MaskWriter({folder!r})
if {forks} and os.fork() == 0:
    os.write(1, b"%d\\n" % os.getpid())  # at once: print may write text and line end apart
    time.sleep(60)
    os._exit(0)
os.write(1, b"held\\n")
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks of POSIX")
@pytest.mark.parametrize("forks", [False, True])
def test_a_lock_dies_with_its_process(forks: bool, tmp_path: Path) -> None:
    """Even if a child that it forked lives on."""
    code = HOLDER.format(folder=str(tmp_path), forks=forks)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(1 + forks)]
    with pytest.raises(RuntimeError, match=f"is being written by process {child.pid} on "):
        MaskWriter(tmp_path)
    child.kill()
    child.wait()
    MaskWriter(tmp_path).close()
    for pid in set(said) - {"held"}:
        os.kill(int(pid), signal.SIGKILL)
    child.stdout.close()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 900, b'{"pid":"x"}', b"7", b"x" * 5000])
def test_a_lock_file_may_say_anything(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "writer.lock").write_bytes(content)
    with MaskWriter(tmp_path):
        (tmp_path / "writer.lock").write_bytes(content)
        with pytest.raises(RuntimeError, match=r"is being written by another process\."):
            MaskWriter(tmp_path)
    assert not (tmp_path / "writer.lock").exists()


def test_a_format_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"format is \['rle', 'rle'\]; give each only once"):
        MaskWriter(tmp_path, ["rle", "rle"])


def test_a_size_that_changes_is_refused_and_destroys_nothing(tmp_path: Path) -> None:
    small = torch.ones(1, 8, 8)
    with MaskWriter(tmp_path, FORMATS) as writer:
        write(writer, range(3))
        with pytest.raises(ValueError, match=r"frame 3 are 8x8 pixels, but those in .* are 48x32"):
            writer.write(3, [1], small)
        write(writer, range(3, 4))
    before = contents(tmp_path)
    with (
        MaskWriter(tmp_path, FORMATS, resume=True) as writer,
        pytest.raises(ValueError, match=r"frame 4 are 8x8 pixels, but those in .* are 48x32"),
    ):
        writer.write(4, [1], small)
    assert contents(tmp_path) == before
    with MaskWriter(tmp_path, FORMATS, resume=True) as writer:
        writer.drop_after(-1)
        writer.write(0, [1], small, image=np.zeros((8, 8, 3), np.uint8))
    assert MaskFolder(tmp_path).size == (8, 8)


@pytest.mark.parametrize("shape", [(1, 0, 8), (1, 40_000, 8), (1, 9000, 9000)])
def test_sizes_that_are_not_read_are_not_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    with (
        MaskWriter(tmp_path) as writer,
        pytest.raises(ValueError, match="each side must have 1 to 32768"),
    ):
        writer.write(0, [1], torch.zeros(1).expand(shape))
    assert not (tmp_path / "frames.jsonl").exists()


class FakeState(dict[str, Any]):
    """As much of a state as a writer asks for."""

    def __init__(self, last_frame_idx: int):
        super().__init__()
        self.last_frame_idx = last_frame_idx
        self.source = SimpleNamespace(frames=range(10**9))


def test_a_state_that_has_tracked_nothing_destroys_nothing(tmp_path: Path) -> None:
    make(tmp_path, FORMATS)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"has tracked nothing, but .* holds the masks of 6"):
        MaskWriter(tmp_path, FORMATS, resume=FakeState(-1))
    with pytest.raises(ValueError, match="holds no masks of frame 77"):
        MaskWriter(tmp_path, FORMATS, resume=FakeState(77))
    assert contents(tmp_path) == before
    with MaskWriter(tmp_path, FORMATS, resume=FakeState(3)) as writer:
        assert writer.last_frame_idx == 3
        assert len(writer) == 4
    assert contents(tmp_path) == before  # nothing is cut before something is written
    with MaskWriter(tmp_path / "new", resume=FakeState(-1)) as writer:
        write(writer, range(2))


def test_a_writer_that_failed_first_is_closed_and_a_retry_starts_clean(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    writer = MaskWriter(tmp_path / "a", FORMATS, video=tmp_path / "missing.mp4")
    for match in (r"missing\.mp4", "is closed"):
        with pytest.raises((OSError, ValueError), match=match):
            writer.write(0, IDS, logits(0))
    writer.close()
    assert not [t for t in threading.enumerate() if t.name == THREAD]
    with MaskWriter(tmp_path / "a", FORMATS) as writer:
        for i in range(4):
            writer.write(i, IDS, logits(i), image=image)
    with MaskWriter(tmp_path / "b", FORMATS) as writer:
        for i in range(4):
            writer.write(i, IDS, logits(i), image=image)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_full_folder_of_another_kind_fails_the_first_write(tmp_path: Path) -> None:
    (tmp_path / "png").write_text("a file where a folder should be")
    writer = MaskWriter(tmp_path, ["rle", "png"])
    with pytest.raises(OSError, match="png"):
        write(writer, range(1))
    with pytest.raises(ValueError, match="is closed"):
        write(writer, range(1))
    (tmp_path / "png").unlink()
    with MaskWriter(tmp_path, ["rle", "png"]) as writer:
        write(writer, range(3))
    assert MaskFolder(tmp_path).frames == MaskFolder(tmp_path, "png").frames == [0, 1, 2]


@pytest.mark.parametrize("last", [-1, 2])
def test_what_is_dropped_can_be_kept_aside(last: int, tmp_path: Path) -> None:
    folder = make(tmp_path / "a", FORMATS, 70)
    with MaskWriter(folder, FORMATS, resume=True) as writer:
        assert writer.num_after(last) == 69 - last
        assert writer.num_after(69) == 0
        assert writer.drop_after(69, keep_aside=True) is None
        aside = writer.drop_after(last, keep_aside=True)
        assert aside is not None
        assert re.fullmatch(r"dropped-\d{8}-\d{6}", aside.name)
        assert len(writer) == last + 1
        assert MaskFolder(aside).frames == list(range(last + 1, 70))
        write(writer, range(last + 1, 75))
    for format in ("rle", "png", "object_png"):
        whole = list(read_masks(make(tmp_path / "b" / format, FORMATS, 75), format))
        for frame in [*read_masks(aside, format), *read_masks(folder, format)]:
            assert frame.obj_ids == IDS
            assert np.array_equal(frame.masks, whole[frame.frame_idx].masks)
    with av.open(aside / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 70
    with av.open(folder / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 75
    mine, whole_files = contents(folder), contents(tmp_path / "b" / "rle")
    for path in whole_files.keys() - {Path("overlay.mp4")}:
        assert mine[path] == whole_files[path], path


def test_dropped_images_are_removed(tmp_path: Path) -> None:
    make(tmp_path, ["png", "object_png"])
    with MaskWriter(tmp_path, ["png", "object_png"], resume=True) as writer:
        writer.drop_after(2)
        writer.write(3, ["new"], logits(3)[:1])
    assert contents(tmp_path).keys() == {
        Path("frames.jsonl"),
        *(Path("png", f"00000{i}.png") for i in range(4)),
        *(Path("object_png", name, f"00000{i}.png") for i in range(3) for name in ("1", "bee")),
        Path("object_png", "new", "000003.png"),
    }
    assert [frame.obj_ids for frame in read_masks(tmp_path, "png")] == [IDS, IDS, IDS, ["new"]]


def test_an_unclosed_writer_ends_when_it_is_collected(tmp_path: Path) -> None:
    threads = threading.active_count()
    writer = MaskWriter(tmp_path, FORMATS)
    write(writer, range(6))
    del writer
    gc.collect()
    assert threading.active_count() == threads
    assert not (tmp_path / "writer.lock").exists()
    assert MaskFolder(tmp_path).frames == list(range(6))
    assert (tmp_path / "overlay.mp4").exists()
    MaskWriter(tmp_path / "b").__class__  # never written to  # noqa: B018
    gc.collect()
    assert not (tmp_path / "b" / "writer.lock").exists()


UNCLOSED = """
import numpy as np, torch
from longsam.masks import FORMATS, MaskWriter
writer = MaskWriter({folder!r}, FORMATS)
for i in range(6):
    writer.write(i, [1], torch.ones(1, 16, 16), image=np.zeros((16, 16, 3), np.uint8))
{end}
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "import sys; sys.x = writer"])
def test_an_unclosed_writer_ends_with_python(end: str, tmp_path: Path) -> None:
    code = UNCLOSED.format(folder=str(tmp_path), end=end)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stderr) == (0, "")
    assert MaskFolder(tmp_path).frames == list(range(6))
    assert not (tmp_path / "writer.lock").exists()
    with av.open(tmp_path / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 6


def test_a_worker_may_collect_its_own_writer(tmp_path: Path) -> None:
    """A collection may run in any thread; it must not wait for itself."""
    threads = threading.active_count()
    holder = [MaskWriter(tmp_path)]
    write(holder[0], range(3))

    def drop(_: Output) -> None:
        holder.clear()
        gc.collect()

    holder[0]._worker.put(drop, wait=True)
    deadline = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert MaskFolder(tmp_path).frames == [0, 1, 2]
    assert not (tmp_path / "writer.lock").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_is_not_the_object_in_any_format(dtype: torch.dtype, tmp_path: Path) -> None:
    given = torch.ones(2, *SIZE)
    given[0, :4] = torch.nan  # the other object is there
    given[1, 2:8] = torch.nan
    given[0, 10:] = given[1, :20] = -1
    given = given.to(dtype)
    with MaskWriter(tmp_path, FORMATS) as writer:
        writer.write(0, IDS, given, image=IMAGE)
    expected = (given > 0).numpy()
    for format in ("rle", "object_png"):
        assert np.array_equal(MaskFolder(tmp_path, format).read(0).masks, expected)
    indexed = MaskFolder(tmp_path, "png").read(0).masks
    assert np.array_equal(indexed.any(axis=0), expected.any(axis=0))
    assert not (indexed & ~expected).any()


def test_bool_and_integer_masks_in_every_format(tmp_path: Path) -> None:
    given = logits(0) > 0
    with MaskWriter(tmp_path, FORMATS) as writer:
        writer.write(0, IDS, given, image=IMAGE)
        writer.write(1, IDS, given.numpy().astype(np.uint8), image=IMAGE)
    for frame in read_masks(tmp_path):
        assert np.array_equal(frame.masks, given.numpy())
    assert len(list(read_masks(tmp_path, "png"))) == 2


@pytest.mark.parametrize("formats", FORMATS)
def test_flush_syncs_the_files_and_not_the_host(
    formats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()

    def fsync(number: int) -> None:
        synced.add(os.path.realpath(f"/proc/self/fd/{number}"))
        real(number)

    def sync() -> None:
        raise AssertionError("the whole host")

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "sync", sync, raising=False)
    with MaskWriter(tmp_path, formats) as writer:
        write(writer, range(4))
        writer.flush()
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc to see which files")
        files = {str(p) for p in tmp_path.rglob("*") if p.name != "writer.lock"}
        assert files | {str(tmp_path)} == synced - {str(tmp_path / "writer.lock")}
        synced.clear()
        writer.flush()
        assert not [path for path in synced if path.endswith(".png")]


def long_index(folder: Path, num_frames: int) -> Path:
    """As if so many frames had been written."""
    make(folder, ["rle", "png"], 1)
    header, first = (folder / "frames.jsonl").read_bytes().split(b"\n")[:2]
    rest = first.replace(b'"new":[{"id":1,"number":1},{"id":"bee","number":2}],', b"")
    before, after = rest.split(b'"frame":0', 1)
    lines = (b'%s"frame":%d%s' % (before, i, after) for i in range(1, num_frames))
    (folder / "frames.jsonl").write_bytes(b"\n".join([header, first, *lines, b""]))
    return folder


def test_resume_takes_two_seconds_at_half_a_million_frames(tmp_path: Path) -> None:
    long_index(tmp_path, 500_000)
    for begin in (
        lambda: MaskWriter(tmp_path, ["rle", "png"], resume=FakeState(400_000)).close(),
        lambda: MaskWriter(tmp_path, ["rle", "png"], resume=True).close(),
        lambda: MaskFolder(tmp_path),
    ):
        started = time.process_time()  # of this process alone, however busy the machine is
        begin()
        assert time.process_time() - started < 2


def test_resume_holds_nothing_for_a_frame_and_reading_16_bytes(tmp_path: Path) -> None:
    held = {}
    for num_frames in (20_000, 40_000):
        long_index(tmp_path / str(num_frames), num_frames)
        tracemalloc.start()
        writer = MaskWriter(tmp_path / str(num_frames), ["rle", "png"], resume=True)
        writer_bytes = tracemalloc.get_traced_memory()[0]
        folder = MaskFolder(tmp_path / str(num_frames))
        held[num_frames] = writer_bytes, tracemalloc.get_traced_memory()[0] - writer_bytes
        tracemalloc.stop()
        writer.close()
        assert folder.obj_ids(num_frames - 1) == IDS
    writers, folders = zip(*held.values(), strict=True)
    assert abs(writers[1] - writers[0]) < 50_000
    assert abs(folders[1] - folders[0] - 16 * 20_000) < 50_000


def test_png_resume_opens_no_png(tmp_path: Path) -> None:
    make(tmp_path, "png")
    for i in range(5):
        (tmp_path / "png" / f"00000{i}.png").write_bytes(b"")
    with MaskWriter(tmp_path, "png", resume=True) as writer:
        writer.write(6, ["new", "bee", 1], torch.ones(3, *SIZE))
    last = MaskFolder(tmp_path)
    assert last._numbers == {1: 1, "bee": 2, "new": 3}
    assert last.read(5).obj_ids == IDS
