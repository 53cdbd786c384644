"""S3 estimates against known signals, noise and bias, and against the algebra of linear denoisers."""

from collections.abc import Callable

import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.statistics import estimates as s3

from .conftest import N_VAR, SHAPE, Image, halves, noise, smooth_signal

SPACING = (1.2, 1.2)


@pytest.mark.parametrize("snr", [0.02, 0.1, 1.0])
@pytest.mark.parametrize(
    "bias",
    [lambda s: 0 * s, lambda s: -0.4 * s, lambda s: 0.3 * (s**2 - 1), lambda s: 0.5 * np.roll(s, 60)],
)
def test_recovers_known_signal_noise_and_bias(snr: float, bias: Callable[[Image], Image]) -> None:
    signal = smooth_signal(1)
    m1, m2 = halves(signal, 1 / snr)
    wrong = bias(signal)
    d1, d2 = (signal + wrong + noise(seed, 0.05) for seed in (21, 22))
    found = s3.estimate(m1, m2, d1, d2)
    # Standard error of a covariance of two independent noises, and of one noise with the signal.
    scatter = 5 * (1 / snr + 2) / np.sqrt(signal.size)
    assert found.var_signal == pytest.approx(signal.var(), abs=scatter)
    assert found.var_noise_noisy == pytest.approx(1 / snr, abs=2 * scatter)
    assert found.var_noise_denoised == pytest.approx(0.05, abs=scatter)
    assert found.var_bias == pytest.approx(wrong.var(), abs=3 * scatter)
    error = np.mean((wrong - wrong.mean()) ** 2) + 0.05
    assert found.recovered_signal_fraction == pytest.approx(1 - error / signal.var(), abs=4 * scatter)
    assert found.snr_noisy == pytest.approx(snr, rel=2 * scatter)
    assert found.snr_denoised == pytest.approx(1 / 0.05, rel=2 * scatter + 20 * 5 / np.sqrt(signal.size))


def test_denoised_noise_may_depend_on_the_noise_of_the_same_half() -> None:
    """A real denoiser's residual noise depends on its input's noise; the estimates stay correct."""
    signal = smooth_signal(1)
    m1, m2 = halves(signal)
    d1, d2 = (0.6 * signal + 0.1 * (m - signal) for m in (m1, m2))
    found = s3.estimate(m1, m2, d1, d2)
    assert found.var_bias == pytest.approx(0.16, abs=0.05)
    assert found.var_noise_denoised == pytest.approx(0.01 * N_VAR, rel=0.05)
    assert found.recovered_signal_fraction == pytest.approx(1 - 0.16 - 0.01 * N_VAR, abs=0.05)


def test_linear_denoiser_has_the_expected_estimates_in_every_ring() -> None:
    """For D = H M, each ring keeps H² of the noise, and its bias is (1 − H)² of the signal."""
    signal = smooth_signal(1, width=1.0)
    m1, m2 = halves(signal, 0.05)
    frequency = np.hypot(np.fft.fftfreq(SHAPE[0], SPACING[0])[:, None], np.fft.rfftfreq(SHAPE[1], SPACING[1]))
    gain = np.exp(-20 * frequency**2)
    d1, d2 = (np.fft.irfft2(np.fft.rfft2(m) * gain, SHAPE) for m in (m1, m2))
    found = s3.per_ring(m1, m2, d1, d2, SPACING)
    rings = slice(10, 100)
    h = np.exp(-20 * found.frequency[rings] ** 2)
    signal_power, noise_power = found.var_signal[rings], found.var_noise_noisy[rings]
    tolerance = 0.05 * signal_power.max()
    np.testing.assert_allclose(found.var_noise_denoised[rings], h**2 * noise_power, rtol=0.02, atol=0.02 * tolerance)
    np.testing.assert_allclose(found.var_bias[rings], (1 - h) ** 2 * signal_power, atol=tolerance)
    expected = (2 * h * signal_power - h**2 * (signal_power + noise_power)) / signal_power
    np.testing.assert_allclose(found.recovered_signal_fraction[rings], expected, atol=0.02)


def test_snr_of_noisy_halves_agrees_with_the_ring_correlation() -> None:
    """FRC = SNR / (1 + SNR), eqs. 21 and 22, with the power of white noise and of a known spectrum."""
    signal = noise(1, 1.0)
    m1, m2 = halves(signal, 2.0)
    found = s3.per_ring(m1, m2, m1, m2, SPACING)
    frc = found.snr_noisy / (1 + found.snr_noisy)
    components = 2 * np.pi * np.arange(frc.size)
    expected = 0.5 / 1.5
    deviation = (frc[5:] - expected) * np.sqrt(components[5:]) / (1 - expected**2)
    assert np.abs(deviation).max() < 8
    assert np.mean(frc[50:]) == pytest.approx(expected, abs=0.01)


def test_rings_add_up_to_the_image() -> None:
    """Parseval, on images without components in the corners beyond the last ring."""
    shape = (96, 81)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    rng = np.random.default_rng(3)
    limited = [np.fft.irfft2(np.fft.rfft2(rng.normal(7, 1, shape)) * (frequency < 0.45), shape) for _ in range(4)]
    whole, rings = s3.covariances(*limited), s3.ring_covariances(*limited, (1.0, 1.0))
    for name in ("m1m1", "m2m2", "d1d1", "d2d2", "m1m2", "d1d2", "d1m2", "d2m1"):
        assert getattr(rings, name).sum() == pytest.approx(getattr(whole, name), rel=1e-4, abs=1e-6)


def test_recovered_signal_fraction_of_known_images() -> None:
    signal = smooth_signal(1)
    m1, m2 = halves(signal, 0.2)
    blank = np.full(SHAPE, 3.0)
    assert s3.estimate(m1, m2, blank, blank).recovered_signal_fraction == pytest.approx(0, abs=1e-9)
    assert s3.estimate(m1, m2, signal, signal).recovered_signal_fraction == pytest.approx(1, abs=0.01)
    assert s3.estimate(m1, m2, -signal, -signal).recovered_signal_fraction == pytest.approx(-3, abs=0.05)
    harmful = s3.estimate(m1, m2, m1 + 2 * noise(31), m2 + 2 * noise(32))
    assert harmful.recovered_signal_fraction < -5


def test_ratios_of_a_set_are_ratios_of_averages() -> None:
    strong, weak = (s3.covariances(*halves(smooth_signal(1, v)), *halves(smooth_signal(1, v))) for v in (4.0, 0.01))
    both = s3.from_covariances(s3.mean_covariances([strong, weak]))
    assert both.snr_noisy == pytest.approx(2.005 / N_VAR, rel=0.05)


def test_halves_of_different_shapes_are_refused() -> None:
    image, other = np.zeros((8, 8)), np.zeros((8, 6))
    for function in (s3.covariances, lambda *images: s3.ring_covariances(*images, (1.0, 1.0))):
        with pytest.raises(DataError, match="6×8, 8×8"):
            function(image, image, image, other)
