"""Connected parts of masks."""

import numpy as np
import numpy.typing as npt

from longsam.policies.boxes import Box


def largest_part(mask: npt.NDArray[np.bool_]) -> Box | None:
    """The box around the largest connected part (8-connectivity); None if empty.

    Rows are cut into runs, and runs that touch in neighbouring rows are joined, so the work grows
    with the outline, not with the area.

    Args:
        mask: height x width.
    """
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = (part.tolist() for part in np.nonzero(edges == 1))
    stops = np.nonzero(edges == -1)[1].tolist()
    if not rows:
        return None
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and stops[above] < starts[run]):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] <= stops[run]:
            parent[root(other)] = root(run)
            other += 1
    roots = np.array([root(run) for run in range(len(rows))])
    sizes = np.bincount(roots, weights=np.array(stops) - np.array(starts))
    chosen = roots == sizes.argmax()
    ys = np.array(rows)[chosen]
    return (
        float(np.array(starts)[chosen].min()),
        float(ys.min()),
        float(np.array(stops)[chosen].max() - 1),
        float(ys.max()),
    )
