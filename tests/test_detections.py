"""Objects from a detector: found, followed, corrected, retired."""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from PIL import Image

from longsam import Autosave, LiveVideo, LongVideoPredictor, Snapshots
from longsam.detections import Detections, as_detections, resume_detections, track_detections
from longsam.detections.boxes import boxes_around, ious, same_masks
from longsam.detections.objects import KnownObject
from longsam.detections.options import Options
from longsam.detections.tracker import Tracker
from longsam.frames import open_source
from longsam.masks import MaskFolder, MaskWriter
from longsam.testing import SyntheticVideo, iou, load_predictor

VIDEO = SyntheticVideo(3, 100)

at_once = partial(track_detections, min_hits=1)  # what is detected once is an object


class Oracle:
    """A detector that knows the truth; asked on every nth frame, in order."""

    def __init__(self, video: SyntheticVideo, every: int, silent: range = range(0)):
        self.video, self.every, self.silent = video, every, silent
        self.asked: list[int] = []

    def __call__(self, frame: np.ndarray) -> Any:
        i = len(self.asked) * self.every
        self.asked.append(i)
        assert np.array_equal(frame, self.video.frame(i))
        if i in self.silent:
            return None
        shown = np.flatnonzero(self.video.visible(i))
        boxes = [self.video.box(i, number) for number in shown]
        return boxes, np.full(len(shown), 0.9), [f"kind {number % 2}" for number in shown]


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


def owners(video: SyntheticVideo, steps: Any) -> tuple[dict[int, set[int]], float]:
    """Which ids have had each object's mask, and on which share of frames it had one."""
    ids_of: dict[int, set[int]] = {number: set() for number in range(video.num_objects)}
    found, shown = 0, 0
    for frame_idx, obj_ids, mask_logits, labels in steps:
        assert len(obj_ids) == len(mask_logits) == len(labels)
        masks, truth = mask_logits[:, 0] > 0, video.masks(frame_idx)
        for number in np.flatnonzero(video.visible(frame_idx)):
            shown += 1
            ious = [iou(mask, truth[number]) for mask in masks]
            if ious and max(ious) > 0.5:
                found += 1
                ids_of[number].add(obj_ids[int(np.argmax(ious))])
                assert labels[int(np.argmax(ious))] == f"kind {number % 2}"
    return ids_of, found / shown


@pytest.mark.parametrize("is_live", [False, True])
def test_every_object_is_found_once(predictor: LongVideoPredictor, is_live: bool) -> None:
    oracle = Oracle(VIDEO, 10)
    video = iter(VIDEO) if is_live else VIDEO
    steps = list(at_once(predictor, video, oracle, detect_every=10))
    assert [step[0] for step in steps] == list(range(100))
    assert oracle.asked == list(range(0, 100, 10))
    ids_of, share = owners(VIDEO, steps)
    assert share > 0.95
    assert sorted(ids_of.values(), key=min) == [{n + 1} for n in range(VIDEO.num_objects)]
    assert {i for step in steps for i in step[1]} == set(range(1, VIDEO.num_objects + 1))


def test_with_no_detection_nothing_changes(predictor: LongVideoPredictor) -> None:
    """What is found on frame 0 is tracked as if it had been prompted there and left alone."""
    oracle = Oracle(VIDEO, 10, silent=range(1, 100))
    steps = list(at_once(predictor, VIDEO, oracle, detect_every=10))
    state = predictor.init_state(VIDEO)
    for number in np.flatnonzero(VIDEO.visible(0)):
        predictor.add_new_points_or_box(state, 0, number + 1, box=VIDEO.box(0, number))
    expected = list(predictor.propagate_in_video(state))
    for mine, theirs in zip(steps, expected, strict=True):
        assert mine[:2] == theirs[:2]
        assert torch.equal(mine[2], theirs[2])


def test_nothing_there(predictor: LongVideoPredictor) -> None:
    for video in (VIDEO, iter(VIDEO)):
        steps = list(at_once(predictor, video, lambda frame: None))
        assert [step[0] for step in steps] == list(range(100))
        assert all(ids == labels == [] for _, ids, _, labels in steps)
        assert all(mask_logits.shape == (0, 1, 256, 256) for _, _, mask_logits, _ in steps)


def test_objects_that_come_later(predictor: LongVideoPredictor) -> None:
    oracle = Oracle(VIDEO, 5, silent=range(33))
    steps = list(at_once(predictor, VIDEO, oracle, detect_every=5, batch_objects=True))
    assert all(ids == [] for _, ids, _, _ in steps[:35])
    assert steps[35][1] == list(range(1, VIDEO.visible(35).sum() + 1))
    assert owners(VIDEO, steps[35:])[1] > 0.95


def test_a_match_confirms_or_corrects(predictor: LongVideoPredictor) -> None:
    """A box that hardly overlaps the mask becomes a prompt, one that fits does not."""
    prompted: list[int] = []
    add = predictor.add_new_points_or_box

    def watched(state: Any, frame_idx: int, obj_id: int, **prompt: Any) -> Any:
        prompted.append(frame_idx)
        return add(state, frame_idx, obj_id, **prompt)

    predictor.add_new_points_or_box = watched  # type: ignore[method-assign]
    try:
        for shift, expected in ((0.0, [0]), (0.35, [0, 10, 20])):
            calls = iter(range(0, 30, 10))

            def detector(frame: np.ndarray, calls: Any = calls, shift: float = shift) -> Any:
                i = next(calls)
                x0, y0, x1, y1 = VIDEO.box(i, 0)
                move = shift * (x1 - x0) if i else 0
                return [[x0 + move, y0, x1 + move, y1]]

            prompted.clear()
            clip = [VIDEO.frame(i) for i in range(30)]
            ids = [
                ids
                for _, ids, _, _ in at_once(
                    predictor, clip, detector, match_iou=0.3, correct_iou=0.6
                )
            ]
            assert ids == [[1]] * 30
            assert prompted == expected
    finally:
        del predictor.add_new_points_or_box


def test_who_is_gone_is_retired_and_comes_back_as_another(predictor: LongVideoPredictor) -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    clip = [VIDEO.frame(i) for i in range(20)] + [grey] * 60 + [VIDEO.frame(i) for i in range(20)]

    def detector(frame: np.ndarray) -> Any:
        return None if np.array_equal(frame, grey) else [VIDEO.box(0, 0)]

    steps = list(
        at_once(predictor, clip, detector, detect_every=10, retire_after=30, correct_iou=0)
    )
    ids = [step[1] for step in steps]
    assert ids[:40] == [[1]] * 40
    assert ids[50:80] == [[]] * 30
    assert ids[80:] == [[2]] * 20


def test_detections_that_are_not_clear_change_nothing(predictor: LongVideoPredictor) -> None:
    """One box around two objects, and two boxes for one object."""
    boxes = np.array([VIDEO.box(0, number) for number in range(VIDEO.num_objects)])
    around = [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]
    jitter = [boxes[0], boxes[0] + [1, 1, 2, 2], boxes[1]]
    found = iter([jitter, [around], [*jitter, around]])
    clip = [VIDEO.frame(i) for i in range(9)]
    steps = list(at_once(predictor, clip, lambda frame: next(found), detect_every=3))
    assert [ids for _, ids, _, _ in steps] == [[1, 2]] * 9


def test_one_thing_is_one_object(predictor: LongVideoPredictor) -> None:
    """Two labels for it: what the second would be turns out to be the first."""
    box = VIDEO.box(0, 0)
    found = iter(
        [([box, box], [0.9, 0.8], ["dog", "wolf"]), None, ([VIDEO.box(6, 0)], None, ["cat"])]
    )
    clip = [VIDEO.frame(i) for i in range(9)]
    steps = list(at_once(predictor, clip, lambda frame: next(found), detect_every=3))
    assert [step[1] for step in steps] == [[1]] * 9
    assert all(labels == ["dog"] and len(logits) == 1 for _, _, logits, labels in steps)


def test_boxes_around_masks() -> None:
    """Right and lower edges are exclusive; one pixel in the corner is not an empty mask."""
    masks = torch.zeros(5, 4, 6, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 3, 5] = masks[2, 1, 2] = masks[2, 2, 4] = masks[4] = True
    expected = [[0, 0, 1, 1], [5, 3, 6, 4], [2, 1, 5, 3], [0, 0, 0, 0], [0, 0, 6, 4]]
    found = boxes_around(masks)
    assert found.dtype == np.float64
    assert found.tolist() == expected
    assert boxes_around(masks[:0]).shape == (0, 4)


def test_ious_of_boxes() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [0, 0, 0, 0]], float)
    assert ious(boxes, boxes).tolist() == [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    assert ious(boxes[:0], boxes).shape == (0, 3)


def test_masks_that_are_nearly_the_same() -> None:
    masks = torch.zeros(4, 50, 60, dtype=torch.bool)
    masks[0, 10:30, 10:30] = masks[2, 10:30, 12:32] = masks[3, 20:40, 20:40] = True
    assert same_masks(masks) == [(0, 2)]


def test_a_correction_beside_a_new_object_is_yielded(predictor: LongVideoPredictor) -> None:
    """Where one object is corrected and another one found, both masks are the new ones."""
    (x0, y0, x1, y1), other = VIDEO.box(3, 0), VIDEO.box(3, 1)
    corrected = [x0, y0, (x0 + x1) / 2, y1]
    clip = [VIDEO.frame(i) for i in range(4)]
    masks = []
    for second in ([corrected], [corrected, other]):
        found = iter([[VIDEO.box(0, 0)], second])
        options: Any = {"detect_every": 3, "match_iou": 0.2, "correct_iou": 0.9}
        *_, last = at_once(predictor, clip, lambda frame, f=found: next(f), **options)
        assert last[1] == [1, 2][: len(second)]
        masks.append(last[2][0])
    assert torch.equal(*masks)


def test_objects_of_a_memory_bank(predictor: LongVideoPredictor, tmp_path: Any) -> None:
    state = predictor.init_state([VIDEO.frame(0)])
    predictor.add_new_mask(state, 0, 4, VIDEO.masks(0)[0])
    predictor.save_memory_bank(state, tmp_path / "bank.pt")
    oracle = Oracle(VIDEO, 5)
    clip = [VIDEO.frame(i) for i in range(20)]
    steps = list(at_once(predictor, clip, oracle, detect_every=5, memory_bank=tmp_path / "bank.pt"))
    others = list(range(5, 4 + int(VIDEO.visible(0).sum())))
    assert [step[1] for step in steps] == [[4, *others]] * 20
    assert steps[0][3][0] == 4
    assert iou(steps[-1][2][0, 0] > 0, VIDEO.masks(19)[0]) > 0.8


@pytest.mark.parametrize("min_hits", [2, 3])
def test_objects_are_yielded_when_confirmed(predictor: LongVideoPredictor, min_hits: int) -> None:
    """Masks are those of an object yielded at once; one that is missed before is dropped."""
    clip = [VIDEO.frame(i) for i in range(20)]
    shown, box = [VIDEO.box(i, 0) for i in range(20)], [VIDEO.box(i, 1) for i in range(20)]
    # Of two objects one is detected always, the other one missed at the second look.
    found = iter([[shown[0], box[0]], [shown[5]], [shown[10], box[10]], [shown[15], box[15]]])
    steps = list(
        track_detections(
            predictor,
            clip,
            lambda frame: next(found),
            detect_every=5,
            min_hits=min_hits,
            correct_iou=0,
        )
    )
    expected = {2: [[], [1], [1], [1, 3]], 3: [[], [], [1], [1]]}[min_hits]
    assert [ids for _, ids, _, _ in steps] == [ids for ids in expected for _ in range(5)]
    assert all(len(ids) == len(logits) == len(labels) for _, ids, logits, labels in steps)
    found = iter([[shown[i]] for i in (0, 5, 10, 15)])
    alone = list(at_once(predictor, clip, lambda frame: next(found), detect_every=5, correct_iou=0))
    for mine, same in zip(steps[10:], alone[10:], strict=True):
        assert torch.equal(mine[2][:1], same[2])


@pytest.mark.parametrize("scale", [0.45, 0.7, 1.9, 2.2])
def test_loose_and_tight_boxes_confirm_too(predictor: LongVideoPredictor, scale: float) -> None:
    """Far below `match_iou`, but of one object only."""
    boxes = np.array([VIDEO.box(i, 0) for i in range(31)])
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    scaled = np.concatenate([middles - scale * sides / 2, middles + scale * sides / 2], 1)
    found = iter([[box] for box in scaled[::5]])
    clip = [VIDEO.frame(i) for i in range(31)]
    steps = list(track_detections(predictor, clip, lambda frame: next(found), detect_every=5))
    assert [step[1] for step in steps] == [[]] * 5 + [[1]] * 26


def test_of_two_on_one_mask_the_confirmed_stays(predictor: LongVideoPredictor) -> None:
    """An object that was hidden for a look comes back to where a new one has been started."""
    clip = [VIDEO.frame(i) for i in range(4)]
    options = Options(1, 0.5, 0.3, 0.5, min_hits=2, retire_after=100, max_objects=None)
    state, source = predictor.init_state(clip), open_source(clip, None)
    tracker = Tracker(predictor, state, source, lambda frame: None, options, False, False)
    box = VIDEO.box(0, 0)
    for obj_id in (1, 2):
        _, _, mask_logits = predictor.add_new_points_or_box(tracker.state, 0, obj_id, box=box)
    tracker.objects.by_id = {
        1: KnownObject("a", 3, num_hits=7, last_hit=2),
        2: KnownObject("a", 2, 1, 2),
    }
    after, is_changed = tracker._detect(3, mask_logits)
    assert is_changed
    assert tracker.objects.ids == [1]
    assert len(after) == 1


def test_a_video_too_short_to_confirm(predictor: LongVideoPredictor) -> None:
    with pytest.warns(UserWarning, match="no object is yielded before frame 10"):
        track_detections(predictor, [VIDEO.frame(i) for i in range(10)], lambda frame: None)


def test_limits(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    clip = [VIDEO.frame(i) for i in range(3)]
    shown = [VIDEO.box(0, number) for number in np.flatnonzero(VIDEO.visible(0))]
    scores = [0.6, 0.9, 0.3][: len(shown)]
    for options, count in (({}, 2), ({"min_score": 0.7}, 1), ({"max_objects": 1}, 1)):
        steps = list(at_once(predictor, clip, lambda frame: (shown, scores), **options))
        assert len(steps[0][1]) == count
    bank = tmp_path / "bank.pt"
    state = predictor.init_state(clip)
    for obj_id in (1, 2):
        predictor.add_new_points_or_box(state, 0, obj_id, box=shown[obj_id - 1])
    predictor.save_memory_bank(state, bank)
    for _, ids, _, _ in at_once(
        predictor, clip, lambda frame: [[200, 200, 250, 250]], max_objects=1, memory_bank=bank
    ):
        assert set(ids) <= {1, 2}  # there are more than the limit already
    outside = [[-50, -50, -10, -10], [200, 200, 300, 300]]
    steps = list(at_once(predictor, clip, lambda frame: outside))
    assert len(steps[0][1]) == 1


@pytest.mark.slow
def test_memory_stays_the_same(predictor: LongVideoPredictor) -> None:
    """A correction on every fifth frame."""
    states: list[Any] = []
    init_state = predictor.init_state
    predictor.init_state = lambda *a, **k: states.append(init_state(*a, **k)) or states[-1]  # type: ignore
    try:
        video = SyntheticVideo(1, 400, num_objects=1)
        steps = at_once(
            predictor, video, Oracle(video, 5), detect_every=5, correct_iou=1.0, max_prompt_frames=4
        )
        held = [
            (len(ids), predictor.memory_usage(states[0])["total"]["cpu"]) for _, ids, _, _ in steps
        ]
    finally:
        del predictor.init_state
    early, late = (
        max(size for count, size in part if count == 1) for part in (held[100:200], held[200:])
    )
    # A pass without corrections besides keeps the frames around its start.
    assert late <= 1.15 * early


def test_who_closes_the_video(predictor: LongVideoPredictor) -> None:
    """A run closes what it has opened, however it ends; what the caller has made stays open."""
    states: list[Any] = []
    init_state = predictor.init_state
    predictor.init_state = lambda *a, **k: states.append(init_state(*a, **k)) or states[-1]  # type: ignore
    try:
        with closing(at_once(predictor, VIDEO, lambda frame: None)) as steps:
            next(steps)
            assert not is_closed(states[-1])
        assert is_closed(states[-1])
        with pytest.raises(ValueError, match="A detector returned str"):
            list(at_once(predictor, VIDEO, lambda frame: "a box"))
        assert is_closed(states[-1])
        with LiveVideo(iter(VIDEO)) as live:
            with closing(at_once(predictor, live, lambda frame: None)) as steps:
                assert next(steps)[0] == 0
            assert not live.has_ended
            live.next_frame()
    finally:
        del predictor.init_state


def is_closed(state: Any) -> bool:
    try:
        state["images"][0]
    except RuntimeError as error:
        return "closed" in str(error)
    return False


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames: two objects for 30 frames, nothing for 20, the objects again."""
    folder = tmp_path_factory.mktemp("clip")
    grey = np.full((256, 256, 3), 128, np.uint8)
    for number, i in enumerate([*range(30), *[None] * 20, *range(30, 45)]):
        Image.fromarray(grey if i is None else VIDEO.frame(i)).save(folder / f"{number:03}.png")
    return folder


def by_the_frame(frame: np.ndarray) -> Any:
    """Detections that depend on the frame alone; some are loose, so that objects are corrected."""
    for i in range(5, 45, 5):
        if np.array_equal(frame, VIDEO.frame(i)):
            boxes = np.array([VIDEO.box(i, number) for number in (0, 1)])
            boxes[0, 2] += 0.9 * (boxes[0, 2] - boxes[0, 0]) * (i % 10 == 0)
            return boxes, None, list(np.array(["ant", "bee"]))
    return None


SAVED = {"detect_every": 5, "retire_after": 10, "correct_iou": 0.6, "max_prompt_frames": 2}


@pytest.fixture(scope="module")
def not_interrupted(predictor: LongVideoPredictor, clip: Path) -> list[Any]:
    steps = list(track_detections(predictor, clip, by_the_frame, **SAVED))
    assert [ids for _, ids, _, _ in steps[::10]] == [[], [1, 2], [1, 2], [1, 2], [], [], [3, 4]]
    return steps


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:memory_window is 10")
def test_a_run_with_a_small_window_goes_on(
    predictor: LongVideoPredictor, clip: Path, tmp_path: Path
) -> None:
    """The frames around a pass's start are kept as if it had not been interrupted."""
    options = {**SAVED, "memory_window": 10, "min_score": np.float64(0.5)}
    expected = list(track_detections(predictor, clip, by_the_frame, **options))[:30]
    steps = track_detections(
        predictor, clip, by_the_frame, autosave=Autosave(tmp_path / "state.pt", 1), **options
    )
    for stop in (12, 20, 23):
        for frame_idx, *_ in steps:
            if frame_idx == stop:
                break
        state = predictor.load_state(tmp_path / "state.pt")
        rest = resume_detections(predictor, state, by_the_frame)
        for mine, theirs in zip(rest, expected[stop:], strict=False):
            assert mine[:2] == theirs[:2]
            assert torch.equal(mine[2], theirs[2])


@pytest.mark.parametrize("stop", [3, 7, 20, 23, 47, 63])
def test_a_run_goes_on_from_its_save(
    predictor: LongVideoPredictor,
    clip: Path,
    tmp_path: Path,
    not_interrupted: list[Any],
    stop: int,
) -> None:
    """Before and after objects are confirmed, after a correction, with none left, near the end."""
    save = tmp_path / "state.pt"
    with MaskWriter(tmp_path / "masks") as writer:
        autosave = Autosave(save, every=1, before_save=writer.flush)
        for step in track_detections(predictor, clip, by_the_frame, autosave=autosave, **SAVED):
            writer.write(*step[:3])
            if step[0] == stop:
                break  # the last save is of the frame before
    state = predictor.load_state(save)
    rest = []
    with MaskWriter(tmp_path / "masks", resume=state) as writer:
        assert writer.last_frame_idx == stop - 1
        for step in resume_detections(predictor, state, by_the_frame):
            writer.write(*step[:3])
            rest.append(step)
    for mine, theirs in zip(rest, not_interrupted[stop:], strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[3] == theirs[3]
        assert torch.equal(mine[2], theirs[2])
    masks = MaskFolder(tmp_path / "masks")
    assert masks.frames == list(range(65))
    for i in range(0, 65, 7):
        assert np.array_equal(masks.read(i).masks, not_interrupted[i][2][:, 0].numpy() > 0)


def test_a_run_over_frames_without_a_path_goes_on(
    predictor: LongVideoPredictor, tmp_path: Path
) -> None:
    """With a save in between that is loaded twice, and one at the end."""
    save = tmp_path / "state.pt"
    frames = [VIDEO.frame(i) for i in range(20)]
    steps = track_detections(
        predictor, frames, by_the_frame, detect_every=5, autosave=Autosave(save, every=4)
    )
    whole = [next(steps) for _ in range(14)]
    for _ in range(2):
        state = predictor.load_state(save, frames)
        with pytest.raises(ValueError, match="has no path: give it again as `video`"):
            resume_detections(predictor, state, by_the_frame)
        again = resume_detections(predictor, state, by_the_frame, video=frames)
        for mine, theirs in zip(again, whole[12:], strict=False):
            assert mine[:2] == theirs[:2]
            assert torch.equal(mine[2], theirs[2])
    assert len(list(steps)) == 6
    state = predictor.load_state(save, frames)
    for other in (frames[:5], [frame[:100] for frame in frames], iter(frames)):
        with pytest.raises(ValueError, match="not the video of this state"):
            resume_detections(predictor, state, by_the_frame, video=other)
    assert list(resume_detections(predictor, state, by_the_frame, video=frames)) == []


def test_a_save_by_hand_goes_on_too(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    """A run that was taken up is saved by the caller, who has its state."""
    saves = [tmp_path / "one.pt", tmp_path / "two.pt"]
    steps = track_detections(
        predictor, VIDEO, by_the_frame, detect_every=5, autosave=Autosave(saves[0], every=3)
    )
    whole = [next(steps) for _ in range(20)]
    state = predictor.load_state(saves[0], VIDEO)  # of frame 17
    for frame_idx, *_ in resume_detections(predictor, state, by_the_frame, video=VIDEO):
        predictor.save_state(state, saves[1])
        if frame_idx == 18:
            break
    state = predictor.load_state(saves[1], VIDEO)
    mine = next(resume_detections(predictor, state, by_the_frame, video=VIDEO))
    assert mine[:2] == whole[19][:2]
    assert torch.equal(mine[2], whole[19][2])


def test_a_run_in_a_state_of_the_callers(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    """The same masks; the state stays open, and is saved and asked for scores by its owner."""
    options = {"detect_every": 5, "min_hits": 1}
    clip = [VIDEO.frame(i) for i in range(35)]
    expected = list(track_detections(predictor, clip, by_the_frame, **options))
    state = predictor.init_state(clip, max_prompt_frames=8)
    save = tmp_path / "state.pt"
    for number, step in enumerate(
        track_detections(
            predictor, clip, by_the_frame, state=state, autosave=Autosave(save), **options
        )
    ):
        assert step[:2] == expected[number][:2]
        assert torch.equal(step[2], expected[number][2])
        if step[1]:
            assert predictor.scores(state, step[0]).keys() >= set(step[1])
        if number == 7:
            predictor.save_state(state, tmp_path / "own.pt")
    assert state.last_frame_idx == 34
    assert predictor.scores(state, 34)  # it is open
    state = predictor.load_state(tmp_path / "own.pt", clip)
    frames = open_source(clip, None)  # what is opened already serves too
    for step in resume_detections(predictor, state, by_the_frame, video=frames):
        assert torch.equal(step[2], expected[step[0]][2])
    live = LiveVideo(iter(clip))
    state = predictor.init_state(live, max_prompt_frames=8)
    steps = track_detections(predictor, live, by_the_frame, state=state, **options)
    for step, other in zip(steps, expected[:20], strict=False):
        assert torch.equal(step[2], other[2])
    live.close()


def test_a_state_in_which_no_run_can_start(predictor: LongVideoPredictor) -> None:
    state = predictor.init_state(VIDEO)
    run = partial(track_detections, predictor, VIDEO, by_the_frame, state=state)
    for options in ({"batch_objects": True}, {"max_prompt_frames": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: with `state`, give this"):
            run(**options)
    with pytest.raises(ValueError, match="not the video of this state: its num_frames is 7"):
        track_detections(predictor, [VIDEO.frame(0)] * 7, by_the_frame, state=state)
    predictor.add_new_points_or_box(state, 0, 1, box=VIDEO.box(0, 0))
    next(predictor.propagate_in_video(state, progress_bar=False))
    with pytest.raises(ValueError, match="Frame 0 was tracked in this state"):
        run()


def test_what_is_no_run_to_go_on_with(predictor: LongVideoPredictor, tmp_path: Path) -> None:
    save = tmp_path / "state.pt"
    state = predictor.init_state(VIDEO)
    predictor.add_new_points_or_box(state, 0, 1, box=VIDEO.box(0, 0))
    predictor.save_state(state, save)
    with pytest.raises(ValueError, match="not saved in a run of track_detections"):
        resume_detections(predictor, predictor.load_state(save, VIDEO), by_the_frame)
    snapshots = Snapshots(every=5, folder=tmp_path / "snapshots")
    steps = track_detections(
        predictor, VIDEO, by_the_frame, autosave=Autosave(save, every=10), snapshots=snapshots
    )
    assert [next(steps)[0] for _ in range(21)][-1] == 20
    for change in (
        lambda state: (
            predictor.rewind(state, 15),
            next(predictor.propagate_in_video(state, 15, progress_bar=False)),
        ),
        predictor.reset_state,
        lambda state: next(predictor.resume_propagation(state)),
    ):
        state = predictor.load_state(save, VIDEO)
        assert state.last_frame_idx == 19
        change(state)
        assert state.last_frame_idx in (15, -1, 20)
        with pytest.raises(ValueError, match="not saved in a run of track_detections"):
            resume_detections(predictor, state, by_the_frame, video=VIDEO)
    state = predictor.load_state(save, VIDEO)
    predictor.add_new_points_or_box(state, 19, "own", box=VIDEO.box(19, 0))
    with pytest.raises(ValueError, match="it has objects besides"):
        resume_detections(predictor, state, by_the_frame, video=VIDEO)
    autosave = Autosave(save, every=5)
    with pytest.raises(ValueError, match="live source"):
        track_detections(predictor, iter(VIDEO), by_the_frame, autosave=autosave)
    labelled = lambda frame: ([VIDEO.box(0, 0)], [1.0], [("a", "tuple")])  # noqa: E731
    with pytest.raises(ValueError, match=r"label \('a', 'tuple'\) is of type tuple"):
        next(track_detections(predictor, VIDEO, labelled, autosave=autosave))


def test_what_a_detector_may_return() -> None:
    boxes = np.array([[1, 2, 30, 40], [5, 5, 9, 9]])
    for found, count, labels in (
        (None, 0, []),
        ([], 0, []),
        (np.zeros((0, 4)), 0, []),
        (boxes, 2, [None, None]),
        (torch.from_numpy(boxes), 2, [None, None]),
        (torch.tensor(boxes, dtype=torch.bfloat16, requires_grad=True), 2, [None, None]),
        ((boxes, [0.5, 0.6]), 2, [None, None]),
        ((boxes, [0.5, 0.6], ["a", "b"]), 2, ["a", "b"]),
        (Detections(boxes, labels=["a", "b"]), 2, ["a", "b"]),
        (supervision.Detections.empty(), 0, []),
        (supervision.Detections(boxes, class_id=np.array([3, 4])), 2, [3, 4]),
        (
            supervision.Detections(
                boxes,
                confidence=np.array([0.1, 0.2]),
                class_id=np.array([3, 4]),
                data={"class_name": np.array(["ant", "bee"])},
            ),
            2,
            ["ant", "bee"],
        ),
    ):
        detections = as_detections(found)
        assert len(detections) == count
        assert list(detections.labels) == labels
    for wrong, message in (
        ("a box", "A detector returned str"),
        ([[1, 2, 3]], r"boxes of shape \(n, 4\)"),
        ((boxes, [0.5]), "2 labels"),
        ([[30, 2, 1, 40]], "x0 < x1"),
        ([[np.nan, 2, 1, 40]], "x0 < x1"),
    ):
        with pytest.raises(ValueError, match=message):
            as_detections(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"detect_every": 0},
        {"min_hits": 0},
        {"retire_after": 1.5},
        {"min_score": 2},
        {"match_iou": -1},
        {"max_objects": 0},
    ],
)
def test_bad_options(predictor: LongVideoPredictor, wrong: Any) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is"):
        track_detections(predictor, VIDEO, lambda frame: None, **wrong)
