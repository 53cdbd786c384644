"""The specimen: positions and orientations of the particles, and the phase shift that they cause."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import Atoms
from n2n_deploy.device.arrays import rfft2
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.simulate.potential import contrast_factor, phase_per_scattering

COVERAGE = 0.3
"""Fraction of the area covered by default; random sequential placement of discs jams at 0.547."""

_TRIES = 2000

_FINE = 1.0  # Å: on coarser grids the splines alias what lies beyond Nyquist


@dataclass(frozen=True, slots=True)
class Particles:
    """Particles of one micrograph.

    Attributes:
        centres: (n, 2) float64 y, x in pixels from the centre of pixel (0, 0).
        rotations: n rotations from a particle's view (x, y, and z along the beam) to the model's frame.
            Their "ZYZ" Euler angles are RELION's rot, tilt and psi.
    """

    centres: NDArray[np.float64]
    rotations: Rotation


def radius(atoms: Atoms) -> float:
    """Return the radius in Å of the sphere around the origin that contains all atoms."""
    return float(np.linalg.norm(atoms.positions, axis=1).max())


def default_number(shape: tuple[int, int], pixel_size: float, atoms: Atoms) -> int:
    """Return the number of particles that cover the default fraction of an image of `shape`."""
    area = shape[0] * shape[1] * pixel_size**2
    return round(COVERAGE * area / (np.pi * radius(atoms) ** 2))


def place(shape: tuple[int, int], margin: int, number: int, distance: float, rng: np.random.Generator) -> Particles:
    """Place particles at random, one by one, until `number` of them lie in the frame and none overlap.

    Args:
        shape: (ny, nx) of the frame.
        margin: pixels around the frame where particles are placed too, at the same density. They are part of
            the result, with centres outside the frame.
        number: particles with their centre in the frame.
        distance: smallest distance between centres in pixels.
        rng: source of all randomness here.

    Raises:
        UsageError: so many particles do not fit.
    """
    low, high = np.array([-0.5 - margin] * 2), np.array(shape) - 0.5 + margin
    centres = np.empty((0, 2))
    inside = failures = 0
    while inside < number:
        centre = rng.uniform(low, high)
        if len(centres) and np.min(np.sum((centres - centre) ** 2, axis=1)) < distance**2:
            failures += 1
            if failures > _TRIES:
                raise UsageError(
                    f"{number} particles of {distance:.0f} pixels do not fit into {shape[0]}×{shape[1]} pixels "
                    f"without overlap ({inside} did); ask for fewer particles or larger micrographs"
                )
            continue
        failures = 0
        centres = np.vstack([centres, centre])
        inside += in_frame(centre, shape).item()
    return Particles(centres, Rotation.random(len(centres), rng))


def in_frame(centres: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which centres, (…, 2) y, x, lie on pixels of an image of `shape`."""
    inside: NDArray[np.bool_] = np.all((centres >= -0.5) & (centres < np.array(shape) - 0.5), axis=-1)
    return inside


def phase_spectrum(
    particles: Particles,
    atoms: Atoms,
    shape: tuple[int, int],
    pixel_size: float,
    voltage: float,
    cuts: NDArray[np.float64] | None = None,
) -> NDArray[np.complex64]:
    """Return the Fourier transform of the phase shift (rad) by the particles, projected along the beam.

    Atoms are spread by cubic B-splines on a grid of at most 1 Å, one for each element. In Fourier space the grid is
    cropped to the image's Nyquist frequency, the spline is divided out and the element's scattering factor multiplied
    in. The image is periodic and must be larger than a particle.

    Args:
        particles: centres relative to pixel (0, 0) of this image.
        atoms: of one particle.
        shape: (ny, nx).
        pixel_size: Å.
        voltage: kV.
        cuts: (n, 3) for each particle the y and x of a unit normal and an offset as a fraction of the radius: atoms
            beyond the plane along the beam are left out.

    Returns:
        (ny, nx//2+1) complex64, rfft2 of the phase image.
    """
    finer = max(1, int(np.ceil(pixel_size / _FINE - 1e-9)))
    fine, spacing = (shape[0] * finer, shape[1] * finer), pixel_size / finer
    reach = int(np.ceil(radius(atoms) / spacing)) + 3
    elements, classes = np.unique(atoms.elements, return_inverse=True)
    grids = np.zeros((len(elements), *fine), np.float32)
    if cuts is None:
        cuts = np.full((len(particles.centres), 3), np.inf)
    for centre, rotation, (normal_y, normal_x, offset) in zip(
        particles.centres * finer, particles.rotations, cuts, strict=True
    ):
        corner = np.floor(centre).astype(int) - reach
        view, kinds = rotation.inv().apply(atoms.positions)[:, 1::-1], classes
        if np.isfinite(offset):
            kept = view @ np.array([normal_y, normal_x]) < offset * radius(atoms)
            view, kinds = view[kept], classes[kept]
        patch = _spread(view / spacing + (centre - corner), kinds, len(elements), 2 * reach + 1)
        rows, columns = ((corner[axis] + np.arange(2 * reach + 1)) % fine[axis] for axis in (0, 1))
        grids[:, rows[:, None], columns] += patch
    total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)
    rows = np.fft.fftfreq(shape[0], 1 / shape[0]).astype(int)  # of the fine grid's spectrum
    for element, grid in zip(elements, grids, strict=True):
        spectrum = rfft2(grid)[rows, : total.shape[1]]
        total += spectrum * _element_filter(int(element), shape, pixel_size, finer)
    total *= np.float32(phase_per_scattering(voltage) / pixel_size**2)
    return total


def _element_filter(element: int, shape: tuple[int, int], pixel_size: float, finer: int) -> NDArray[np.float32]:
    """Contrast factor of an element divided by the transform of the cubic B-spline, on the rfft grid; cached."""

    def make() -> NDArray[np.float32]:
        s = frequencies(shape, (pixel_size, pixel_size))
        spline = np.outer(np.sinc(np.fft.fftfreq(shape[0], finer)), np.sinc(np.fft.rfftfreq(shape[1], finer))) ** 4
        factor: NDArray[np.float32] = (contrast_factor(element, s) / spline).astype(np.float32)
        return factor

    kept: NDArray[np.float32] = HOST.to_host(HOST.grid(("element", element, shape, pixel_size, finer), make))
    return kept


def _spread(
    positions: NDArray[np.floating], classes: NDArray[np.integer], count: int, side: int
) -> NDArray[np.float64]:
    """Spread atoms at (n, 2) y, x pixels by cubic B-splines, on one square grid for each of `count` classes."""
    base = np.floor(positions).astype(np.intp)
    t = positions - base
    weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
    first = classes * side**2 + (base[:, 0] - 1) * side + base[:, 1] - 1
    total = np.zeros(count * side**2)
    for j, along_y in enumerate(weights):
        for i, along_x in enumerate(weights):
            weight = along_y[:, 0] * along_x[:, 1] / 36
            total += np.bincount(first + j * side + i, weights=weight, minlength=total.size)
    return total.reshape(count, side, side)
