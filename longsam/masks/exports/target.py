"""A folder that appears complete or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longsam.masks.files import check_not_link

TABLE = "objects.json"
"""In every export: the id of each number. It also marks the folder as an export."""

_KEY = "longsam_export"


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written.

    Raises:
        FileExistsError: It exists and may not be replaced.
        ValueError: It is a link.
    """
    check_not_link(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(
            f"{path} already exists; choose another folder, or --overwrite "
            "(overwrite=True) to replace it."
        )
    if not path.is_dir() or (any(path.iterdir()) and not _is_export(path)):
        raise FileExistsError(
            f"{path} is not an export of longsam, so it is not replaced; choose another folder."
        )


@contextmanager
def whole_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside the target, which takes the target's name at the end.

    Args:
        path: The target.
        overwrite: An earlier export there is removed once the new one is complete.

    Raises:
        FileExistsError: As `check_target`.
    """
    check_target(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        os.chmod(partial, 0o777 & ~_umask())  # mkdtemp makes folders that only the owner can read
        yield partial
        check_target(path, overwrite)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_table(folder: Path, content: dict[str, Any]) -> None:
    """Write the table of objects."""
    text = json.dumps({_KEY: 1, **content}, indent=1) + "\n"
    (folder / TABLE).write_text(text, encoding="ascii")


def _is_export(path: Path) -> bool:
    table = path / TABLE
    try:
        return not table.is_symlink() and _KEY in json.loads(table.read_bytes()[: 1 << 26])
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
