"""Where particles lie and how they are turned: scattered without overlap, in layers, with preferred orientations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from n2n_deploy.data import Atoms

_CANDIDATES = 8  # for each particle that would cover the area wholly: random placement then jams at about 0.5


def equivalent_radius(atoms: Atoms) -> float:
    """Return the radius in Å of the solid sphere that has the structure's radius of gyration."""
    return float(np.sqrt(5 / 3 * np.mean(np.sum(atoms.positions.astype(np.float64) ** 2, axis=1))))


def scatter(
    rng: np.random.Generator, extent: NDArray[np.float64], radii: Sequence[float], coverage: float, unevenness: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Place discs of several sizes at random without overlap.

    Args:
        rng: source of all randomness here.
        extent: height and width of the area in Å.
        radii: Å, of each kind of particle; all kinds are equally frequent among those tried.
        coverage: fraction of the area to cover; from about 0.5 on the result is jammed.
        unevenness: 0 for the same density everywhere; 1 leaves about half of the area nearly empty.

    Returns:
        (n, 2) y, x in Å and the kind of each particle.
    """
    sizes = np.asarray(radii, np.float64)
    area = np.pi * np.mean(sizes**2)
    number = int(np.ceil(_CANDIDATES * extent.prod() / area))
    centres = rng.uniform(0, 1, (number, 2)) * extent
    kinds = rng.integers(len(sizes), size=number)
    direction, phase = rng.normal(size=2) / extent.mean(), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * centres @ direction + phase)
    kept = rng.uniform(size=number) < np.clip(1 + unevenness * 4 * wave, 1 - unevenness, 1)
    centres, kinds = centres[kept], kinds[kept]
    own = sizes[kinds]
    pairs = KDTree(centres).query_pairs(2 * sizes.max(), output_type="ndarray")
    distance = np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1)
    pairs = pairs[distance < own[pairs[:, 0]] + own[pairs[:, 1]]]
    first, second = pairs.min(axis=1), pairs.max(axis=1)
    order = np.argsort(second, kind="stable")
    starts = np.searchsorted(second[order], np.arange(len(centres) + 1))
    earlier = first[order]
    placed = np.zeros(len(centres), bool)
    covered, wanted = 0.0, coverage * extent.prod()
    for index in range(len(centres)):
        if covered >= wanted:
            break
        if not placed[earlier[starts[index] : starts[index + 1]]].any():
            placed[index] = True
            covered += np.pi * own[index] ** 2
    return centres[placed], kinds[placed]


def orientations(rng: np.random.Generator, number: int, spread: float | None = None) -> Rotation:
    """Draw rotations from the view to the structure's frame.

    Args:
        rng: source of all randomness here.
        number: of rotations.
        spread: None for uniform orientations; otherwise degrees (standard deviation, about each of two axes) around
            one preferred view, with any rotation in the plane.
    """
    if spread is None:
        return Rotation.random(number, rng)
    tilts = rng.normal(0, np.radians(spread), (number, 3)) * [1, 1, 0]
    spins = np.outer(rng.uniform(0, 2 * np.pi, number), [0, 0, 1])
    return Rotation.random(None, rng) * Rotation.from_rotvec(tilts) * Rotation.from_rotvec(spins)
