"""Object ids that outlive the process: those that files hold and return unchanged."""

from typing import Any

ObjectId = int | str


def check_plain(obj_id: Any, which: str) -> None:
    """Refuse an id that cannot be read from a file without running code.

    Args:
        obj_id: Any id that upstream takes.
        which: Of which objects, for the message: "that are saved".

    Raises:
        ValueError: It is neither an integer nor a string.
    """
    if isinstance(obj_id, bool) or not isinstance(obj_id, (int, str)):
        raise ValueError(
            f"The object id {obj_id!r} is of type {type(obj_id).__name__}; ids of objects {which} "
            "must be integers or strings."
        )
