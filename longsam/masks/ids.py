"""Object ids in files: which are allowed, and the folder named after each."""

import hashlib
import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

ObjectId = int | str

MAX_ID_CHARACTERS = 1000
MAX_NAME_CHARACTERS = 100

_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.ASCII)  # devices of Windows


def check_obj_id(obj_id: Any) -> ObjectId:
    """An object id as it is stored in files.

    Raises:
        ValueError: It is neither an integer nor a string, or too long.
    """
    if type(obj_id) is int and -(2**63) < obj_id < 2**63:  # most are, and there may be millions
        return obj_id
    if isinstance(obj_id, np.generic):
        obj_id = obj_id.item()
    if isinstance(obj_id, bool) or not isinstance(obj_id, (int, str)):
        raise ValueError(
            f"The object id {obj_id!r} is of type {type(obj_id).__name__}; ids of objects whose "
            "masks are written must be integers or strings."
        )
    if isinstance(obj_id, int):
        if obj_id.bit_length() > 64:
            raise ValueError(f"An object id is a number of {obj_id.bit_length()} bits; at most 64.")
        return int(obj_id)
    if len(obj_id) > MAX_ID_CHARACTERS:
        raise ValueError(
            f"The object id {obj_id[:40]!r}... has {len(obj_id)} characters; at most "
            f"{MAX_ID_CHARACTERS}."
        )
    return str(obj_id)


def check_obj_ids(obj_ids: list[Any]) -> list[ObjectId]:
    """The ids of one frame.

    Raises:
        ValueError: One is neither an integer nor a string, or occurs twice.
    """
    plain = [check_obj_id(obj_id) for obj_id in obj_ids]
    if len(set(plain)) < len(plain):
        raise ValueError(f"One of the object ids {plain} is there twice.")
    return plain


def folder_name(obj_id: ObjectId) -> str:
    """The name of an object's folder: safe on every file system, and unique.

    A number stays as it is. In a string, lower-case letters, digits, "_" and "-" stay, and each
    other byte of its UTF-8 becomes %xx in lower case, so that names differ by more than case. The
    empty string is "%". A string that looks like a number, or is reserved on Windows, has its first
    character encoded. A name of more than 100 characters is cut, with "~" and a hash of the id
    after it.
    """
    if isinstance(obj_id, int):
        return str(obj_id)
    if not obj_id:
        return "%"
    data = obj_id.encode("utf-8", "surrogatepass")
    encoded = [chr(byte) if byte in _KEPT else f"%{byte:02x}" for byte in data]
    if _NUMBER.fullmatch(obj_id) or _RESERVED.fullmatch(obj_id):
        encoded[0] = f"%{data[0]:02x}"
    name = "".join(encoded)
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.sha256(json.dumps(obj_id).encode()).hexdigest()[:32]
    cut = ""
    for part in encoded:
        if len(cut) + len(part) > MAX_NAME_CHARACTERS - 1 - len(digest):
            break
        cut += part
    return f"{cut}~{digest}"


def id_of_folder(name: str) -> ObjectId:
    """The object id of a folder's name: the inverse of `folder_name`.

    Raises:
        ValueError: No id has this name, or it was too long for a name; `frames.jsonl` has it.
    """
    obj_id: ObjectId | None = None
    if _NUMBER.fullmatch(name):
        obj_id = int(name)
    elif name == "%":
        obj_id = ""
    elif "~" not in name:
        with suppress(UnicodeDecodeError):
            obj_id = unquote_to_bytes(name).decode("utf-8", "surrogatepass")
    if obj_id is None or folder_name(obj_id) != name:
        raise ValueError(
            f"{name!r} is no object's folder, or of an id too long for a name, which is listed "
            'under "new" in frames.jsonl.'
        )
    return obj_id
