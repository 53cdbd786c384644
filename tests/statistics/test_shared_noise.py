"""Shared noise is measured correctly, with and without signal, and is zero where there is none."""

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy import data
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.report.flags import shared_noise_flag
from n2n_deploy.statistics.shared_noise import at_ctf_zeros, beyond_signal

OPTICS = Optics(1.0, 300.0, 2.7, 0.1)
CTF = CTFParameters(12000.0, 11500.0, 30.0)
SPACING = (3.0, 3.0)
SHAPE = (700, 640)

Image = NDArray[np.float32]


def halves(common: float, signal: float, seed: int = 0) -> tuple[Image, Image]:
    """Signal behind the CTF, falling towards high frequency; noise of variance 1, a fraction of which is shared."""
    rng = np.random.default_rng(seed)
    transfer = ctf(SHAPE, SPACING, OPTICS, CTF) * np.exp(-60 * frequencies(SHAPE, SPACING) ** 2)
    specimen = np.sqrt(signal) * np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * transfer, SHAPE)
    shared = np.sqrt(common) * rng.standard_normal(SHAPE)
    even, odd = (specimen + shared + np.sqrt(1 - common) * rng.standard_normal(SHAPE) for _ in range(2))
    return even.astype(np.float32), odd.astype(np.float32)


@pytest.mark.parametrize("signal", [0.0, 3.0])
@pytest.mark.parametrize("common", [0.0, 0.15, 0.3])
def test_shared_noise_is_separated_from_signal(common: float, signal: float) -> None:
    even, odd = halves(common, signal)
    found = at_ctf_zeros(even, odd, SPACING, OPTICS, CTF)
    assert found is not None
    power = 1 + 0.5 * signal * np.exp(-2 * 60 * 0.13**2)
    assert found.fraction == pytest.approx(common / power, abs=4 * found.error)
    assert (shared_noise_flag(found) is not None) == (common > 0)
    assert np.mean(even * odd) > common + 0.01 * signal, "the halves have signal in common as well"


def test_standard_error_matches_the_scatter() -> None:
    found = [at_ctf_zeros(*halves(0.0, 1.0, seed), SPACING, OPTICS, CTF) for seed in range(1, 17)]
    shares, errors = np.array([(each.fraction, each.error) for each in found if each is not None]).T
    assert np.std(shares) == pytest.approx(np.mean(errors), rel=0.5)
    assert abs(np.mean(shares)) < 4 * np.mean(errors) / np.sqrt(16)


@pytest.mark.parametrize(("gain", "expected"), [(0.0, 0.0), (0.05, 0.04)])
def test_gain_error_is_measured_on_a_real_micrograph(gain: float, expected: float) -> None:
    """Halves of real electron counts; a fixed relative error σ adds (σ n)² to a pixel's n of shot noise."""
    window = slice(800, 2000)
    counts = data.micrograph_counts()[window, window]
    even, odd = (half.astype(np.float64) for half in data.thin(counts, 0))
    pattern = 1 + gain * np.random.default_rng(1).standard_normal(even.shape)
    found = beyond_signal(*(half.astype(np.float32) for half in (even * pattern, odd * pattern)), 0.85378)
    assert found is not None
    assert found.fraction == pytest.approx(gain**2 * even.mean() / (1 + gain**2 * even.mean()), abs=0.015)
    assert found.fraction == pytest.approx(expected, abs=0.015)
    assert (shared_noise_flag(found) is not None) == (gain > 0)


def test_coarse_pixels_cannot_be_measured() -> None:
    even, odd = halves(0.3, 0.0)
    assert beyond_signal(even, odd, 1.6) is None
    assert at_ctf_zeros(even, odd, (12.0, 12.0), OPTICS, CTF) is None
