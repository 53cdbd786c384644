"""The exposure: from the projected specimen to the expected electrons in each pixel."""

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.ctf import ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.amorphous import ice_spectrum, random_spectrum
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import Conditions
from n2n_deploy.simulate.potential import phase_per_scattering


def expose(rng: np.random.Generator, canvas: Canvas, conditions: Conditions) -> NDArray[np.float32]:
    """Return the expected electrons in each pixel of the frame, (ny, nx) float32.

    Weak-phase approximation: dose · pixel area · transmission · (1 − 2 · coherent fraction · phase ⊗ CTF ⊗ envelope).
    Underfocus makes the CTF positive at low frequency, so particles are dark.

    Args:
        rng: draws the ice's own grain.
        canvas: the specimen.
        conditions: of the exposure; the pixel size of its optics is the canvas'.

    Raises:
        DataError: the optics lack what the CTF needs.
    """
    pixel_size, optics = canvas.pixel_size, conditions.optics
    spacing = (pixel_size, pixel_size)
    s = frequencies(canvas.shape, spacing)
    spectrum = rfft2(canvas.scattering)
    spectrum *= np.float32(conditions.contrast)
    # The displaced ice of the particles is neglected here: it is a small part of the grain.
    power = ice_spectrum(s, conditions.thickness, conditions.dose)
    spectrum += random_spectrum(rng, canvas.shape, pixel_size, power)
    spectrum *= ctf(canvas.shape, spacing, optics, conditions.ctf)
    spectrum *= _envelope(canvas.shape, pixel_size, conditions)
    strength = 2 * conditions.coherent_fraction * phase_per_scattering(optics.voltage or 0.0)
    contrast = canvas.crop(irfft2(spectrum, canvas.shape)) * np.float32(strength)
    gradient = conditions.ice_gradient, conditions.gradient_direction
    electrons = transmission(canvas.frame, *gradient).astype(np.float32)
    electrons *= np.exp(-canvas.crop(canvas.opacity)) * (1 - contrast)
    electrons *= np.float32(conditions.dose * pixel_size**2)
    return np.maximum(electrons, 0, out=electrons)


def _envelope(shape: tuple[int, int], pixel_size: float, conditions: Conditions) -> NDArray[np.float32]:
    """Return what is left of the amplitudes on the rfft grid: B factor, drift and detector."""
    s = frequencies(shape, (pixel_size, pixel_size))
    angle = np.radians(conditions.drift_direction)
    y, x = np.fft.fftfreq(shape[0], pixel_size), np.fft.rfftfreq(shape[1], pixel_size)
    along = (np.sin(angle) * y)[:, None] + np.cos(angle) * x
    exponent = conditions.b_factor / 4 * s**2 + 2 * (np.pi * conditions.drift * along) ** 2
    envelope: NDArray[np.float32] = np.exp(-exponent.astype(np.float32))
    return envelope * conditions.detector.envelope(s, conditions.detector_pixel)


def transmission(shape: tuple[int, int], ice_gradient: float, direction: float) -> NDArray[np.float64]:
    """Return the transmitted intensity over its mean, (ny, nx): it falls smoothly from the thin to the thick side.

    Args:
        shape: (ny, nx).
        ice_gradient: relative difference between the two sides.
        direction: degrees from the x axis towards the thin side.
    """
    y, x = (np.linspace(-1, 1, n) for n in shape)
    angle = np.radians(direction)
    along = np.cos(angle) * x + np.sin(angle) * y[:, None]
    thickness = -along + 0.3 * along**2
    relative: NDArray[np.float64] = np.exp(-0.5 * ice_gradient * thickness)
    relative /= relative.mean()
    return relative
