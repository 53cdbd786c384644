"""Fourier rings of images with different fields of view, brought onto one frequency axis."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.statistics.estimates import COVARIANCE_NAMES, Covariances, Estimates, from_covariances


class FrequencyBins:
    """A frequency axis that rings of any width are distributed over, by how much of each ring a bin covers.

    Args:
        axes: (rings,) 1/Å for each image, in equal steps from 0.
        bins: how many equal bins to make; by default, and where there are fewer rings, the widest rings are the bins.

    Attributes:
        frequency: (bins,) 1/Å, centre of each bin.
    """

    frequency: NDArray[np.float64]

    def __init__(self, axes: Sequence[NDArray[np.float64]], bins: int | None = None) -> None:
        end = max(float(axis[-1] + axis[1] / 2) for axis in axes)
        widest = max(float(axis[1]) for axis in axes)
        if bins is None or bins * widest > end:
            self._edges = np.arange(-0.5, end / widest + 0.49) * widest
            self._edges[0] = 0.0
            self.frequency = np.arange(len(self._edges) - 1, dtype=np.float64) * widest
        else:
            self._edges = np.linspace(0.0, end, bins + 1)
            self.frequency = (np.arange(bins, dtype=np.float64) + 0.5) * (end / bins)

    def rebin(self, values: NDArray[np.float64], frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distribute sums over rings, (k, rings) on a frequency axis, over the bins, (k, bins); their total is kept."""
        edges = np.concatenate([[0.0], frequency + frequency[1] / 2])
        sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
        return np.diff(np.array([np.interp(self._edges, edges, row) for row in sums]), axis=1)


def binned_estimates(rings: Covariances, bins: int) -> Estimates:
    """Estimate one micrograph's rings in fewer, wider ones, which scatter less."""
    axis = FrequencyBins([rings.frequency], bins)
    values = axis.rebin(np.array([getattr(rings, name) for name in COVARIANCE_NAMES]), rings.frequency)
    return from_covariances(Covariances(*[*values, axis.frequency]))
