"""A constant-velocity Kalman filter on boxes.

State and noise are those of SORT with deep association (Wojke, Bewley, Paulus, "Simple Online and
Realtime Tracking with a Deep Association Metric", arXiv 1703.07402), which SAMURAI adopts: the
centre's x and y, the aspect ratio (width / height), the height, and the speed of each, in pixels
and pixels a frame.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longsam.policies.boxes import Box

Numbers = npt.NDArray[np.float64]

POSITION = 1 / 20
"""Standard deviation of a position, as a fraction of the height."""

SPEED = 1 / 160
"""Standard deviation of a speed, as a fraction of the height."""

_STEP = np.eye(8) + np.eye(8, k=4)


@dataclass(frozen=True)
class Motion:
    """The estimate of a box, and its uncertainty.

    Args:
        mean: 8 numbers.
        covariance: 8 x 8.
    """

    mean: Numbers
    covariance: Numbers

    @classmethod
    def at(cls, box: Box) -> "Motion":
        """The estimate after seeing a box once, at rest."""
        measured = _measured(box)
        height = measured[3]
        deviations = np.array(
            [
                *(2 * POSITION * height, 2 * POSITION * height, 1e-2, 2 * POSITION * height),
                *(10 * SPEED * height, 10 * SPEED * height, 1e-5, 10 * SPEED * height),
            ]
        )
        return cls(np.concatenate([measured, np.zeros(4)]), np.diag(deviations**2))

    def predicted(self) -> "Motion":
        """The estimate one frame later."""
        height = self.mean[3]
        deviations = np.array(
            [
                *(POSITION * height, POSITION * height, 1e-2, POSITION * height),
                *(SPEED * height, SPEED * height, 1e-5, SPEED * height),
            ]
        )
        covariance = _STEP @ self.covariance @ _STEP.T + np.diag(deviations**2)
        return Motion(_STEP @ self.mean, covariance)

    def updated(self, box: Box) -> "Motion":
        """The estimate after the box was seen."""
        height = self.mean[3]
        deviations = np.array([POSITION * height, POSITION * height, 1e-1, POSITION * height])
        spread = self.covariance[:4, :4] + np.diag(deviations**2)
        gain = np.linalg.solve(spread, self.covariance[:4]).T
        mean = self.mean + gain @ (_measured(box) - self.mean[:4])
        return Motion(mean, self.covariance - gain @ spread @ gain.T)

    @property
    def box(self) -> Box:
        """The estimated box."""
        x, y, aspect, height = self.mean[:4].tolist()
        width = aspect * height
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def to_plain(self) -> dict[str, Any]:
        """The same in plain types."""
        return {"mean": self.mean.tolist(), "covariance": self.covariance.tolist()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Motion":
        """The inverse of `to_plain`."""
        return cls(np.array(plain["mean"]), np.array(plain["covariance"]))


def _measured(box: Box) -> Numbers:
    """Centre, aspect ratio and height; a box of height 0 counts as one pixel high."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return np.array([left + width / 2, top + height / 2, width / (height or 1.0), height or 1.0])
