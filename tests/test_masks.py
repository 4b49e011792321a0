"""Masks on disk: every format gives back what was tracked, whatever happens to the writer."""

import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from longsam.masks import FORMATS, MaskFolder, MaskWriter, read_masks
from longsam.masks.files import AppendFile
from longsam.masks.formats import davis_palette

SIZE = (46, 60)
NUM_FRAMES = 12


def logits(frame_idx: int, num_objects: int = 3, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Smooth random logits of both signs that overlap; the last object is absent now and then."""
    generator = torch.Generator().manual_seed(frame_idx)
    small = torch.randn(num_objects, 1, 6, 8, generator=generator)
    large = torch.nn.functional.interpolate(small, size, mode="bilinear")
    if frame_idx % 4 == 3:
        large[-1] = -1024
    return large


def image(frame_idx: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*size, 3), 20 * (frame_idx % 10), np.uint8)


IDS: list[int | str] = [7, "bee / wasp", 300]


def write_all(folder: Path, formats: object, frames: range = range(NUM_FRAMES)) -> None:
    with MaskWriter(folder, formats) as writer:  # type: ignore[arg-type]
        for i in frames:
            writer.write(i, IDS, logits(i), image=image(i))


def test_every_format_gives_the_masks_back(tmp_path: Path) -> None:
    write_all(tmp_path / "all", FORMATS)
    written = tmp_path / "all"
    for name in ("rle", "object_png", "png", None):
        frames = list(read_masks(written, name))
        assert [f.frame_idx for f in frames] == list(range(NUM_FRAMES))
        for frame_idx, obj_ids, masks in frames:
            given = logits(frame_idx)[:, 0]
            expected = (given > 0).numpy()
            assert expected.any()
            if name == "png":  # the higher logit wins
                expected &= (given == given.max(dim=0).values).numpy()
            assert obj_ids == IDS
            assert masks.dtype == bool
            assert np.array_equal(masks, expected)
    folder = MaskFolder(written)
    assert folder.areas(5) == (logits(5)[:, 0] > 0).sum(dim=(1, 2)).tolist()
    assert len(folder) == NUM_FRAMES


def test_frames_without_objects(tmp_path: Path) -> None:
    """As from `track_detections` while nothing is found."""
    with MaskWriter(tmp_path, FORMATS) as writer:
        for i in range(4):
            objects = slice(3 * (i % 2))
            writer.write(i, IDS[objects], logits(i)[objects], image=image(i))
    for name in ("rle", "object_png", "png"):
        frames = list(read_masks(tmp_path, name))
        assert [f.obj_ids for f in frames] == [[], IDS, [], IDS]
        assert [f.masks.shape for f in frames] == [(0, *SIZE), (3, *SIZE)] * 2
    with av.open(tmp_path / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 4


def test_the_files_are_what_others_read(tmp_path: Path) -> None:
    """COCO's tools read the JSON lines; a PNG has DAVIS's palette and the object's own number."""
    write_all(tmp_path, FORMATS)
    lines = (tmp_path / "masks.jsonl").read_text().splitlines()
    described = json.loads(lines[4])["objects"][0]
    assert described["id"] == 7
    assert coco.area(described["segmentation"]) == described["area"]
    with Image.open(tmp_path / "png" / "000004.png") as png:
        assert png.mode == "P"
        palette = np.array(png.getpalette()).reshape(-1, 3)
        assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
        assert np.array_equal(palette, davis_palette()[: len(palette)])
        assert set(np.unique(np.asarray(png))) <= {0, 7, 1, 2}
        assert 7 in np.asarray(png)
    with Image.open(tmp_path / "object_png" / "bee%20%2f%20wasp" / "000004.png") as png:
        assert png.mode == "1"
    with av.open(tmp_path / "overlay.mp4") as overlay:
        assert overlay.streams.video[0].codec_context.name == "h264"
        frames = [f.to_ndarray(format="rgb24") for f in overlay.decode(video=0)]
    assert len(frames) == NUM_FRAMES
    for i, frame in enumerate(frames):
        masks = (logits(i) > 0).any(dim=0, keepdim=True).float()
        # Outlines are beside the masks, and ids anywhere, but not on most of the background.
        background = (torch.nn.functional.max_pool2d(masks, 5, 1, 2) == 0)[0, 0].numpy()
        assert background.any()
        assert abs(np.median(frame[background]) - image(i).mean()) < 12


def test_a_pass_over_a_video(ours, checkpoint, mp4: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = ours.init_state(mp4)
    ours.add_new_points_or_box(state, 0, 1, points=[[60, 50]], labels=[1])
    ours.add_new_points_or_box(state, 0, "b", box=[30, 20, 110, 90])
    expected = []
    with MaskWriter(tmp_path, ["rle", "overlay"], video=mp4) as writer:
        for frame_idx, obj_ids, mask_logits in ours.propagate_in_video(
            state, max_frame_num_to_track=19
        ):
            writer.write(frame_idx, obj_ids, mask_logits)
            expected.append((mask_logits[:, 0] > 0).numpy())
    for (_, obj_ids, masks), wanted in zip(read_masks(tmp_path), expected, strict=True):
        assert obj_ids == [1, "b"]
        assert np.array_equal(masks, wanted)
    with av.open(mp4) as video, av.open(tmp_path / "overlay.mp4") as overlay:
        assert overlay.streams.video[0].average_rate == video.streams.video[0].average_rate
        frames = zip(overlay.decode(video=0), video.decode(video=0), expected, strict=False)
        for drawn, original, masks in frames:
            untouched = ~masks.any(axis=0)
            untouched[:, 1:] &= untouched[:, :-1]  # outlines
            untouched[1:] &= untouched[:-1]
            pairs = [f.to_ndarray(format="rgb24")[untouched] for f in (drawn, original)]
            if untouched.sum() > 500:
                assert abs(pairs[0].mean() - pairs[1].mean()) < 30


def test_resume_continues_after_the_last_frame(tmp_path: Path) -> None:
    write_all(tmp_path, FORMATS, range(7))
    with pytest.raises(FileExistsError, match=r"holds the masks of 7 frames.*resume=True"):
        MaskWriter(tmp_path, FORMATS)
    with pytest.raises(ValueError, match="was written with the formats"):
        MaskWriter(tmp_path, "rle", resume=True)
    # What a kill can leave: a torn line in the index, records that are not in the index yet.
    with (tmp_path / "frames.jsonl").open("a") as index:
        index.write('{"frame": 7, "i')
    with (tmp_path / "masks.jsonl").open("a") as lines:
        lines.write('{"frame": 7, "objects": []}\n{"frame"')
    with (tmp_path / "overlay.mp4").open("ab") as overlay:
        overlay.write(b"\0\0\1\0moof torn")
    (tmp_path / "png" / "000007.partial").write_bytes(b"torn")
    with MaskWriter(tmp_path, FORMATS, resume=True) as writer:
        assert writer.last_frame_idx == 6
        for i in range(7, NUM_FRAMES):
            writer.write(i, IDS, logits(i), image=image(i))
    write_all(tmp_path / "whole", FORMATS)
    for name in ("rle", "object_png", "png"):
        pairs = zip(read_masks(tmp_path, name), read_masks(tmp_path / "whole", name), strict=True)
        for mine, whole in pairs:
            assert mine[:2] == whole[:2]
            assert np.array_equal(mine.masks, whole.masks)
    for file in ("masks.jsonl", "frames.jsonl"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    with av.open(tmp_path / "overlay.mp4") as overlay:
        times = [frame.time for frame in overlay.decode(video=0)]
    assert times == pytest.approx([i / 30 for i in range(NUM_FRAMES)])


def test_frames_written_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    write_all(tmp_path, ["rle", "png"], range(7))
    with MaskWriter(tmp_path, ["rle", "png"], resume=True) as writer:
        writer.drop_after(4)
        assert writer.last_frame_idx == 4
        for i in (5, 4, 3):  # back again, with other masks
            writer.write(i, IDS, logits(i + 100))
    frames = list(read_masks(tmp_path))
    assert [f.frame_idx for f in frames] == [0, 1, 2, 3, 4, 5]
    for frame_idx, _, masks in frames:
        seed = frame_idx + 100 if frame_idx >= 3 else frame_idx
        assert np.array_equal(masks, (logits(seed)[:, 0] > 0).numpy())


def test_errors_of_the_worker_reach_the_caller(tmp_path: Path) -> None:
    def write_many(writer: MaskWriter) -> None:
        for i in range(50):
            writer.write(i, IDS, logits(i))

    writer = MaskWriter(tmp_path, "overlay")
    with pytest.raises(ValueError, match="overlay of frame 0 needs the frame itself"):
        write_many(writer)
    with pytest.raises(ValueError, match="is closed"):
        writer.write(50, IDS, logits(50))
    writer = MaskWriter(tmp_path / "b", "overlay")
    writer.write(0, IDS, logits(0), image=image(0))
    writer.write(1, IDS, logits(1), image=image(0, (4, 3)))
    with pytest.raises(ValueError, match="image of frame 1 is 3x4 pixels"):
        writer.close()
    with av.open(tmp_path / "b" / "overlay.ts") as overlay:  # as after a kill
        assert sum(1 for _ in overlay.decode(video=0)) == 1
    assert not [t for t in threading.enumerate() if t.name == "longsam-mask-writer"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_without_room_reaches_the_caller(name: str, tmp_path: Path) -> None:
    """As `OSError`, with no file left that is not whole, and the writer goes on elsewhere."""
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (64, *SIZE, 3), np.uint8)
    writer = MaskWriter(tmp_path, name)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60 if "png" in name else 20_000, hard))

    def write_all() -> None:
        for i in range(64):
            writer.write(i, IDS, logits(i), image=noise[i])
            writer.flush()

    try:
        with pytest.raises(OSError, match="File too large"):
            write_all()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "writer.lock").exists()
    with MaskWriter(tmp_path, name, resume=True) as again:
        for i in range(len(again), 64):
            again.write(i, IDS, logits(i), image=noise[i])
    if name == "overlay":
        with av.open(tmp_path / "overlay.mp4") as overlay:
            assert sum(1 for _ in overlay.decode(video=0)) == 64
    else:
        assert [frame.frame_idx for frame in read_masks(tmp_path)] == list(range(64))


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"format is 'gif'; it must be of rle, png"):
        MaskWriter(tmp_path, "gif")
    with pytest.raises(FileNotFoundError, match="holds no masks"):
        list(read_masks(tmp_path))
    with MaskWriter(tmp_path, "rle") as writer:
        with pytest.raises(ValueError, match="the object id 1.5 is of type float".capitalize()):
            writer.write(0, [1.5], logits(0, 1))
        with pytest.raises(ValueError, match="is there twice"):
            writer.write(0, [1, np.int64(1)], logits(0, 2))
        with pytest.raises(ValueError, match=r"shape \(3, 1, 46, 60\) for the object ids \[1\]"):
            writer.write(0, [1], logits(0))
        writer.write(0, np.array([1, 2]), logits(0, 2))
    with pytest.raises(ValueError, match="'png' cannot be read from it, but 'rle' can"):
        list(read_masks(tmp_path, "png"))
    writer = MaskWriter(tmp_path / "many", "png")
    writer.write(0, range(1000, 1256), torch.ones(256, 1, 4, 4))
    with pytest.raises(ValueError, match="at most 255 objects"):
        writer.close()


def test_after_an_error_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has room again must not put later frames in the place of a missing one."""
    write = AppendFile.write

    def fails_once(file: AppendFile, data: bytes) -> int:
        if data.startswith(b'{"frame":3,"ids"') and not failed:
            failed.append(True)
            raise OSError("no room")
        return write(file, data)

    failed: list[bool] = []
    monkeypatch.setattr(AppendFile, "write", fails_once)
    writer = MaskWriter(tmp_path)

    def write_all() -> None:
        for i in range(50):
            writer.write(i, IDS, logits(i))

    with pytest.raises(OSError, match="no room"):
        write_all()
    with pytest.raises(ValueError, match="is closed"):
        writer.write(50, IDS, logits(50))
    assert MaskFolder(tmp_path).frames == [0, 1, 2]
    with MaskWriter(tmp_path, resume=True) as writer:
        for i in range(3, 6):
            writer.write(i, IDS, logits(i))
    for frame_idx, _, masks in read_masks(tmp_path):
        assert np.array_equal(masks, (logits(frame_idx)[:, 0] > 0).numpy())


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from test_masks import FORMATS, IDS, image, logits
from longsam.masks import MaskWriter
with MaskWriter({folder!r}, FORMATS, resume=True) as writer:
    for i in range((writer.last_frame_idx or -1) + 1, 100000):
        writer.write(i, IDS, logits(i), image=image(i))
        if i >= {report_from}:
            print(i, flush=True)
"""


def test_killed_at_random_moments_nothing_but_the_last_record_is_lost(tmp_path: Path) -> None:
    rng = random.Random(4)
    whole = 0
    for attempt in range(5):
        code = CHILD.format(
            tests=str(Path(__file__).parent),
            folder=str(tmp_path),
            report_from=whole + rng.randrange(1, 40),
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        handed_over = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        handed_over = int(([str(handed_over).encode(), *child.stdout.read().split()])[-1])
        child.wait()
        child.stdout.close()
        folder = MaskFolder(tmp_path)
        # Four may have waited for the worker, and one was being written.
        assert folder.frames == list(range(len(folder)))
        assert handed_over - 5 <= folder.frames[-1] <= handed_over + 1, f"attempt {attempt}"
        assert len(folder) > whole
        whole = len(folder)
        for name in ("rle", "object_png", "png"):
            last = MaskFolder(tmp_path, name).read(whole - 1)
            assert last.masks.any()
        for _, _, masks in read_masks(tmp_path):
            assert masks.shape == (3, *SIZE)
        with av.open(tmp_path / "overlay.ts") as overlay:  # lags by nothing
            assert sum(1 for _ in overlay.decode(video=0)) in {whole, whole + 1}
    for frame_idx, _, masks in read_masks(tmp_path):
        assert np.array_equal(masks, (logits(frame_idx)[:, 0] > 0).numpy())
