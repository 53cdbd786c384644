"""The exposure: from the specimen's phase to the expected electrons in each pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from n2n_deploy.data import Atoms
from n2n_deploy.device.arrays import irfft2
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.specimen import Particles, phase_spectrum

MARGIN = 200.0
"""Å simulated around the frame, so that its edges cut particles and nothing wraps around into it."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Exposure parameters of one micrograph.

    Attributes:
        dose: electrons per Å².
        b_factor: Å² of the envelope exp(−B s²/4) on the amplitudes.
        ice_gradient: relative difference in transmitted intensity between the frame's thin and thick side.
        gradient_direction: degrees from the x axis towards the thin side.
    """

    dose: float
    b_factor: float
    ice_gradient: float
    gradient_direction: float


def expected_electrons(
    particles: Particles,
    atoms: Atoms,
    shape: tuple[int, int],
    optics: Optics,
    parameters: CTFParameters,
    exposure: Exposure,
) -> NDArray[np.float32]:
    """Return the noiseless image of the specimen: the expected number of electrons in each pixel.

    Weak-phase approximation: dose · pixel area · transmission · (1 − 2 · phase ⊗ CTF ⊗ envelope). Underfocus
    makes the CTF positive at low frequency, so particles are dark.

    Args:
        particles: centres relative to pixel (0, 0) of the frame; those outside the frame contribute too.
        atoms: of one particle.
        shape: (ny, nx) of the frame.
        optics: pixel size, voltage, spherical aberration and amplitude contrast.
        parameters: defocus and phase shift.
        exposure: dose, envelope and ice.

    Returns:
        (ny, nx) float32.

    Raises:
        DataError: the optics lack what the CTF needs.
    """
    pixel_size = optics.pixel_size
    margin = margin_pixels(pixel_size)
    wide = next_fast_len(shape[0] + 2 * margin, real=True), next_fast_len(shape[1] + 2 * margin, real=True)
    spacing = (pixel_size, pixel_size)
    transfer = ctf(wide, spacing, optics, parameters)
    transfer *= np.exp(-exposure.b_factor / 4 * frequencies(wide, spacing) ** 2)
    shifted = Particles(particles.centres + margin, particles.rotations)
    spectrum = phase_spectrum(shifted, atoms, wide, pixel_size, optics.voltage or 0.0)
    contrast = irfft2(spectrum * transfer, wide)[margin : margin + shape[0], margin : margin + shape[1]]
    electrons: NDArray[np.float32] = transmission(shape, exposure).astype(np.float32)
    electrons *= exposure.dose * pixel_size**2 * (1 - 2 * contrast)
    return np.maximum(electrons, 0, out=electrons)


def margin_pixels(pixel_size: float) -> int:
    """Count the pixels that are simulated on each side of the frame."""
    return int(np.ceil(MARGIN / pixel_size))


def transmission(shape: tuple[int, int], exposure: Exposure) -> NDArray[np.float64]:
    """Return the transmitted intensity over its mean, (ny, nx): it falls smoothly from the thin to the thick side."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    angle = np.radians(exposure.gradient_direction)
    along = np.cos(angle) * x + np.sin(angle) * y[:, None]
    thickness = -along + 0.3 * along**2
    relative: NDArray[np.float64] = np.exp(-0.5 * exposure.ice_gradient * thickness)
    relative /= relative.mean()
    return relative
