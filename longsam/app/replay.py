"""A project that is opened: its last save, and what the log has after it, done again."""

from collections.abc import Iterator
from typing import Any

from longsam.app.log import Operation
from longsam.app.project import Project, is_over
from longsam.cli import record as records
from longsam.cli.record import Record
from longsam.prompts import Prompt


def reopen(run: Project) -> None:
    """Bring a run to where its log ends; a pass that was running runs again.

    Raises:
        ValueError: The folder holds something else, or is damaged.
    """
    operations = run.log.operations
    save = run.folder.save_in(correcting=True)
    is_correcting = _has_open_correction(operations) and save.exists()
    if not is_correcting and run.folder.correction.exists():
        if not run.folder.new_masks.exists():
            raise ValueError(
                f"{run.folder.correction} holds a correction that was stopped; `longsam correct "
                f"{run.folder.path} --resume` continues it, --overwrite drops it."
            )
        run.folder.drop_correction()
    if not run.folder.save_in(correcting=False).exists() and not _has_tracked(operations):
        run.folder.check_empty()
    noted = run.load(correcting=is_correcting)
    num_done = len(operations)
    if noted is None:
        num_done = 0
    elif "log" in noted:
        num_done = min(int(noted["log"]), num_done)
    run.record, moved = run.folder.keep_only_rle(run.record)
    if moved:
        run.warn(
            f"{', '.join(path.name for path in moved)} of the run are in {moved[0].parent} now: "
            "the page keeps masks as rle. Export draws the overlay again, and writes DAVIS's PNGs."
        )
    run.folder.cut(run.state.last_frame_idx, correcting=is_correcting)
    run.read_tracked()
    if not operations and run.record.prompts:
        run.prompts = _prompts_of(run.record)
    for operation in operations[:num_done]:
        if operation is not None:
            _note(run, operation)
    is_running = noted is not None and _was_running(operations[:num_done])
    if noted:
        run.left = [list(one) for one in noted.get("left", [])]
        run.num_done = int(noted.get("done", 0))
        run.directions |= {bool(one) for one in noted.get("directions", [])}
    elif noted is not None and not run.record.is_finished:  # `longsam track` was here since
        reverse = run.record.direction == "reverse"
        at = run.state.last_frame_idx + (-1 if reverse else 1)
        run.left = [[at, 0 if reverse else run.num_frames - 1, reverse]]
    run.left = [one for one in run.left if not is_over(one)]
    if is_correcting and run.correction is not None:
        run.correction.left_before = [list(one) for one in (noted or {}).get("before", [])]
        run.continue_correction()
    run.is_running = is_running and bool(run.left)
    _again(run, operations[num_done:])


def _again(run: Project, operations: list[Operation | None]) -> None:
    """Do what the save does not have; corrections that were dropped are left out."""
    is_dropped = False
    for number, operation in enumerate(operations):
        following = operations[number + 1 : number + 2]
        run.logs_answers = not following or not (
            following[0] is None or following[0]["op"] == "answer"
        )
        if operation is None or operation["op"] == "answer":
            continue
        if operation["op"] == "correct":
            is_dropped = _closing(operations[number:]) == "drop"
        if is_dropped:
            is_dropped = operation["op"] != "drop"
            continue
        if operation["op"] == "stop":
            while run.is_running and run.num_done < operation["done"]:
                run.track_frame()
            run.end_pass()
            continue
        while run.is_running:  # a pass that ended by itself
            run.track_frame()
        run.apply(operation)
    run.logs_answers = True


def _note(run: Project, operation: Operation) -> None:
    """Note an operation that the save has in it."""
    name = operation["op"]
    if name == "prompts":
        key = operation["object"], operation["frame"]
        if operation["edits"]:
            run.prompts[key] = operation["edits"]
        else:
            run.prompts.pop(key, None)
        run.objects()
    elif name == "answer":
        run.answers[operation["frame"]] = operation["objects"]
    elif name == "remove":
        for key in [key for key in run.prompts if key[0] == operation["object"]]:
            del run.prompts[key]
    elif name == "correct":
        run.note_correction(operation["frame"], [])
    elif name in ("keep", "drop") and run.correction is not None:
        if name == "drop":
            run.prompts = run.correction.prompts_before
        run.answers.pop(run.correction.frame, None)
        run.correction = None


def _has_tracked(operations: list[Operation | None]) -> bool:
    """Whether masks without a save are the page's: it computes them again."""
    return any(one is not None and one["op"] == "track" for one in operations)


def _has_open_correction(operations: list[Operation | None]) -> bool:
    """Whether there is a correction that is neither kept nor dropped."""
    names = [one["op"] for one in operations if one is not None]
    return next((n for n in reversed(names) if n in ("correct", "keep", "drop")), "") == "correct"


def _closing(operations: list[Operation | None]) -> str | None:
    """How the correction that comes first is ended."""
    names = (one["op"] for one in operations if one is not None)
    return next((name for name in names if name in ("keep", "drop")), None)


def _was_running(operations: list[Operation | None]) -> bool:
    """Whether the last thing that happened is that a pass began."""
    names = [one["op"] for one in operations if one is not None and one["op"] != "answer"]
    return bool(names) and names[-1] == "track"


def _prompts_of(record: Record) -> dict[tuple[int | str, int], list[dict[str, Any]]]:
    """The points and boxes of a run of `longsam track`."""
    prompts = {}
    for key, group in records.grouped(record.prompts).items():
        edits = list(_edits(group))
        if edits:
            prompts[key] = edits
    return prompts


def _edits(group: list[Prompt]) -> Iterator[dict[str, Any]]:
    for prompt in sorted(group, key=lambda prompt: prompt.kind != "box"):
        if prompt.kind == "box":
            yield {"kind": "box", "box": [float(number) for number in prompt.value]}
        elif prompt.kind in ("point", "not-point"):
            x, y = prompt.value
            label = int(prompt.kind == "point")
            yield {"kind": "point", "x": float(x), "y": float(y), "label": label}
