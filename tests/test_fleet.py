"""Many videos on a real Ray cluster: whatever is killed, the masks are those of single runs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleets
import fsspec
import numpy as np
import psutil
import pytest
from PIL import Image

from longsam.cli import main
from longsam.fleet import Job, Settings, TrackVideos, read_jobs
from longsam.fleet.engine import WorkerDiedError
from longsam.fleet.jobs import num_frames_by_header
from longsam.fleet.run import Work
from longsam.fleet.store import Store
from longsam.fleet.video import track_video
from longsam.masks import MaskFolder
from longsam.masks.lock import FolderLock
from longsam.testing import SyntheticVideo, load_predictor

BOX = {"frame": 0, "object": 1, "box": [10, 20, 60, 70]}

# Jobs -------------------------------------------------------------------------------------------


def test_a_file_of_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    lines: list[dict[str, Any]] = [
        {"video": "a.mp4", "prompts": [{"object": "bee", "points": [[1, 2]]}]},
        {"video": "/b/a.mp4", "prompts": [{"object": 1, "mask": "m.png"}], "name": "b"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    one, two = read_jobs(path)
    assert one == Job(
        str(tmp_path / "a.mp4"),
        ({"frame": 0, "object": "bee", "points": [[1.0, 2.0]], "labels": [1]},),
        "a",
    )
    assert two.video == "/b/a.mp4"
    assert two.prompts == ({"frame": 0, "object": 1, "mask": str(tmp_path / "m.png")},)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[", "line 1"),
        ("3", '"video" and "prompts"'),
        ('{"video": "a.mp4", "prompts": [], "more": 1}', "nothing else"),
        ('{"video": "a.mp4", "prompts": []}', "at least one"),
        ('{"video": 3, "prompts": [3]}', '"video" is 3'),
        ('{"video": "s3://b/a.mp4", "prompts": [3]}', "is a URL"),
        ('{"video": "a.mp4", "prompts": [3]}', "not an object in braces"),
        ('{"video": "a.mp4", "prompts": [{"object": 1}]}', "no points, no box and no mask"),
        ('{"video": "a.mp4", "prompts": [{"object": 1.5, "box": [1,2,3,4]}]}', '"object" is 1.5'),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "box": [1,2,3]}]}', "x0, y0, x1, y1"),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "box": [1,2,3,NaN]}]}', "x0, y0, x1, y1"),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "points": [[1, 2]], "labels": []}]}',
         "for each of the 1 points"),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "labels": [1]}]}', "without"),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "frame": -1, "box": [1,2,3,4]}]}',
         '"frame" is -1'),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "mask": "m.png", "box": [1,2,3,4]}]}',
         "a mask besides other prompts"),
        ('{"video": "a.mp4", "prompts": [{"object": 1, "size": 3}]}', "size"),
        ('{"video": "a.mp4", "name": "../a", "prompts": [{"object": 1, "points": [[1, 2]]}]}',
         '"name" is'),
        ('{"video": "a.mp4", "name": 3, "prompts": [{"object": 1, "points": [[1, 2]]}]}',
         '"name" is'),
        ('{"video": "unfinished.mp4", "prompts": [{"object": 1, "points": [[1, 2]]}]}',
         '"name" is'),
        (json.dumps({"video": "a.mp4", "prompts": [BOX, BOX]}), "more than one box or mask"),
        (2 * (json.dumps({"video": "a.mp4", "prompts": [BOX]}) + "\n"), "2 jobs have the name"),
        ("", "holds no job"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message) as caught:
        read_jobs(path)
    assert str(path) in str(caught.value) or "2 jobs" in message


def test_lengths_by_the_header(tmp_path: Path) -> None:
    SyntheticVideo(0, 7, (64, 64)).write(tmp_path / "seven.mp4")
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "folder" / "0.jpg")
    (tmp_path / "text.mp4").write_text("no video")
    names = ("seven.mp4", "folder", "text.mp4", "none.mp4")
    assert [num_frames_by_header(str(tmp_path / name)) for name in names] == [7, 1, 0, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"dtype": "int8"}, "dtype"), ({"formats": ("gif",)}, "gif"), ({"save_every": 0}, "every")],
)
def test_wrong_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**given)


# Where masks go ---------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[str]:
    url = "memory://bucket/masks"
    yield url
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_masks_are_whole_or_say_that_they_are_not(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    for name in ("frames.jsonl", "png/0.png"):
        (tmp_path / name).write_text(name)
    store = Store(bucket)
    assert store.finished("a", "digest") is None
    store.upload(tmp_path, "a", "digest", {"name": "a"})
    files = fsspec.filesystem("memory")
    assert files.cat("/bucket/masks/a/png/0.png") == b"png/0.png"
    assert store.finished("a", "digest") == {"name": "a"}
    with pytest.raises(ValueError, match="another job"):
        store.finished("a", "other")
    files.pipe("/bucket/masks/a/fleet.json", b'{"job"')  # as where the power failed
    assert store.finished("a", "digest") is None
    files.pipe("/bucket/masks/b/holiday.jpg", b"")
    with pytest.raises(ValueError, match="not from a fleet"):
        store.finished("b", "digest")
    assert "longsam" in str(store.scratch())


def test_scratch_is_beside_masks_on_a_disk(tmp_path: Path) -> None:
    assert Store(tmp_path / "out").scratch() == tmp_path / "out" / "unfinished"


# One video --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor() -> Any:
    return load_predictor()


def test_a_row_of_a_dataset_is_a_video(predictor: Any, tmp_path: Path) -> None:
    (job,) = fleets.write_jobs(tmp_path, [6])
    fleets.single_run(job, tmp_path / "single")
    track = TrackVideos(lambda: predictor, tmp_path / "out")
    nowhere = [{**job.prompts[0], "box": [0.0, 0.0, 5000.0, 10.0]}]
    batch = {
        "video": np.array([job.video, str(tmp_path / "none.mp4"), job.video]),
        "prompts": [json.dumps(job.prompts), np.array(job.prompts), nowhere],
        "name": np.array(["a", "b", "c"]),
    }
    rows = track(batch)
    assert rows["frames"].tolist() == [6, 0, 0]
    assert rows["masks"].tolist() == [f"{tmp_path}/out/a", "", ""]
    assert rows["error"][0] == ""
    assert "none.mp4" in rows["error"][1]
    assert "(5000, 10) is outside the frame" in rows["error"][2]
    assert fleets.same_masks(tmp_path / "single", tmp_path / "out" / "a")
    assert list((tmp_path / "out" / "unfinished").iterdir()) == []
    again = track({name: column[:1] for name, column in batch.items()})
    assert again["seconds"] == rows["seconds"][:1]
    with pytest.raises(ValueError, match="no column 'prompts'"):
        track({"video": batch["video"]})


def test_a_mask_is_a_prompt(predictor: Any, tmp_path: Path) -> None:
    (job,) = fleets.write_jobs(tmp_path, [3])
    mask = SyntheticVideo(1, 3, (240, 320)).masks(0)[0]
    Image.fromarray(mask).save(tmp_path / "mask.png")
    job = Job(job.video, ({"frame": 1, "object": "a", "mask": str(tmp_path / "mask.png")},))
    store = Store(tmp_path / "out")
    row = track_video(predictor, job, Settings(), store, tmp_path / "scratch")
    assert row["frames"] == 2
    assert MaskFolder(tmp_path / "out" / "video_00").frames == [1, 2]
    Image.new("1", (9, 9)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="9x9 pixels, but the video is 320x240"):
        track_video(predictor, job, Settings(model="other"), Store(tmp_path / "b"), tmp_path)


def test_a_run_counts_what_an_earlier_one_has_done(predictor: Any, tmp_path: Path) -> None:
    done, left = fleets.write_jobs(tmp_path, [3, 2])
    track_video(predictor, done, Settings(), Store(tmp_path / "out"), tmp_path / "scratch")
    work = Work([left, done], None, tmp_path / "out", None, 2)
    assert work.left == [left]
    assert [(each.num_done, each.num_frames) for each in work.known.values()] == [(3, 3), (0, 2)]
    error = WorkerDiedError("its memory ran out")
    work.known[left.name].num_saved = 1
    assert not work.note_death(left, error)
    work.known[left.name].num_saved = 2  # it came further
    assert not work.note_death(left, error)
    assert work.note_death(left, error)
    statuses = [(row.name, row.status, row.deaths) for row in work.result()]
    assert statuses == [(left.name, "skipped", 3), (done.name, "was done", 0)]


def test_one_worker_at_a_time_has_a_video(
    predictor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = fleets.write_jobs(tmp_path, [3])
    folder = tmp_path / "scratch" / job.name
    folder.mkdir(parents=True)
    monkeypatch.setattr("longsam.fleet.video.LOCK_SECONDS", 0)
    lock = FolderLock(folder)
    store = Store(tmp_path / "out")
    with pytest.raises(RuntimeError, match="is being written by"):
        track_video(predictor, job, Settings(), store, tmp_path / "scratch")
    lock.release()
    assert track_video(predictor, job, Settings(), store, tmp_path / "scratch")["frames"] == 3


# The command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--testing-model", "--device", "cpu", "--gpus-per-worker", "1"], "give one of them"),
        (["--testing-model", "--device", "cuda:1", "--gpus-per-worker", "1"], "give cuda"),
        ([], "no model"),
        (["--testing-model", "--cpus-per-worker", "0"], "above 0"),
        (["--testing-model", "--max-deaths", "0"], "max_deaths is 0"),
    ],
)
def test_wrong_flags(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"video": "a.mp4", "prompts": [BOX]}))
    words = ["fleet", str(tmp_path / "jobs.jsonl"), "--out", str(tmp_path / "out"), *flags]
    assert main(words) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_workers_and_driver_are_killed(tmp_path: Path) -> None:
    jobs = fleets.write_jobs(tmp_path, [60, 90, 120])
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write(json.dumps({"video": "none.mp4", "prompts": [BOX]}) + "\n")
    flags = ("--save-every", "10", "--workers", "2", "--quiet")
    with fleets.started(tmp_path, *flags) as first:
        fleets.wait_for(lambda: "video_02" in fleets.saved(tmp_path))
        assert "video_00" not in fleets.saved(tmp_path)  # the longest come first
        before = fleets.wait_for(lambda: fleets.workers(first))
        before[0].kill()
        fleets.wait_for(lambda: set(fleets.workers(first)) - set(before))
        of_first = fleets.workers(first)
        first.kill()
    _, alive = psutil.wait_procs(of_first, timeout=60)
    assert alive == [], "workers outlive their driver"
    assert fleets.saved(tmp_path)

    with fleets.started(tmp_path, *flags) as second:
        out, errors = second.communicate(timeout=300)
    assert second.returncode == 1, errors
    assert "none.mp4" in out
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "report.json").read_text())[
        "videos"]}  # fmt: skip
    assert rows.pop("none")["status"] == "failed"
    assert {row["status"] for row in rows.values()} <= {"done", "was done"}
    assert any(row["resumed_at"] for row in rows.values())
    for number, job in enumerate(jobs):
        assert rows[job.name]["frames"] == 60 + 30 * number
        fleets.single_run(job, tmp_path / f"single_{number}")
        assert fleets.same_masks(tmp_path / f"single_{number}", tmp_path / "out" / job.name)
    assert list((tmp_path / "out" / "unfinished").iterdir()) == []


@pytest.mark.slow
def test_sigterm_stops_it(tmp_path: Path) -> None:
    """As Slurm sends before it ends a job."""
    fleets.write_jobs(tmp_path, [200])
    with fleets.started(tmp_path, "--workers", "1", "--quiet") as driver:
        fleets.wait_for(lambda: fleets.saved(tmp_path))
        driver.terminate()
        out, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, errors
    assert f"To continue: longsam fleet {tmp_path}/jobs.jsonl" in out


POISONED = """
import json, os, signal, sys
from dataclasses import asdict
import longsam.testing
from longsam.fleet import Workers, read_jobs, track_videos

def load():
    predictor = longsam.testing.load_predictor()
    init_state = predictor.init_state

    def dies_of_one(video, **options):
        if "video_01" in str(video):
            os.kill(os.getpid(), signal.SIGKILL)
        return init_state(video, **options)

    predictor.init_state = dies_of_one
    return predictor

folder = sys.argv[1]
jobs = read_jobs(folder + "/jobs.jsonl")
rows = track_videos(jobs, load, folder + "/out", workers=Workers(count=1), max_deaths=2)
print(json.dumps([asdict(row) for row in rows]))
"""


@pytest.mark.slow
def test_a_video_that_kills_its_workers_is_skipped(tmp_path: Path) -> None:
    fleets.write_jobs(tmp_path, [5, 10])
    (tmp_path / "driver.py").write_text(POISONED)
    driver = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path)],
        env=fleets.environment(),
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stderr
    good, poison = json.loads(driver.stdout.splitlines()[-1])
    assert (good["status"], good["frames"]) == ("done", 5)
    assert (poison["status"], poison["deaths"]) == ("skipped", 2)
    assert "2 workers died with it" in poison["error"]


@pytest.mark.slow
def test_a_dataset_of_ray(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")  # both come with ray[data]
    pytest.importorskip("pandas")
    (job,) = fleets.write_jobs(tmp_path, [8])
    fleets.single_run(job, tmp_path / "single")
    code = (
        "import ray, sys, longsam.testing\n"
        "from longsam.fleet import TrackVideos\n"
        "folder = sys.argv[1]\n"
        "rows = ray.data.from_items([{'video': folder + '/video_00.mp4', 'prompts': "
        f"{list(job.prompts)!r}}}])\n"
        "rows = rows.map_batches(TrackVideos, batch_size=1, num_cpus=1,\n"
        "    compute=ray.data.ActorPoolStrategy(size=1), fn_constructor_kwargs={\n"
        "        'load': longsam.testing.load_predictor, 'out': folder + '/out'})\n"
        "(row,) = rows.take_all()\n"
        "assert row['frames'] == 8 and row['error'] == '', row\n"
    )
    driver = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=fleets.environment(),
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stderr
    assert fleets.same_masks(tmp_path / "single", tmp_path / "out" / "video_00")
