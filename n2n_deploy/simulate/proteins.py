"""Drawing particles of a structure on the canvas, whole or broken."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import erfc

from n2n_deploy.data import Atoms
from n2n_deploy.data.structures import structure
from n2n_deploy.device.arrays import irfft2
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.central_slices import FINEST_PIXEL, fourier_volume, projections
from n2n_deploy.simulate.potential import phase_per_scattering
from n2n_deploy.simulate.specimen import Particles, phase_spectrum

_ANY_VOLTAGE = 300.0  # kV; the scattering does not depend on it
_BREAK = 6.0  # Å over which a broken particle ends


@dataclass(slots=True)
class Population:
    """Particles to draw, by the name of their structure: centres, (n, 2) y, x in Å on the canvas, and rotations."""

    parts: dict[str, list[tuple[NDArray[np.float64], Rotation]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, centres: NDArray[np.float64], rotations: Rotation) -> None:
        """Add particles of one structure."""
        if len(centres):
            self.parts[name].append((centres, rotations))

    def __len__(self) -> int:
        return sum(len(centres) for parts in self.parts.values() for centres, _ in parts)


def draw_proteins(canvas: Canvas, population: Population, broken: float, rng: np.random.Generator) -> None:
    """Add the particles' projections to the canvas.

    Args:
        canvas: to draw on.
        population: the particles; those that lie outside the canvas are left out.
        broken: fraction of the particles that are cut at a random plane along the beam, with one side missing.
        rng: source of all randomness here.
    """
    for name, parts in population.parts.items():
        centres = np.concatenate([centres for centres, _ in parts]) / canvas.pixel_size
        rotations = Rotation.concatenate([rotations for _, rotations in parts])
        inside = np.all((centres > -0.5) & (centres < np.array(canvas.shape) - 0.5), axis=1)
        centres, rotations = centres[inside], rotations[inside]
        if not len(centres):
            continue
        cuts = _draw_cuts(rng, len(centres), broken)
        if canvas.pixel_size < FINEST_PIXEL:
            draw_atoms(canvas, structure(name), Particles(centres, rotations), cuts)
        else:
            _draw_slices(canvas, name, Particles(centres, rotations), cuts)


def _draw_cuts(rng: np.random.Generator, number: int, broken: float) -> NDArray[np.float64]:
    """Draw planes, (n, 3): y and x of the unit normal and its offset over the radius; infinite if not broken."""
    angle = rng.uniform(0, 2 * np.pi, number)
    offset = np.where(rng.uniform(size=number) < broken, rng.uniform(-0.3, 0.5, number), np.inf)
    return np.stack([np.sin(angle), np.cos(angle), offset], axis=1)


def draw_atoms(canvas: Canvas, atoms: Atoms, particles: Particles, cuts: NDArray[np.float64] | None = None) -> None:
    """Draw atom by atom: exact up to the Nyquist frequency, however fine.

    Args:
        canvas: to draw on.
        atoms: of one particle.
        particles: centres relative to the canvas' pixel (0, 0).
        cuts: where particles are broken, as in `phase_spectrum`.
    """
    spectrum = phase_spectrum(particles, atoms, canvas.shape, canvas.pixel_size, _ANY_VOLTAGE, cuts)
    canvas.scattering[:] += irfft2(spectrum, canvas.shape) / np.float32(phase_per_scattering(_ANY_VOLTAGE))


def _draw_slices(canvas: Canvas, name: str, particles: Particles, cuts: NDArray[np.float64]) -> None:
    """Draw by central slices of the structure's transform, which does not depend on the number of atoms."""
    volume, pixel_size = fourier_volume(name), canvas.pixel_size
    corners = np.floor(particles.centres).astype(int)
    offsets = particles.centres - corners
    patches = projections(volume, offsets, particles.rotations, pixel_size) / np.float32(pixel_size**2)
    side = patches.shape[1]
    grid = np.arange(side) - side // 2
    width = max(_BREAK, pixel_size)
    for patch, corner, offset, (y, x, limit) in zip(patches, corners, offsets, cuts, strict=True):
        if np.isfinite(limit):
            along = (y * (grid - offset[0]))[:, None] + x * (grid - offset[1])
            patch *= 0.5 * erfc((along * pixel_size - limit * volume.radius) / width)
        target, source = [], []
        for n, start in zip(canvas.shape, corner - side // 2, strict=True):
            low, high = max(0, start), min(n, start + side)
            target.append(slice(low, high))
            source.append(slice(low - start, high - start))
        canvas.scattering[tuple(target)] += patch[tuple(source)]
