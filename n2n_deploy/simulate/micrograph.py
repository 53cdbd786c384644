"""One micrograph drawn at random: specimen, contamination, microscope, detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data.structures import NAMES
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.amorphous import ice_spectrum, random_spectrum
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import Conditions, draw_conditions
from n2n_deploy.simulate.contamination import add_carbon, add_gold, add_ice_crystals
from n2n_deploy.simulate.exposure import Exposure, transmission
from n2n_deploy.simulate.potential import phase_per_scattering
from n2n_deploy.simulate.specimens import KINDS, draw_specimen

_CARBON, _CRYSTALS, _GOLD = 0.12, 0.12, 0.03  # fractions of the micrographs that show some


@dataclass(frozen=True, slots=True)
class SimulatedMicrograph:
    """A micrograph without shot noise.

    Attributes:
        expected: (ny, nx) float32, expected electrons per pixel. Both halves share it: draw each half from a Poisson
            distribution around its part of the dose. Protein is dark.
        conditions: what it was recorded with.
        kind: of specimen, one of `n2n_deploy.simulate.specimens.KINDS`.
        particles: number of protein particles in the frame and around it.
        contamination: what else is there: some of "carbon", "crystals" and "gold".
    """

    expected: NDArray[np.float32]
    conditions: Conditions
    kind: str
    particles: int
    contamination: tuple[str, ...]

    @property
    def optics(self) -> Optics:
        """Pixel size, voltage, spherical aberration and amplitude contrast."""
        return self.conditions.optics

    @property
    def ctf(self) -> CTFParameters:
        """Defocus, astigmatism and phase plate."""
        return self.conditions.ctf


def draw_micrograph(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_size: float,
    names: Sequence[str] = NAMES,
    kind: str | None = None,
) -> SimulatedMicrograph:
    """Draw a micrograph at random: its specimen, its faults, and the conditions it was recorded in.

    The image is band-limited: with coarse pixels it is what Fourier cropping makes of one with fine pixels. From 2 Å
    per pixel on it takes about a tenth of a second for 512² pixels, besides a second for each structure at its first
    use in a process.

    Args:
        rng: source of all randomness here.
        shape: (ny, nx).
        pixel_size: Å.
        names: structures to choose from.
        kind: of specimen; drawn by default.

    Raises:
        UsageError: a structure or kind that does not exist.
    """
    if unknown := set(names) - set(NAMES):
        raise UsageError(f"there is no structure named {sorted(unknown)[0]!r}; use one of {', '.join(NAMES)}")
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=[frequency for frequency, _ in KINDS.values()]))
    elif kind not in KINDS:
        raise UsageError(f"there is no kind of specimen named {kind!r}; use one of {', '.join(KINDS)}")
    conditions = draw_conditions(rng, pixel_size)
    canvas = Canvas.empty(shape, pixel_size)
    particles = draw_specimen(rng, canvas, names, conditions.thickness, kind)
    contamination = _contaminate(rng, canvas)
    return SimulatedMicrograph(expose(rng, canvas, conditions), conditions, kind, particles, contamination)


def expose(rng: np.random.Generator, canvas: Canvas, conditions: Conditions) -> NDArray[np.float32]:
    """Return the expected electrons in each pixel of the frame, (ny, nx) float32.

    Weak-phase approximation: dose · pixel area · transmission · (1 − 2 · coherent fraction · phase ⊗ CTF ⊗ envelope).
    The ice's own grain is drawn here.
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
    exposure = Exposure(conditions.dose, conditions.b_factor, conditions.ice_gradient, conditions.gradient_direction)
    electrons = transmission(canvas.frame, exposure).astype(np.float32)
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


def _contaminate(rng: np.random.Generator, canvas: Canvas) -> tuple[str, ...]:
    """Add, now and then, a carbon edge, crystals of ice and gold; return what was added."""
    added = []
    area = canvas.extent.prod() / 1000**2
    if rng.uniform() < _CARBON:
        add_carbon(rng, canvas)
        added.append("carbon")
    if rng.uniform() < _CRYSTALS:
        add_ice_crystals(rng, canvas, 1 + rng.poisson(rng.uniform(0.2, 1.5) * area))
        added.append("crystals")
    if rng.uniform() < _GOLD:
        add_gold(rng, canvas, 1 + rng.poisson(2 * area))
        added.append("gold")
    return tuple(added)
