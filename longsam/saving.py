"""States and memory banks on disk, loaded with the same model and the same video.

Files may come from others: what one says is checked before anything is opened because of it.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from longsam import _upstream, checks, policies, storage
from longsam._upstream import InferenceState
from longsam._warn import warn
from longsam.fingerprint import fingerprint
from longsam.frames import LiveVideo
from longsam.object_ids import check_plain
from longsam.options import Options
from longsam.policies import MemoryPolicy
from longsam.session import State, session_of
from longsam.storage import reporting_damage

STATE_FORMAT = 4
BANK_FORMAT = 3
"""Increase when older files can no longer be read."""


def check_can_be_saved(state: InferenceState) -> None:
    """Refuse a state that cannot be saved.

    Raises:
        ValueError: The source is live, or an object's id is neither an integer nor a string.
    """
    source = _upstream.images(state).source
    if isinstance(source, LiveVideo):
        raise ValueError(
            f"{source.name} is a live source, whose frames are gone, so its state cannot be saved."
        )
    for _, obj_id in _upstream.objects(state):
        check_plain(obj_id, "that are saved")


def write_state(state: InferenceState, path: Path, model: torch.nn.Module) -> None:
    """Write a state to a file; see `LongVideoPredictor.save_state`."""
    check_can_be_saved(state)
    session = session_of(state)
    content: dict[str, Any] = {
        "longsam_state": STATE_FORMAT,
        "model": fingerprint(model),
        "video": _describe(state),
        "options": session.options.to_plain(),
        "session": session.to_plain(),
        "upstream": _upstream.to_plain(state),
    }
    history, beside = session.history, Path(os.path.abspath(path)).parent
    if history is not None and history.folder.parent != beside:
        # A file may only lead to a folder beside it; the caller can name another.
        content["session"]["history"]["folder"] = None
    _upstream.wait_for_copies(state)
    storage.write(content, path)


def read_state(path: Path, model: torch.nn.Module) -> dict[str, Any]:
    """The content of a state saved with the same model."""
    content = storage.read(path, "longsam_state", "state", STATE_FORMAT)
    _check_model(model, content, path)
    return content


def options_of(
    saved: dict[str, Any],
    path: Path,
    snapshots: str | os.PathLike[str] | None,
    policy: MemoryPolicy | None,
) -> Options:
    """The options that the saved state was opened with.

    Raises:
        ValueError: The file is damaged, or was made with another memory policy than the one given.
    """
    with reporting_damage(path, "state"):
        history = saved["session"]["history"]
        folder: str | os.PathLike[str] | None = snapshots
        name = None if history is None else history["folder"]
        if folder is None and name is not None:
            if (
                not isinstance(name, str)
                or name != os.path.basename(name)
                or name in {"", ".", ".."}
            ):
                raise ValueError(f"its snapshots lie in {name!r}")
            folder = Path(os.path.abspath(path)).parent / name
        if history is not None and history["segments"] and folder is None:
            warn(
                f"{path} does not say where its snapshots are, so `rewind` cannot go back to before"
                " the save. Give their folder: load_state(..., snapshots=folder)."
            )
        of_policy = saved["options"].get("memory_policy")
        followed = policies.saved_with(of_policy, policy)
        return Options.from_plain(dict(saved["options"]), folder, followed)


def video_of(saved: dict[str, Any], path: Path) -> str:
    """Where the video was, if it may be opened without the caller naming it.

    Raises:
        ValueError: It has no path, or its path is not a file or folder on this machine.
        FileNotFoundError: It is not there.
    """
    with reporting_damage(path, "state"):
        name, video = str(saved["video"]["name"]), saved["video"]["path"]
    if video is None:
        raise ValueError(
            f"{path} was saved while tracking {name}, which has no path: give it again as "
            "video_path."
        )
    if not isinstance(video, str) or not os.path.isabs(video):
        raise ValueError(
            f"{path} names the video {video!r}, which is not a path on this machine. Give the "
            "video as video_path."
        )
    if not os.path.exists(video):
        raise FileNotFoundError(f"{path} was saved while tracking {video}, which is not there.")
    if not (os.path.isfile(video) or os.path.isdir(video)):
        raise ValueError(
            f"{path} names the video {video}, which is not a file or a folder. If it is right, "
            "give it as video_path."
        )
    return video


def restore(state: InferenceState, saved: dict[str, Any], path: Path) -> None:
    """Put what was saved into a fresh state of the same video.

    Raises:
        ValueError: It is another video, or the file is damaged.
    """
    _check_video(state, saved, path)
    session = session_of(state)
    with reporting_damage(path, "state"):
        session.restore(saved["session"])
        if session.follower is not None:
            session.follower.check(_upstream.every_output(saved["upstream"]))
        _upstream.from_plain(state, saved["upstream"])


def write_bank(
    state: State,
    path: Path,
    model: torch.nn.Module,
    obj_ids: Iterable[Any] | None,
    *,
    anchors: bool,
) -> None:
    """Write conditioning memories to a file; see `LongVideoPredictor.save_memory_bank`."""
    follower = session_of(state).follower
    if anchors and follower is None:
        raise ValueError(
            "anchors=True, but the session has no memory policy; track with "
            'memory_policy="dam4sam".'
        )
    known = {obj_id: obj_idx for obj_idx, obj_id in _upstream.objects(state)}
    objects = []
    for obj_id in known if obj_ids is None else map(checks.obj_id, obj_ids):
        if obj_id not in known:
            raise ValueError(f"There is no object {obj_id!r}; there are {list(known)}.")
        check_plain(obj_id, "that are saved")
        obj_idx = known[obj_id]
        prompted = _upstream.conditioning_outputs(state, obj_idx).values()
        memories = [_upstream.without_mask(output) for output in prompted]
        if anchors and follower is not None:
            memories += follower.anchors(state, obj_idx, state.last_frame_idx)
        for output in memories:
            _upstream.detach(output)  # nothing of the other objects is written
        objects.append((obj_id, memories))
    content = {
        "longsam_memory_bank": BANK_FORMAT,
        "model": fingerprint(model),
        "objects": objects,
        "constants": _upstream.constants(state),
    }
    _upstream.wait_for_copies(state)
    storage.write(content, path)


def read_bank(path: Path, model: torch.nn.Module) -> dict[str, Any]:
    """The content of a memory bank saved with the same model."""
    content = storage.read(path, "longsam_memory_bank", "memory bank", BANK_FORMAT)
    _check_model(model, content, path)
    return content


def add_bank(
    state: InferenceState, path: Path, bank: dict[str, Any], add_object: Callable[[Any], int]
) -> None:
    """Add the objects of a memory bank to a state.

    Args:
        state: The session.
        path: The file of the bank.
        bank: Its content.
        add_object: Returns the index of an object, new or known.
    """
    with reporting_damage(path, "memory bank"):
        constants = _upstream.learn_constants(state, bank["constants"])
        placing = _upstream.Placing(constants, *_upstream.storage_devices(state))
        for obj_id, outputs in bank["objects"]:
            for output in outputs:
                placing.output(output)
            _upstream.add_memories(state, add_object(obj_id), outputs)


def _check_model(model: torch.nn.Module, content: dict[str, Any], path: Path) -> None:
    own = fingerprint(model)
    with reporting_damage(path, "model's description"):
        saved = {what: content["model"][what] for what in ("name", "config", "weights")}
    if (own["config"], own["weights"]) != (saved["config"], saved["weights"]):
        which = "config" if own["config"] != saved["config"] else "weights"
        raise ValueError(
            f"{path} was saved with another model: {_name(saved)}. This one is {_name(own)}; the "
            f"{which} differ. Load it with the same config and checkpoint."
        )


def _name(model: dict[str, str]) -> str:
    return f"{model['name'] or 'a model'} (config {model['config']}, weights {model['weights']})"


def _describe(state: InferenceState) -> dict[str, Any]:
    """What tells one video from another."""
    session, images = session_of(state), _upstream.images(state)
    source, path = images.source, images.source.path
    if session.video is None:
        session.video = source.fingerprint()
    return {
        "name": source.name,
        "path": None if path is None else os.path.abspath(path),
        "num_frames": source.num_frames,
        "frame_size": tuple(source.frame_size),
        "fingerprint": session.video,
        "digests": dict(images.digests),
    }


def _check_video(state: InferenceState, saved: dict[str, Any], path: Path) -> None:
    """Refuse another video.

    The same bytes are the same video. A copy in another container has the same frames; those with a
    digest in the save are compared.
    """
    given = _describe(state)
    with reporting_damage(path, "state"):
        expected = {what: saved["video"][what] for what in given}
        digests = {int(f): str(digest) for f, digest in expected["digests"].items()}
        names = [_video(one) for one in (expected, given)]
        if not digests:
            raise ValueError("it has no digest of any frame")
        alike = all(given[what] == expected[what] for what in ("num_frames", "frame_size"))
    if alike and given["fingerprint"] != expected["fingerprint"]:
        images = _upstream.images(state)
        # The first frame alone does not tell one video from another.
        alike = (len(digests) > 1 or given["num_frames"] == 1) and all(
            0 <= frame_idx < given["num_frames"] and images.digest(frame_idx) == digest
            for frame_idx, digest in sorted(digests.items())
        )
    if not alike:
        raise ValueError(
            f"{path} was saved while tracking {names[0]}; {names[1]} is another video. Give the "
            "same one as video_path."
        )


def _video(described: dict[str, Any]) -> str:
    height, width = described["frame_size"]
    return f"{described['name']} ({described['num_frames']} frames of {width}x{height})"
