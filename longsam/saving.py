"""States on disk: written whole or not at all, and loaded on the same model and video."""

import hashlib
import inspect
import os
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from longsam import _upstream, memory
from longsam._upstream import State
from longsam.batches import detach
from longsam.frames import LiveVideo
from longsam.object_ids import check_plain

Step = TypeVar("Step")

SAME_VIDEO = ("num_frames", "frame_size", "num_bytes", "first_frame")
"""Of what `_describe` gives, what must be equal."""

FORMATS = {"longsam_state": 2, "longsam_memory_bank": 1}
"""Go up when what is saved can no longer be read by an older longsam; older saves can."""


def save(predictor: Any, state: State, path: str | os.PathLike[str]) -> None:
    """Write a state to a file; see `LongVideoPredictor.save_state`."""
    content = _content(predictor, state)
    write_atomically(_plain(content), Path(path))


def restored(predictor: Any, state: State, path: Path) -> State:
    """A state of the same session as it was when it was saved; it shares frames with the other."""
    content = _read(path, "longsam_state", "state")
    old = {**state, memory.KEY: memory.like(state)}
    memory.from_plain(old, content["memory"])
    _upstream.from_plain(old, content["upstream"])
    # Prompts that waited for the next pass had no part in this one.
    for obj_id in _upstream.forget_waiting_prompts(old):
        predictor.remove_object(old, obj_id, need_output=False)
    return old


def check_can_be_saved(state: State) -> None:
    """Refuse a state that cannot be saved.

    Raises:
        ValueError: The source is live, or an object's id is neither an integer nor a string.
    """
    source = _upstream.images(state).source
    if isinstance(source, LiveVideo):
        raise ValueError(f"{source.name} is a live source, which cannot be taken up again later.")
    for _, obj_id in _upstream.objects(state):
        check_plain(obj_id, "that are saved")


def _content(predictor: Any, state: State) -> dict[str, Any]:
    check_can_be_saved(state)
    snapshots = state[memory.KEY].snapshots
    content = {
        "longsam_state": FORMATS["longsam_state"],
        "model": fingerprint(predictor),
        "video": _describe(state),
        "settings": memory.settings(state),
        "memory": memory.to_plain(state),
        "snapshots": None if snapshots is None else snapshots.to_plain(),
        "upstream": _upstream.to_plain(state),
    }
    if predictor.device.type == "cuda":
        # Offloaded tensors may still be on their way (they are copied with non_blocking=True).
        torch.cuda.synchronize(predictor.device)
    return content


def saved(
    predictor: Any,
    state: State,
    steps: Generator[Step, None, None],
    save_every: int | timedelta | None,
    save_path: str | os.PathLike[str] | None,
    before_save: Callable[[], object] | None,
) -> Generator[Step, None, None]:
    """The steps of a pass; the state is saved behind the first, now and then, and at their end.

    The options are those of `LongVideoPredictor.propagate_in_video`.
    """
    if save_every is None:
        return steps
    if save_path is None:
        raise ValueError("save_every needs save_path, the file to save to.")
    check_can_be_saved(state)
    by_time = isinstance(save_every, timedelta)
    if isinstance(save_every, bool) or not isinstance(save_every, (int, timedelta)):
        raise ValueError(
            f"save_every is {save_every!r}; it must be a number of frames, or a timedelta."
        )
    every = save_every.total_seconds() if isinstance(save_every, timedelta) else save_every
    if every <= 0:
        raise ValueError(f"save_every is {save_every!r}; it must be above 0.")
    return _saved(
        steps, every, by_time, before_save, lambda: predictor.save_state(state, save_path)
    )


def _saved(
    steps: Generator[Step, None, None],
    every: float,
    by_time: bool,
    before_save: Callable[[], object] | None,
    save: Callable[[], object],
) -> Generator[Step, None, None]:
    def now() -> float:
        return time.monotonic() if by_time else num_steps

    def save_all() -> None:
        if before_save is not None:
            before_save()
        save()

    num_steps = 0
    saved_at = now()
    with closing(steps):
        for step in steps:
            yield step
            num_steps += 1
            is_due = now() - saved_at >= every
            # The first at once: prompts are somebody's work too, and an older file gives way.
            if is_due or num_steps == 1:
                save_all()
            if is_due:
                saved_at = now()
    if num_steps:
        save_all()


def load(predictor: Any, path: str | os.PathLike[str], video_path: Any = None) -> State:
    """Read a state from a file; see `LongVideoPredictor.load_state`."""
    content = _read(Path(path), "longsam_state", "state")
    _check_model(predictor, content, path)
    with damage_named(path, "state"):
        saved, settings = dict(content["video"]), dict(content["settings"])
        known = inspect.signature(predictor.init_state).parameters
        for setting, value in settings.items():
            if setting not in known or not isinstance(value, (bool, int, str, type(None))):
                raise LookupError(f"a setting {setting}={value!r}")
        name, of_saved = saved["name"], _video(saved)
        described = {what: saved[what] for what in ("path", *SAME_VIDEO)}
    video = described["path"] if video_path is None else video_path
    if video is None:
        raise ValueError(
            f"{path} was saved while tracking {name}, which has no path: give it again as "
            "video_path."
        )
    state: State = predictor.init_state(video, **settings)
    given = _describe(state)
    if any(given[what] != described[what] for what in SAME_VIDEO):
        raise ValueError(
            f"{path} was saved while tracking {of_saved}; {_video(given)} is another video. Give "
            "the same one as video_path."
        )
    with damage_named(path, "state"):
        memory.from_plain(state, content["memory"])
        if content.get("snapshots") is not None:
            state[memory.KEY].snapshots.from_plain(content["snapshots"])
        _upstream.from_plain(state, content["upstream"])
    return state


def save_bank(
    predictor: Any, state: State, path: str | os.PathLike[str], obj_ids: Iterable[Any] | None
) -> None:
    """Write conditioning memories to a file; see `LongVideoPredictor.save_memory_bank`."""
    known = {obj_id: obj_idx for obj_idx, obj_id in _upstream.objects(state)}
    objects = []
    for obj_id in known if obj_ids is None else obj_ids:
        if obj_id not in known:
            raise ValueError(f"There is no object {obj_id!r}; there are {list(known)}.")
        check_plain(obj_id, "that are saved")
        outputs = _upstream.conditioning_outputs(state, known[obj_id]).values()
        # The mask is for the frame that it was on; it is no memory.
        memories = [{**output, "pred_masks": None} for output in outputs]
        for output in memories:
            detach(output)  # of the other objects nothing is written
        objects.append((obj_id, memories))
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    content = {
        "longsam_memory_bank": FORMATS["longsam_memory_bank"],
        "model": fingerprint(predictor),
        "objects": objects,
        "constants": state["constants"],
    }
    write_atomically(_plain(content), Path(path))


def load_bank(predictor: Any, state: State, path: str | os.PathLike[str]) -> None:
    """Let a state know the objects of a memory bank."""
    content = _read(Path(path), "longsam_memory_bank", "memory bank")
    _check_model(predictor, content, path)
    with damage_named(path, "memory bank"):
        constants = _upstream.moved(content["constants"], state["device"])
        for obj_id, outputs in content["objects"]:
            obj_idx = predictor._obj_id_to_idx(state, obj_id)
            for output in outputs:
                _upstream.place_output(output, constants, state["device"], state["storage_device"])
            _upstream.add_memories(state, obj_idx, outputs)


def _check_model(predictor: Any, content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    own = fingerprint(predictor)
    with damage_named(path, "model's description"):
        saved = {what: content["model"][what] for what in ("name", "config", "weights")}
    if (own["config"], own["weights"]) != (saved["config"], saved["weights"]):
        which = "config" if own["config"] != saved["config"] else "weights"
        raise ValueError(
            f"{path} was saved with another model: {_name(saved)}. This one is {_name(own)}; the "
            f"{which} differ. Load it with the same config and checkpoint."
        )


@contextmanager
def damage_named(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """What is whole but does not hold what was saved is refused by name, too."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold a {what} as longsam saves it ({type(error).__name__}: {error})."
        ) from error


def _plain(value: Any) -> Any:
    """The same of types that are loaded without running code: a frame index may be NumPy's.

    Raises:
        ValueError: There is something of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((_plain(key), _plain(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if value is None or isinstance(value, (bool, torch.Tensor)):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, such as an Enum's, too
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    raise ValueError(f"{value!r} is of type {type(value).__name__}, which cannot be saved.")


def write_atomically(content: dict[str, Any], path: Path) -> None:
    """Write a file so that at any time the old one or the new one is there, and whole."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    if os.name == "posix":  # the new name is on the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def fingerprint(predictor: Any) -> dict[str, str]:
    """What tells one model from another: hashes of its config and of its weights.

    Computed once for a predictor: hashing takes about a second for each GB of weights.
    """
    known: dict[str, str] | None = getattr(predictor, "_longsam_fingerprint", None)
    if known is not None:
        return known
    config = hashlib.sha256(repr(predictor).encode())
    for name, value in sorted(vars(predictor).items()):
        is_setting = name != "name" and not name.startswith("_")
        if is_setting and isinstance(value, (bool, int, float, str, type(None))):
            config.update(f"{name}={value!r};".encode())
    weights = hashlib.sha256()
    for name, tensor in sorted(predictor.state_dict().items()):
        weights.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        weights.update(flat.numpy().data)
    predictor._longsam_fingerprint = {
        "name": predictor.name,
        "config": config.hexdigest()[:16],
        "weights": weights.hexdigest()[:16],
    }
    return fingerprint(predictor)


def _read(path: Path, key: str, what: str) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"There is no saved {what} at {path}.")
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as parts:
                broken = parts.testzip()  # checks each part's CRC-32, which torch.load does not
            if broken is not None:
                raise zipfile.BadZipFile(f"{broken} is damaged")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
            version = content[key]
        except Exception as error:  # damage is noticed in many ways
            raise ValueError(
                f"{path} is not a {what} that longsam has saved, or it is damaged "
                f"({type(error).__name__})."
            ) from error
    newest = FORMATS[key]
    if version not in range(1, newest + 1):
        raise ValueError(
            f"{path} has version {version} of the format; this longsam reads versions up to "
            f"{newest}."
        )
    return dict(content)


def _describe(state: State) -> dict[str, Any]:
    """What tells one video from another."""
    images = _upstream.images(state)
    source, path = images.source, images.source.path
    return {
        "name": source.name,
        "path": None if path is None else os.path.abspath(path),
        "num_bytes": os.path.getsize(path) if path is not None and os.path.isfile(path) else None,
        "num_frames": source.num_frames,
        "frame_size": tuple(source.frame_size),
        "first_frame": images.digests.get(0),
    }


def _video(described: dict[str, Any]) -> str:
    height, width = described["frame_size"]
    size = f", {described['num_bytes']:,} bytes" if described["num_bytes"] is not None else ""
    return f"{described['name']} ({described['num_frames']} frames of {width}x{height}{size})"


def _name(model: dict[str, str]) -> str:
    return f"{model['name'] or 'a model'} (config {model['config']}, weights {model['weights']})"
