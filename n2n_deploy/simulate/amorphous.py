"""The structure of amorphous ice and carbon: Gaussian random phases with the material's scattering spectrum.

The grain that it gives an image belongs to the specimen: the even and the odd half show the same.
"""

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.potential import WATER_DENSITY, scattering_factor

ICE_MOTION = 1.1
"""Å² by which a water molecule's mean squared distance grows per electron/Å² at 300 kV.

McMullan, Vinothkumar & Henderson (2015), Ultramicroscopy 158, 26.
"""

CARBON_DENSITY = 0.1
"""Atoms per Å³ of evaporated carbon: 2.0 g/cm³."""


def ice_spectrum(frequency: NDArray[np.floating], thickness: float, dose: float) -> NDArray[np.float64]:
    """Return the power spectrum of the projected scattering of amorphous ice.

    Args:
        frequency: s in 1/Å, of any shape.
        thickness: Å.
        dose: electrons per Å² over which water molecules diffuse, which blurs the finest grain.

    Returns:
        Squared scattering factor per area, (Å/Å²)² · Å², of the same shape: density · thickness · |F|² · S. The
        structure factor S is a smooth approximation of water's: 0.06 at s = 0, diffuse rings at 3.7 Å and 2.1 Å
        (Dubochet et al. 1988, Q. Rev. Biophys. 21, 129), 1 beyond.
    """
    q = 2 * np.pi * frequency.astype(np.float64)
    structure = 1 - 0.94 * np.exp(-((q / 1.55) ** 4))
    structure += 1.2 * np.exp(-(((q - 1.7) / 0.2) ** 2) / 2) + 0.35 * np.exp(-(((q - 2.95) / 0.3) ** 2) / 2)
    molecule = scattering_factor(8, frequency) + 2 * scattering_factor(1, frequency)
    return WATER_DENSITY * thickness * molecule**2 * structure * _diffusion(q, dose)


def carbon_spectrum(frequency: NDArray[np.floating], thickness: float) -> NDArray[np.float64]:
    """Return the power spectrum of a carbon film of `thickness` Å; units as for ice.

    An approximation: a flat structure factor of 0.3 up to the diffuse ring at 2.1 Å.
    """
    q = 2 * np.pi * frequency.astype(np.float64)
    structure = 0.3 + 1.2 * np.exp(-(((q - 2.95) / 0.5) ** 2) / 2)
    return CARBON_DENSITY * thickness * scattering_factor(6, frequency) ** 2 * structure


def random_spectrum(
    rng: np.random.Generator, shape: tuple[int, int], pixel_size: float, power: NDArray[np.floating]
) -> NDArray[np.complex64]:
    """Draw the rfft2 of a Gaussian random field with the power spectrum `power` (per area) on the rfft grid."""
    white = rng.standard_normal(shape, np.float32)
    spectrum: NDArray[np.complex64] = rfft2(white)
    spectrum *= (np.sqrt(power) / pixel_size).astype(np.float32)
    return spectrum


def carbon_grain(
    rng: np.random.Generator, shape: tuple[int, int], pixel_size: float, thickness: float
) -> NDArray[np.float32]:
    """Draw the projected scattering of carbon around its mean, (ny, nx) in Å per Å²."""
    power = carbon_spectrum(frequencies(shape, (pixel_size, pixel_size)), thickness)
    grain: NDArray[np.float32] = irfft2(random_spectrum(rng, shape, pixel_size, power), shape)
    return grain


def _diffusion(q: NDArray[np.float64], dose: float) -> NDArray[np.float64]:
    """Fraction of the power that is left when molecules diffuse while the exposure lasts.

    Positions that are τ electrons/Å² apart correlate by exp(−q² D τ), with D = motion/6; this is its mean over all
    pairs of moments.
    """
    decay = np.maximum(q**2 * ICE_MOTION / 6 * dose, 1e-6)
    fraction: NDArray[np.float64] = 2 / decay * (1 - -np.expm1(-decay) / decay)
    return np.where(decay < 1e-3, 1 - decay / 3, fraction)
