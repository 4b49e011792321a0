"""What fails while a session tracks, writes and saves: a clear error, and nothing is lost."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import videos

from longsam import LongVideoPredictor
from longsam.frames import open_source
from longsam.masks import FORMATS, MaskFolder, MaskWriter

CHILD = """
import os, resource, shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import models, torch
from longsam import Autosave
from longsam.masks import FORMATS, MaskWriter

torch.set_num_threads(1)
fault, at = {fault!r}, {at}
folder, kept = Path({folder!r}), Path({kept!r})
changed, held = [], []

def limit(name, value):
    soft, hard = resource.getrlimit(getattr(resource, name))
    changed.append((name, soft))
    resource.setrlimit(getattr(resource, name), (value, hard))

def inflict():
    if fault == "disk_full":
        with open(folder / "filler", "wb") as filler:
            try:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            except OSError:
                pass
    elif fault == "permission":
        folder.chmod(0)
    elif fault == "quota":
        limit("RLIMIT_FSIZE", 100)
    elif fault == "open_files":
        limit("RLIMIT_NOFILE", 3)  # no new one: these three are open
    elif fault == "memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit("RLIMIT_AS", pages * resource.getpagesize() + (64 << 20))
        try:
            while True:
                held.append(bytearray(1 << 18))
        except MemoryError:
            del held[-4:]  # 1 MiB for what raises the error

if fault == "disk_full":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
predictor = models.build_ours(Path({checkpoint!r}))
state = predictor.init_state({video!r})
predictor.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
predictor.add_new_points_or_box(state, 0, "two", box=[30, 20, 110, 90])
error = None
try:
    with MaskWriter(folder / "masks", FORMATS, video={video!r}) as writer:
        for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(
            state, autosave=Autosave(folder / "state.pt", every=5, before_save=writer.flush)
        ):
            writer.write(frame_idx, obj_ids, mask_logits)
            if frame_idx == at:
                inflict()
except Exception as raised:
    error = raised
held.clear()
folder.chmod(0o755)
for name, before in list(changed):
    limit(name, before)
# Without permission an image that was being written cannot be removed; the next writer does that.
assert fault == "permission" or not list((folder / "masks").rglob("*.partial"))
lock = folder / "masks" / "writer.lock"
assert not lock.exists() or fault == "permission" and not lock.read_bytes()
shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("filler", "*.partial"))
print(f"{{type(error).__name__}}: {{error}}")
"""

FAULTS = {
    "disk_full": "OSError: .*No space left",
    "permission": "PermissionError: ",
    "quota": "OSError: .*File too large",
    "open_files": "OSError: .*Too many open files",
    "memory": "MemoryError|RuntimeError: .*memory",
}


@pytest.fixture(scope="module")
def expected(ours: LongVideoPredictor, mp4: Path) -> list[torch.Tensor]:
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.add_new_points_or_box(state, 0, "two", box=[30, 20, 110, 90])
    return [mask_logits[:, 0] > 0 for _, _, mask_logits in ours.propagate_in_video(state)]


@pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts of Linux")
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_session_goes_on(
    fault: str,
    ours: LongVideoPredictor,
    checkpoint: Path,
    mp4: Path,
    expected: list[torch.Tensor],
    tmp_path: Path,
) -> None:
    """Masks and saves made before are whole; with both, the rest is as if nothing had happened."""
    folder, kept = tmp_path / "out", tmp_path / "kept"
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c"]
    if fault == "permission" and os.geteuid() == 0:  # root without what makes it root
        if shutil.which("setpriv") is None:
            pytest.skip("root needs setpriv to lose a permission")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    elif fault == "disk_full":
        command = ["unshare", "--mount", *command]
        if (
            shutil.which("unshare") is None
            or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
        ):
            pytest.skip("mounting needs root")
    code = CHILD.format(
        tests=str(Path(__file__).parent),
        fault=fault,
        at=22,
        folder=str(folder),
        kept=str(kept),
        checkpoint=str(checkpoint),
        video=str(mp4),
    )
    child = subprocess.run([*command, code], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr[-2000:]
    (error,) = child.stdout.splitlines()[-1:]
    assert re.match(FAULTS[fault], error), error
    before = MaskFolder(kept / "masks")
    assert before.frames == list(range(len(before)))
    assert len(before) >= 20
    state = ours.load_state(kept / "state.pt")
    with MaskWriter(kept / "masks", FORMATS, video=mp4, resume=state) as writer:
        for step in ours.resume_propagation(state):
            writer.write(*step)
    for format in ("rle", "object_png"):
        whole = MaskFolder(kept / "masks", format)
        assert whole.frames == list(range(100))
        for frame_idx, _, masks in whole:
            assert np.array_equal(masks, expected[frame_idx].numpy()), frame_idx
    assert len(list((kept / "masks" / "png").iterdir())) == 100
    with av.open(kept / "masks" / "overlay.mp4") as overlay:
        times = [frame.time for frame in overlay.decode(video=0)]
    assert times == pytest.approx([i / 30 for i in range(100)])


def test_time_stamps_that_repeat(tmp_path: Path) -> None:
    """Every frame is delivered, by its place in the file."""
    times = [0, 33, 33, 66, 66, 66, 100]
    path = videos.write_video(tmp_path / "video.mkv", len(times), 64, 80, "ffv1", times=times)
    source = open_source(path, 64)
    frames = list(source.read(0, len(times)))
    assert [frame.tobytes() for frame in source.read(3, len(times))] == [
        frame.tobytes() for frame in frames[3:]
    ]
    expected = videos.write_video(tmp_path / "good.mkv", len(times), 64, 80, "ffv1")
    for mine, theirs in zip(frames, open_source(expected, 64).read(0, len(times)), strict=True):
        assert np.array_equal(mine, theirs)
