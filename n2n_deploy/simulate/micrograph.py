"""One micrograph drawn at random: specimen, contamination, microscope, detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data.structures import NAMES
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import Conditions, draw_conditions
from n2n_deploy.simulate.contamination import add_carbon, add_gold, add_ice_crystals
from n2n_deploy.simulate.exposure import expose
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
    per pixel on it takes about 0.2 s for 512² pixels, besides a second for each structure at its first
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
