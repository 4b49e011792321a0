"""How this package opens files: complete files only, and never through a link."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # do not wait for a pipe
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class AppendFile:
    """A file that only grows at its end.

    Args:
        path: Created if it does not exist. A link is refused: an untrusted folder must not make us
            write elsewhere.
        size: How many of its bytes are kept.

    Raises:
        RuntimeError: The file is shorter than that.
        ValueError: It is a link, or not a regular file.
    """

    def __init__(self, path: Path, size: int = 0):
        self.path = path
        check_not_link(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY | _NO_WAIT | _NO_LINK
        self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is not a regular file; remove it, or write elsewhere.")
            if status.st_size < size:
                raise RuntimeError(
                    f"{path} has {status.st_size} bytes, but {size} were written: it was cut off. "
                    "Go back to an earlier frame with drop_after."
                )
            self._file.truncate(size)
        except BaseException:
            self._file.close()
            raise
        self.size = size

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:  # a full disk writes a part first, and raises at the next write
            count = self._file.write(rest)
            self.size += count
            rest = rest[count:]
        return len(data)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is a pipe, a device or a folder.
    """
    number = os.open(path, os.O_RDONLY | _BINARY | _NO_WAIT)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(f"{path} is not a regular file.")
    return os.fdopen(number, "rb")


def check_not_link(path: Path) -> None:
    """Refuse to write through a link.

    Raises:
        ValueError: The path is a link.
    """
    if path.is_symlink():
        raise ValueError(
            f"{path} is a link to {os.readlink(path)}, and masks are not written through links. "
            "Remove it, or write to another folder."
        )


def own_folder(path: Path) -> Path:
    """Make a folder if it does not exist, and refuse a link."""
    check_not_link(path)
    path.mkdir(exist_ok=True)
    return path


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, from the system's cache to the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows has no such call
        return
    number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | _BINARY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def save_png(image: Image.Image, path: Path, partial: Path, text: tuple[str, str]) -> None:
    """Write a PNG under another name first, so that a file with this name is always complete.

    Args:
        image: The pixels.
        path: Where it goes.
        partial: The other name, on the same file system; removed if writing fails.
        text: Keyword and content of a text chunk.
    """
    info = PngInfo()
    info.add_text(*text)
    try:
        with open(partial, "wb") as file:
            image.save(file, "PNG", pnginfo=info, compress_level=3)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
