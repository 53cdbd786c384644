"""Dose weights: each frame's spatial frequencies weighted by what radiation has left of them.

Grant & Grigorieff, eLife 4 (2015): the critical dose is N_c(s) = 0.245 s^−1.665 + 2.81 electrons per Å² at 300 kV
(eq. 3); a frame that ends at dose N is multiplied by exp(−N / 2 N_c) (eq. 5). At 200 kV the same dose does 1/0.8 times
the damage, and at 100 kV 1/0.64 times, as in RELION. The sum is divided by the root of the sum of squared weights
(eq. 9), so that its noise is white where the frames' noise is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.fourier import frequencies

Grid = npt.NDArray[np.float32]

_A, _B, _C = 0.245, -1.665, 2.81
_DAMAGE = {300: 1.0, 200: 0.8, 100: 0.64}
_SAME_VOLTAGE = 2.0


def equivalent_dose(dose: float, voltage: float) -> float:
    """Return the dose at 300 kV that does the damage of `dose` electrons per Å² at `voltage` kV.

    Raises:
        DataError: no factor is known for the voltage.
    """
    for known, factor in _DAMAGE.items():
        if abs(voltage - known) <= _SAME_VOLTAGE:
            return dose / factor
    raise DataError(f"the dose weights are known for 300, 200 and 100 kV, not for {voltage:g} kV; sum without them")


class DoseWeights:
    """The weights of a movie's frames.

    Even and odd sums are normalised separately, each to half the noise power of a frame: the noise of both halves is
    equally strong and white, and their sum is a whole image with white noise. (One factor for all frames would leave
    the half that begins earlier with more power at high frequency.)

    Args:
        shape: (ny, nx) of the sums.
        pixel_size: Å of the sums.
        doses: electrons per Å² at 300 kV by the end of each frame that is summed.
        halves: for each of these frames, the half it belongs to, 0 or 1.
    """

    def __init__(
        self, shape: tuple[int, int], pixel_size: float, doses: Sequence[float], halves: Sequence[int]
    ) -> None:
        s = frequencies(shape, (pixel_size, pixel_size))
        with np.errstate(divide="ignore"):
            self._decay: Grid = (-0.5 / (_A * s.astype(np.float64) ** _B + _C)).astype(np.float32)
        self._doses, self._halves = list(doses), list(halves)
        squares = [np.zeros_like(self._decay) for _ in range(2)]
        for dose, half in zip(doses, halves, strict=True):
            squares[half] += self._attenuation(dose) ** 2
        self._norms = [np.sqrt(np.maximum(2 * square, np.finfo(np.float32).tiny)) for square in squares]

    def __getitem__(self, index: int) -> Grid:
        """The weight of a summed frame: (ny, nx//2+1) float32."""
        weight = self._attenuation(self._doses[index])
        weight /= self._norms[self._halves[index]]
        return weight

    def _attenuation(self, dose: float) -> Grid:
        attenuation: Grid = np.exp(self._decay * np.float32(dose))
        return attenuation
