"""Correlation of halves against NumPy's, and its standard error against the scatter of independent images."""

import numpy as np
import pytest

from n2n_deploy.statistics.halves import coarse_correlation, correlation


@pytest.mark.parametrize("grey_level", [0.0, 3000.0])
def test_correlation_is_that_of_numpy(grey_level: float) -> None:
    rng = np.random.default_rng(1)
    signal, first, second = rng.standard_normal((3, 257, 300))
    even, odd = (np.float32(signal + noise + grey_level) for noise in (first, second))
    assert correlation(even, odd) == pytest.approx(np.corrcoef(even.ravel(), odd.ravel())[0, 1], abs=1e-7)
    assert correlation(even, np.float32(2 * even + 7)) == pytest.approx(1, abs=1e-6)
    assert correlation(even, np.ones_like(even)) == 0


def test_coarse_correlation_of_independent_images_scatters_by_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        value, error = coarse_correlation(*np.float32(rng.standard_normal((2, 100, 120))), spacing=4.0)
        found.append(value / error)
    assert np.std(found) == pytest.approx(1, abs=0.3)
