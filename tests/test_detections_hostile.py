"""What a detector may return by mistake: a ValueError that says what it must be."""

from typing import Any

import pytest

from longsam.detections import as_detections


@pytest.mark.parametrize(
    "found",
    [
        ([[1, 2, 3, 4]], None, 5),
        ([[1, 2, 3, 4]], [[]], None),
        ([[1, 2, 3, 1 + 2j]],),
        [[1, 2, 3, None]],
        [[1, 2, 3, []]],
        [[1, 2, 3, "x"]],
        [[1, 2, 3]],
        "cat",
        5,
    ],
)
def test_of_another_kind(found: Any) -> None:
    with pytest.raises(ValueError, match=r"Detections|A box is|A detector returned"):
        as_detections(found)
