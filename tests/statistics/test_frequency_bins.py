"""Rings distributed over bins: their total is kept, and a flat spectrum stays flat."""

import numpy as np
import pytest

from n2n_deploy.statistics.frequency_bins import FrequencyBins

FINE, COARSE = np.arange(90) * 0.002, np.arange(51) * 0.0036


def test_the_widest_rings_are_the_axis_by_default() -> None:
    np.testing.assert_allclose(FrequencyBins([FINE, COARSE]).frequency, COARSE, atol=1e-12)
    np.testing.assert_allclose(FrequencyBins([FINE, COARSE], bins=1000).frequency, COARSE, atol=1e-12)


@pytest.mark.parametrize("bins", [None, 7, 30])
def test_totals_are_kept(bins: int | None) -> None:
    axis = FrequencyBins([FINE, COARSE], bins)
    for rings in (FINE, COARSE):
        values = np.random.default_rng(2).random((3, rings.size))
        np.testing.assert_allclose(axis.rebin(values, rings).sum(axis=1), values.sum(axis=1))


def test_a_constant_density_over_frequency_stays_constant() -> None:
    axis = FrequencyBins([FINE], bins=10)
    widths = np.full((1, FINE.size), FINE[1])
    widths[0, 0] /= 2  # ring 0 reaches from 0 to half a step
    (sums,) = axis.rebin(widths, FINE)
    np.testing.assert_allclose(sums, (FINE[-1] + FINE[1] / 2) / 10)
    np.testing.assert_allclose(axis.frequency, (np.arange(10) + 0.5) * sums[0])
