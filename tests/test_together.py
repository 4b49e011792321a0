"""One video on several workers: the masks of one process, whoever encodes and whoever dies."""

import asyncio
import json
from pathlib import Path

import fleets
import pytest
import torch

from longsam import LongVideoPredictor
from longsam.fleet import Settings, track_together
from longsam.fleet.desk import Desk
from longsam.fleet.features import Encoder, pack, unpack
from longsam.fleet.parts import merge, parts_of
from longsam.masks import MaskWriter
from longsam.testing import SyntheticVideo, load_predictor


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


# Features ---------------------------------------------------------------------------------------


def test_masks_from_given_features_are_those_of_a_run_that_encodes(
    predictor: LongVideoPredictor, tmp_path: Path
) -> None:
    video = SyntheticVideo(1, 8, (120, 160))
    video.write(tmp_path / "video.mp4")
    expected, encodings = [], None
    with predictor.init_state(tmp_path / "video.mp4") as state:
        predictor.add_new_points_or_box(state, 0, 1, box=video.box(0, 0))
        expected = [step[2] for step in predictor.propagate_in_video(state)]
    with (
        Encoder(predictor, str(tmp_path / "video.mp4")) as encoder,
        predictor.init_state(tmp_path / "video.mp4") as state,
    ):
        predictor.add_new_points_or_box(state, 0, 1, box=video.box(0, 0))
        state.source.close()  # no frame is read again
        steps = predictor.propagate_in_video(state)
        for frame_idx, logits in enumerate(expected):
            features, _ = encoder.encode(frame_idx)
            encodings = encodings or features["vision_pos_enc"]
            given = unpack(pack(features), encodings, predictor.device)
            for new, old in zip(given["backbone_fpn"], features["backbone_fpn"], strict=True):
                assert torch.equal(new, old)
                assert new.stride() == old.stride()
            state.put_image_features(frame_idx, given)
            assert torch.equal(next(steps)[2], logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_level_keeps_its_order_in_memory(dtype: torch.dtype) -> None:
    plain = torch.arange(24, dtype=dtype).view(1, 2, 3, 4)
    levels = [
        plain,
        plain.contiguous(memory_format=torch.channels_last),
        plain[..., ::2],  # with gaps, which are closed
    ]
    packed = pack({"backbone_fpn": levels})
    given = unpack(packed, [], torch.device("cpu"))["backbone_fpn"]
    assert all(torch.equal(new, old) for new, old in zip(given, levels, strict=True))
    assert [new.stride() for new in given[:2]] == [old.stride() for old in levels[:2]]
    assert given[0].data_ptr() % 64 == 0


def test_frames_are_handed_out_in_turn_and_not_too_far_ahead() -> None:
    async def run() -> None:
        desk = Desk(num_trackers=2, num_ahead=3)
        waits = asyncio.create_task(desk.work())
        await desk.join(0, 5, 10)
        await asyncio.sleep(0)
        assert not waits.done()  # the other tracker may need frames before it
        await desk.join(1, 4, 10)
        assert await waits == 4
        assert await desk.features_or_work(1, 4) == (None, 5)
        assert await desk.work() == 6
        waits = asyncio.create_task(desk.features_or_work(1, 4))
        await asyncio.sleep(0)
        assert not waits.done()  # 7 is too far ahead of 4
        await desk.put(4, ["features of 4"])
        assert await waits == (["features of 4"], None)
        assert await desk.features_or_work(1, 5) == (None, 7)  # now 5 is the first
        await desk.ended(6)
        assert await desk.features_or_work(1, 6) == (None, None)
        assert await desk.work() is None

    asyncio.run(run())


def test_objects_are_split(tmp_path: Path) -> None:
    (job,) = fleets.write_jobs(tmp_path, [2])
    assert len(job.prompts) == 3
    objects = [[prompt["object"] for prompt in part.prompts] for part in parts_of(job, 2)]
    assert objects == [[1, 3], [2]]
    assert len(parts_of(job, 5)) == 3


def test_masks_of_parts_are_merged(tmp_path: Path) -> None:
    (job,) = fleets.write_jobs(tmp_path, [3], (48, 64))
    settings = Settings(formats=("rle", "object_png", "overlay"))
    logits = torch.randn(3, 3, 1, 48, 64)  # of each frame and object
    scores = {obj_id: (obj_id + 0.5, 0.25) for obj_id in (1, 2, 3)}

    def write(folder: Path, formats: tuple[str, ...], rows: list[int]) -> None:
        video = job.video if "overlay" in formats else None
        with MaskWriter(folder, formats, video=video) as writer:
            for frame_idx in range(3):
                ids = [row + 1 for row in rows]
                masks = logits[frame_idx, rows]
                writer.write(frame_idx, ids, masks, scores=scores, time=frame_idx / 30)

    parts = [tmp_path / "part_0", tmp_path / "part_1"]
    for part, rows in zip(parts, ([0, 2], [1]), strict=True):
        write(part / "masks", ("rle",), rows)
    write(tmp_path / "whole", settings.formats, [0, 1, 2])
    merge(parts, job, settings, tmp_path / "merged")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")]
    assert len(files) == 12
    for file in files:
        assert (tmp_path / "merged" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_cannot_be_split(tmp_path: Path) -> None:
    (job,) = fleets.write_jobs(tmp_path, [2])
    with pytest.raises(ValueError, match="batch_objects"):
        track_together([job], load_predictor, tmp_path, settings=Settings(batch_objects=True))
    with pytest.raises(ValueError, match="num_ahead is 0"):
        track_together([job], load_predictor, tmp_path, num_ahead=0)


# Workers ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_are_those_of_one_process_though_a_worker_is_killed(tmp_path: Path) -> None:
    jobs = fleets.write_jobs(tmp_path, [60, 20])
    flags = ("--together", "--workers", "2", "--save-every", "10", "--quiet")
    with fleets.started(tmp_path, *flags) as driver:
        fleets.wait_for(
            lambda: list((tmp_path / "out" / "unfinished" / "video_00").glob("*/state.pt"))
        )
        fleets.wait_for(lambda: fleets.workers(driver))[0].kill()
        out, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + errors
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["videos"]
    assert [row["frames"] for row in rows] == [60, 20]
    assert rows[0]["deaths"] == 1
    assert rows[0]["resumed_at"] is not None
    for job in jobs:
        fleets.single_run(job, tmp_path / f"single_{job.name}")
        assert fleets.same_masks(tmp_path / f"single_{job.name}", tmp_path / "out" / job.name)


@pytest.mark.slow
def test_one_object_is_encoded_by_others(tmp_path: Path) -> None:
    """The tracker of a video with one object has an encoder beside it; both formats are whole."""
    (job,) = fleets.write_jobs(tmp_path, [20])
    line = json.loads((tmp_path / "jobs.jsonl").read_text())
    line["prompts"] = line["prompts"][:1]
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    flags = ("--together", "--workers", "2", "--format", "rle,png", "--quiet")
    with fleets.started(tmp_path, *flags) as driver:
        out, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + errors
    one = type(job)(job.video, job.prompts[:1])
    fleets.single_run(one, tmp_path / "single")
    masks = "masks.jsonl"
    folder = tmp_path / "out" / job.name
    assert (folder / masks).read_bytes() == (tmp_path / "single" / masks).read_bytes()
    assert len(list((folder / "png").iterdir())) == 20
