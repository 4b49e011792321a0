"""Object ids as names of folders: safe, bounded, one for each id, and back."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longsam.masks import MaskFolder, MaskWriter, read_masks
from longsam.masks.ids import check_obj_id, folder_name, id_of_folder

ODD: list[int | str] = [
    "", ".", "..", "../../frames", "/etc", "a/b", "a\\b", "C:", "con", "CON", "nul.txt", "com1",
    "bee", "Bee", "BEE", "bee ", " bee", "bee.", "7", "-7", "007", "%", "%2e", "~", "*?<>|\"'",
    "\0", "\n", "\ud800", "e\u0301", "\u00e9", "\u8702" * 30, "x" * 1000, "X" * 101, "-rf",
    7, -7, 0, 2**63, -(2**63),
]  # fmt: skip


def test_names_are_safe_and_each_another_one() -> None:
    names = [folder_name(obj_id) for obj_id in ODD]
    assert len({name.lower() for name in names}) == len(ODD)
    for name in names:
        assert 1 <= len(name) <= 100
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%~"), name
        assert name not in {"con", "prn", "aux", "nul", "com1", "lpt1"}
    assert folder_name("left bee") == "left%20bee"
    assert folder_name(12) == "12"
    assert folder_name("12") == "%312"


@given(st.one_of(st.text(max_size=40), st.integers(-(2**63), 2**63)))
def test_names_lead_back_to_their_ids(obj_id: int | str) -> None:
    name = folder_name(obj_id)
    if "~" in name:
        with pytest.raises(ValueError, match="too long for a name"):
            id_of_folder(name)
    else:
        back = id_of_folder(name)
        assert back == obj_id
        assert type(back) is type(obj_id)


@pytest.mark.parametrize("name", ["", "..", "Bee", "%zz", "a~0", "%41b%", "%e", "%E9", "%ff", "01"])
def test_other_names_are_nobodys(name: str) -> None:
    with pytest.raises(ValueError, match="is no object's folder"):
        id_of_folder(name)


def test_masks_of_odd_ids_stay_in_their_folder_and_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "out"
    masks = torch.zeros(len(ODD), 8, 9, dtype=torch.bool)
    for number in range(len(ODD)):
        masks[number].view(-1)[number] = True
    with MaskWriter(folder, ["rle", "png", "object_png"]) as writer:
        writer.write(0, ODD, masks)
    for format in ("rle", "png", "object_png"):
        (frame,) = read_masks(folder, format)
        assert frame.obj_ids == ODD
        assert (torch.from_numpy(frame.masks) == masks).all(), format
    assert [path.name for path in tmp_path.rglob("*") if path.parent == folder.parent] == ["out"]
    assert len(list((folder / "object_png").iterdir())) == len(ODD)
    assert MaskFolder(folder).all_obj_ids() == ODD


def test_ids_that_are_too_long() -> None:
    with pytest.raises(ValueError, match="has 1001 characters; at most 1000"):
        check_obj_id("a" * 1001)
    with pytest.raises(ValueError, match="number of 5001 bits; at most 64"):
        check_obj_id(1 << 5000)
    with pytest.raises(ValueError, match="of type NoneType"):
        check_obj_id(None)
