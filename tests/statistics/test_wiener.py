"""The Wiener filter from halves against the theoretical optimum."""

import numpy as np
import pytest

from n2n_deploy.statistics.estimates import estimate
from n2n_deploy.statistics.wiener import fit_wiener

from .conftest import N_VAR, SHAPE, halves, smooth_signal


def test_wiener_filter_reaches_the_theoretical_optimum() -> None:
    """The optimum recovers the mean of signal · SNR / (1 + SNR); the fitted filter comes close."""
    signal = smooth_signal(1)
    m1, m2 = halves(signal)
    wiener = fit_wiener(m1, m2)
    power = np.abs(np.fft.fft2(signal)) ** 2 / signal.size
    # The true radial spectrum: the ring average of an isotropic Gaussian field.
    radius = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    expected_power = np.exp(-4 * np.pi**2 * 9 * radius**2)
    expected_power *= power.sum() / expected_power.sum()
    attainable = np.sum(expected_power**2 / (expected_power + N_VAR)) / expected_power.sum()
    denoised = [wiener(m) for m in (m1, m2)]
    error = np.mean([np.mean((d - signal) ** 2) for d in denoised])
    truth = 1 - error / signal.var()
    assert truth == pytest.approx(attainable, abs=0.03)
    assert estimate(m1, m2, *denoised).recovered_signal_fraction == pytest.approx(truth, abs=0.03)


def test_wiener_filter_keeps_the_mean_and_fits_other_shapes() -> None:
    m1, m2 = halves(smooth_signal(1) + 40)
    filtered = fit_wiener(m1, m2)(m1[:301, :200])
    assert filtered.shape == (301, 200)
    assert filtered.dtype == np.float32
    assert filtered.mean() == pytest.approx(m1[:301, :200].mean(), rel=1e-6)


def test_wiener_filter_of_halves_without_signal_removes_nearly_all() -> None:
    m1, m2 = halves(np.zeros(SHAPE))
    assert fit_wiener(m1, m2)(m1).var() < 0.03 * N_VAR
