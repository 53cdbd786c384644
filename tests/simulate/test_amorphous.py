"""Amorphous ice and carbon (amorphous): published rings, compressibility and motion, and Parseval's theorem."""

import numpy as np
import pytest

from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.amorphous import carbon_grain, carbon_spectrum, ice_spectrum, random_spectrum
from n2n_deploy.simulate.potential import WATER_DENSITY, scattering_factor

Q = 2 * np.pi


def structure_factor(s: np.ndarray) -> np.ndarray:
    """S(s) of ice that does not move: the spectrum over that of independent molecules."""
    molecule = scattering_factor(8, s) + 2 * scattering_factor(1, s)
    return ice_spectrum(s, 100.0, 0.0) / (WATER_DENSITY * 100 * molecule**2)


def test_ice_has_its_published_rings() -> None:
    """Diffuse rings of vitreous ice at 3.7 Å and 2.14 Å (Dubochet et al. 1988)."""
    s = np.linspace(0.05, 0.6, 2000)
    values = structure_factor(s)
    peaks = 1 / s[1:-1][(values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])]
    assert peaks == pytest.approx([3.7, 2.14], rel=0.02)
    assert structure_factor(np.array([2.0]))[0] == pytest.approx(1, abs=1e-3)


def test_long_waves_are_as_weak_as_compressibility_makes_them() -> None:
    """S(0) = ρ k T κ, with κ = 4.5e-10 1/Pa of water at 298 K."""
    compressibility = 0.0334e30 * 1.380649e-23 * 298 * 4.5e-10
    assert structure_factor(np.array([0.0]))[0] == pytest.approx(compressibility, rel=0.1)


def test_best_exposure_to_see_the_ring_is_the_published_one() -> None:
    """At 300 kV Thon rings around 3.7 Å are seen best at 4.0 e/Å² per image (McMullan et al. 2015).

    Summed over the images of one exposure their power grows as n · f(n) and its scatter as √n.
    """
    doses = np.linspace(0.5, 15, 300)
    still = ice_spectrum(np.array([1 / 3.7]), 300.0, 0.0)[0]
    fraction = np.array([ice_spectrum(np.array([1 / 3.7]), 300.0, dose)[0] for dose in doses]) / still
    assert doses[np.argmax(np.sqrt(doses) * fraction)] == pytest.approx(4.0, abs=0.3)


def test_grain_has_the_variance_of_its_spectrum() -> None:
    """Parseval: the variance is the integral of the power spectrum over the image's frequencies; ∝ thickness."""
    shape, pixel_size = (250, 301), 2.5
    power = ice_spectrum(frequencies(shape, (pixel_size, pixel_size)), 400.0, 40.0)
    field = np.fft.irfft2(random_spectrum(np.random.default_rng(0), shape, pixel_size, power), shape)
    fy, fx = np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.fftfreq(shape[1], pixel_size)
    integral = ice_spectrum(np.hypot(fy, fx), 400.0, 40.0).sum() / (np.prod(shape) * pixel_size**2)
    assert field.var() == pytest.approx(integral, rel=0.03)


def test_carbon_is_grainier_than_as_much_ice() -> None:
    """Carbon films hide particles that are seen in ice."""
    s = np.array([0.02, 0.05, 0.1])
    assert np.all(carbon_spectrum(s, 150.0) > 3 * ice_spectrum(s, 150.0, 40.0))
    grain = carbon_grain(np.random.default_rng(0), (64, 80), 3.0, 100.0)
    assert abs(grain.mean()) < 4 * grain.std() / np.sqrt(grain.size) * 5
