"""The phase shift of the electron wave by atoms in ice, in the weak-phase approximation.

An atom with the elastic scattering factor f(s) (Å, for electrons at rest) adds γ λ f(s) to the Fourier transform of
the projected phase, where γ is the Lorentz factor and λ the wavelength. A protein's atoms displace ice, whose mean
potential is therefore subtracted.
"""

import gemmi
import numpy as np
from numpy.typing import NDArray

from n2n_deploy.imaging.ctf import wavelength

REST_ENERGY = 510.99895
"""Rest energy of an electron in keV."""

PROTEIN_VOLUME = 1.21
"""Å³ per dalton: 0.73 cm³/g."""

WATER_DENSITY = 0.0311
"""Molecules per Å³ of vitreous ice: 0.93 g/cm³."""

ICE_BOUNDARY = 1.7
"""Å, standard deviation of the Gaussian over which an atom displaces ice."""


def scattering_factor(atomic_number: int, frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the elastic electron scattering factor f(s) in Å, a sum of five Gaussians.

    Args:
        atomic_number: of a neutral atom.
        frequency: s in 1/Å, of any shape.

    Returns:
        f(s), of the same shape. Source: Peng et al. 1996, International Tables C, table 4.3.2.2, as kept by gemmi.
    """
    coefficients = gemmi.Element(atomic_number).c4322.get_coefs()
    quarter_squared = (0.5 * frequency.astype(np.float64)) ** 2
    gaussians = zip(coefficients[:5], coefficients[5:], strict=True)
    return sum((a * np.exp(-b * quarter_squared) for a, b in gaussians), np.zeros_like(quarter_squared))


def contrast_factor(atomic_number: int, frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the scattering factor in Å of a heavy atom and its hydrogen, minus that of the ice they displace.

    Protein has about one hydrogen for each heavy atom; the atomic model has none, so each atom gets one.
    """
    hydrogen, oxygen = (scattering_factor(z, np.zeros(1))[0] for z in (1, 8))
    mass = gemmi.Element(atomic_number).weight + gemmi.Element("H").weight
    ice = WATER_DENSITY * (oxygen + 2 * hydrogen) * PROTEIN_VOLUME * mass
    atom = scattering_factor(atomic_number, frequency) + scattering_factor(1, frequency)
    displaced: NDArray[np.float64] = ice * np.exp(-2 * (np.pi * ICE_BOUNDARY * frequency.astype(np.float64)) ** 2)
    return atom - displaced


def phase_per_scattering(voltage: float) -> float:
    """Return γ λ in Å at `voltage` kV: rad·Å² of phase in the image for each Å of scattering factor."""
    return (1 + voltage / REST_ENERGY) * wavelength(voltage)
