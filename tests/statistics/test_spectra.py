"""Power spectra, zeros of the CTF and Thon ring fits, on images whose content is known."""

import numpy as np
import pytest
from simulated_images import OPTICS, SPACING, image_with_thon_rings

from n2n_deploy.imaging.ctf import CTFParameters, ctf
from n2n_deploy.imaging.rings import ring_frequencies
from n2n_deploy.statistics.spectra import ctf_zeros, fit_thon_rings, power


@pytest.mark.parametrize("shape", [(512, 480), (481, 513)])
def test_power_of_white_noise_is_its_variance_in_every_ring(shape):
    noise = 3 * np.random.default_rng(0).standard_normal(shape)
    spectrum = power(np.fft.rfft2(noise), shape, SPACING)
    assert spectrum[20:].mean() == pytest.approx(9, rel=0.02)
    assert np.abs(spectrum[20:] / 9 - 1).max() < 0.5


@pytest.mark.parametrize("phase_shift", [0.0, 75.0])
@pytest.mark.parametrize("defocus", [8000.0, 25000.0, -6000.0])
def test_ctf_changes_sign_at_its_zeros_and_nowhere_else(defocus, phase_shift):
    parameters = CTFParameters(defocus, defocus, phase_shift=phase_shift)
    zeros = ctf_zeros(OPTICS, parameters, 0.2)
    n = 20001
    line = ctf((1, n), (1.0, 1.0), OPTICS, parameters)[0]
    s = np.fft.rfftfreq(n, 1.0)
    line, s = line[s <= 0.2], s[s <= 0.2]
    changes = np.flatnonzero(np.diff(np.sign(line)) != 0)
    assert len(zeros) == len(changes)
    np.testing.assert_allclose(zeros, (s[changes] + s[changes + 1]) / 2, atol=s[1])


def test_thon_rings_reveal_a_wrong_pixel_size_or_defocus():
    noisy, _ = image_with_thon_rings((768, 768))
    given = CTFParameters(12000.0, 12000.0)
    spectrum = power(np.fft.rfft2(noisy), noisy.shape, SPACING)
    frequency = ring_frequencies(noisy.shape, SPACING)
    right = fit_thon_rings(frequency, spectrum, OPTICS, given)
    assert right.given > 0.6
    assert right.scale == pytest.approx(1.0, abs=0.011)
    assumed_too_large = fit_thon_rings(frequency / 1.12, spectrum, OPTICS, given)
    assert assumed_too_large.given < 0.2
    assert assumed_too_large.best > 0.6
    assert assumed_too_large.scale == pytest.approx(1.12, abs=0.011)
    # γ is nearly π λ Δz s², so half the defocus is equivalent to 1/√2 of the frequency.
    wrong_defocus = fit_thon_rings(frequency, spectrum, OPTICS, CTFParameters(16000.0, 16000.0))
    assert wrong_defocus.scale == pytest.approx(np.sqrt(12000 / 16000), abs=0.011)


def test_zero_defocus_has_no_thon_rings_to_fit():
    noisy, _ = image_with_thon_rings((256, 256))
    spectrum = power(np.fft.rfft2(noisy), noisy.shape, SPACING)
    assert fit_thon_rings(ring_frequencies(noisy.shape, SPACING), spectrum, OPTICS, CTFParameters(0.0, 0.0)) is None


def test_noise_has_no_thon_rings():
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((512, 512))
        spectrum = power(np.fft.rfft2(noise), noise.shape, SPACING)
        assert (
            fit_thon_rings(ring_frequencies(noise.shape, SPACING), spectrum, OPTICS, CTFParameters(12000, 12000)).best
            < 0.4
        )
