"""Counting detectors: how much of the signal-to-noise ratio they keep at each spatial frequency."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector's detective quantum efficiency, DQE.

    Attributes:
        name: as in the field.
        dqe: at zero frequency, at half the physical Nyquist frequency and at Nyquist.
    """

    name: str
    dqe: tuple[float, float, float]

    def envelope(self, frequency: NDArray[np.floating], pixel_size: float) -> NDArray[np.float32]:
        """Return √DQE, by which the signal falls when the noise is kept white.

        A super-resolution image reaches beyond the physical Nyquist frequency; the parabola through the three points
        is continued there, down to a hundredth.

        Args:
            frequency: s in 1/Å, of any shape.
            pixel_size: Å per physical pixel.
        """
        zero, half, full = self.dqe
        x = frequency * np.float32(2 * pixel_size)
        curve = zero + (4 * half - 3 * zero - full) * x + (2 * zero + 2 * full - 4 * half) * x**2
        envelope: NDArray[np.float32] = np.sqrt(np.maximum(curve, 0.01), dtype=np.float32)
        return envelope


DETECTORS = {
    detector.name: detector
    for detector in (
        Detector("perfect", (1.0, 1.0, 1.0)),
        Detector("K2", (0.80, 0.57, 0.25)),
        Detector("K3", (0.95, 0.71, 0.40)),
        Detector("Falcon 3", (0.80, 0.60, 0.25)),
        Detector("Falcon 4", (0.91, 0.72, 0.50)),
    )
}
"""By name. Approximations at 300 kV and low dose rates, after the makers' curves (Gatan, Thermo Fisher Scientific) and
McMullan et al. (2014), Ultramicroscopy 147, 156, for counting at about one electron per several tens of pixels."""
