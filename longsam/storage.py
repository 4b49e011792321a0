"""Files written atomically, and read without running code from them."""

import io
import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"  # in a temporary folder, locked by the process that uses it
_TRAILER = b"\nlongsam crc32 %08x\n"
_TRAILER_BYTES = len(_TRAILER % 0)
_BLOCK_BYTES = 1 << 20


def write(content: dict[str, Any], path: Path) -> None:
    """Write a file so that at any time either the old one or the new one is there, complete.

    Args:
        content: Plain types and tensors; see `plain`.
        path: The file. A symbolic link is followed, and stays.

    Raises:
        ValueError: There is a folder, a device or a pipe at `path`, or something cannot be saved.
        OSError: The file cannot be written (the disk is full, ...). An existing file is unchanged.
    """
    content = plain(content)
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file, so nothing can be saved there. Name a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    _remove_left_over(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "xb") as file:
            _write_checked(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read(path: Path, key: str, what: str, version: int) -> dict[str, Any]:
    """Read a file written by `write`.

    Args:
        path: The file.
        key: The key that holds the version of its format.
        what: What messages call it: "state", "memory bank".
        version: The version that can be read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else, damaged, or of another version.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no saved {what} at {path}.")
    try:
        with open(path, "rb") as file:
            _check(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
        found = content[key]
        _check_tensors(content)
    except Exception as error:  # damage shows in many ways
        raise ValueError(
            f"{path} is not a {what} that longsam has saved, or it is damaged "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"{path} is not a {what} that longsam has saved: its version is odd.")
    if found != version:
        raise ValueError(
            f"{path} has version {found} of the format; this longsam reads version {version}."
        )
    return dict(content)


@contextmanager
def reporting_damage(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Name the file if its content is not what was saved."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold a {what} as longsam saves it "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error


def plain(value: Any) -> Any:
    """The same in types that load without running code: a frame index may be NumPy's.

    Raises:
        ValueError: A value is of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((plain(key), plain(item)) for key, item in value.items())
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if value is None or isinstance(value, (bool, torch.Tensor)):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # also of a subclass, such as an Enum's
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    raise ValueError(f"{value!r} is of type {type(value).__name__}, which cannot be saved.")


def _write_checked(content: dict[str, Any], file: IO[bytes]) -> None:
    """Torch's archive, followed by a checksum of every byte, which the archive itself lacks."""
    checked = _Checked(file)
    try:
        torch.save(content, checked)  # type: ignore[arg-type]
    except RuntimeError:
        if checked.error is not None:  # torch hides the disk's own error
            raise checked.error from None
        raise
    file.write(_TRAILER % checked.crc)


class _Checked(io.RawIOBase):
    """A file written from start to end, with the checksum of what was written."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.crc = 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.crc = zlib.crc32(data, self.crc)
        return written


def _check(file: IO[bytes]) -> None:
    """Refuse a damaged file, or one that unpacks to more than its own size."""
    num_bytes = os.fstat(file.fileno()).st_size - _TRAILER_BYTES
    if num_bytes < 0 or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ValueError("it is too short")
    crc, left = 0, num_bytes
    while left > 0:
        block = file.read(min(_BLOCK_BYTES, left))
        crc = zlib.crc32(block, crc)
        left -= len(block)
    if file.read() != _TRAILER % crc:
        raise ValueError("its checksum is wrong")
    file.seek(0)
    with zipfile.ZipFile(file) as parts:
        if sum(part.file_size for part in parts.infolist()) > num_bytes:
            raise ValueError("it unpacks to more than its size")
    file.seek(0)


def _check_tensors(value: Any) -> None:
    """Refuse tensors that claim more numbers than the file holds for them (by strides of 0)."""
    if isinstance(value, torch.Tensor):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"it holds a tensor of shape {tuple(value.shape)} without its numbers")
    elif isinstance(value, dict):
        for item in value.values():
            _check_tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_tensors(item)


def temporary_folder(owner: object, prefix: str) -> tuple[Path, Callable[[], object]]:
    """A folder removed together with its owner, at the latest when the next one is made.

    A killed process cannot remove its folder. But its lock on the folder is gone, so the next
    process that makes such a folder sees that it is unused and removes it.

    Args:
        owner: The folder is removed when this object goes.
        prefix: How the names of such folders begin.

    Returns:
        The folder, and a call that removes it earlier.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_if_unused(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if fcntl is None:
        return folder, weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    lock = open(folder / f"{_LOCK}.new", "wb")  # noqa: SIM115 (held as long as the folder)
    _try_to_lock(lock)
    os.replace(folder / f"{_LOCK}.new", folder / _LOCK)  # others see it only once it is locked

    def remove() -> None:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)

    return folder, weakref.finalize(owner, remove)


def _remove_if_unused(folder: Path) -> None:
    if fcntl is None or folder.is_symlink():
        return
    try:
        with open(folder / _LOCK, "rb") as lock:
            if os.fstat(lock.fileno()).st_uid == os.getuid() and _try_to_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # in use, or being made or removed


def _try_to_lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_left_over(path: Path) -> None:
    """Remove what processes killed while saving to the same path have left."""
    if os.name != "posix":
        return
    for partial in path.parent.glob(f"{_escaped(path.name)}.*.partial"):
        pid = partial.name[len(path.name) + 1 : -len(".partial")]
        if pid.isdecimal() and not _is_running(int(pid)):
            partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _sync_folder(folder: Path) -> None:
    """Wait until a new name is on the disk too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
