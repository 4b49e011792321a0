"""One writer for each folder: a lock that ends with the process that holds it."""

import datetime
import errno
import json
import os
import re
import socket
import sys
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

from longsam.masks.files import check_not_link

LOCK = "writer.lock"

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_HELD: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # on Windows locked bytes cannot be read, so lock one past the end

    def _lock(number: int) -> None:
        os.lseek(number, _FAR, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        os.lseek(number, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """Held from the start to `release`, or to the end of the process, however it ends.

    While it is held, `writer.lock` in the folder names its holder.

    Raises:
        RuntimeError: Another writer holds it.
    """

    def __init__(self, folder: Path):
        self._path = folder / LOCK
        self._number: int | None = None
        check_not_link(self._path)
        while self._number is None:
            number = os.open(
                self._path,
                os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0),
                0o666,
            )
            try:
                self._take(number, folder)
                # A holder removes the file when it is done, perhaps between our open and lock.
                if os.path.exists(self._path) and os.path.samestat(
                    os.fstat(number), os.stat(self._path)
                ):
                    self._number = number
            finally:
                if self._number is None:
                    os.close(number)
        _HELD.add(self)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a full disk: the lock works without its holder's name
            os.ftruncate(self._number, 0)
            os.write(self._number, json.dumps(holder).encode())

    def _take(self, number: int, folder: Path) -> None:
        try:
            _lock(number)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warnings.warn(
                    f"{folder} is on a file system without locks ({error.strerror}): make "
                    "that only one process writes masks there.",
                    stacklevel=4,  # above MaskWriter
                )
                return
            raise RuntimeError(
                f"{folder} is being written by {_holder(number)}. Close that writer or wait for "
                "it, or choose another folder."
            ) from None

    def release(self) -> None:
        """Let others write; may be called more than once."""
        number, self._number = self._number, None
        _HELD.discard(self)
        if number is None:
            return
        with suppress(OSError):  # the folder may no longer be writable; then the file stays
            os.ftruncate(number, 0)
            if sys.platform != "win32":  # which cannot remove an open file
                self._path.unlink(missing_ok=True)
        os.close(number)
        if sys.platform == "win32":
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def forget(self) -> None:
        """In a forked child: the parent holds the lock, and the child must not keep it."""
        number, self._number = self._number, None
        if number is not None:
            os.close(number)


def _holder(number: int) -> str:
    """The holder of a lock according to its file, which may contain anything."""
    try:
        os.lseek(number, 0, os.SEEK_SET)
        said = json.loads(os.read(number, 1000))
        pid, host, since = said["pid"], said["host"], said["since"]
        if not (
            isinstance(pid, int)
            and re.fullmatch(r"[\w.-]{1,255}", host)
            and re.fullmatch(r"[\dT:+-]{1,40}", since)
        ):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    if pid == os.getpid() and host == socket.gethostname():
        return f"another MaskWriter of this process (since {since})"
    return f"process {pid} on {host} since {since}"


def _forget_all() -> None:
    for lock in list(_HELD):
        lock.forget()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
