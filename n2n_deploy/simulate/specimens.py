"""What is in the ice of one micrograph: kinds of specimen, each drawn anew."""

from collections.abc import Callable, Sequence

import numpy as np

from n2n_deploy.data.structures import structure
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.filaments import add_filaments
from n2n_deploy.simulate.membranes import MEMBRANE_PROTEIN, add_sheets, add_vesicles
from n2n_deploy.simulate.placement import equivalent_radius, orientations, scatter
from n2n_deploy.simulate.proteins import Population, draw_proteins

_LARGEST_SUBUNIT = 13_000  # atoms

Draw = Callable[[np.random.Generator, Canvas, Sequence[str], float, Population], None]


def _single(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], _thickness: float, population: Population
) -> None:
    """One structure, from a few particles to jammed, perhaps with a preferred orientation."""
    _add_layer(rng, canvas, [str(rng.choice(names))], rng.uniform(0.01, 0.6), population)


def _mixture(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], _thickness: float, population: Population
) -> None:
    """Two to five structures side by side."""
    chosen = rng.choice(names, min(len(names), int(rng.integers(2, 6))), replace=False)
    _add_layer(rng, canvas, [str(name) for name in chosen], rng.uniform(0.05, 0.6), population)


def _crowded(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], thickness: float, population: Population
) -> None:
    """Layers of particles above each other, as in a cell's lysate or a concentrated sample."""
    chosen = [str(name) for name in rng.choice(names, min(len(names), int(rng.integers(1, 7))), replace=False)]
    height = 2 * np.mean([equivalent_radius(structure(name)) for name in chosen])
    for _ in range(int(np.clip(thickness / height, 2, 4))):
        _add_layer(rng, canvas, chosen, rng.uniform(0.2, 0.6), population)


def _filaments(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], _thickness: float, population: Population
) -> None:
    """Filaments of one subunit, with a few of these beside them."""
    small = [name for name in names if len(structure(name).elements) < _LARGEST_SUBUNIT]
    name = str(rng.choice(small or names))
    across = canvas.extent.mean() / (4 * equivalent_radius(structure(name)))
    add_filaments(rng, canvas, name, 1 + int(rng.integers(max(1, min(12, int(across / 4))))), population)
    _add_layer(rng, canvas, [name], rng.uniform(0, 0.1), population)


def _membranes(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], thickness: float, population: Population
) -> None:
    """Vesicles and sheets of lipids, with membrane proteins if there are any among the names, and others between."""
    area = canvas.extent.prod() / 1000**2
    proteins = rng.uniform(0, 12) if MEMBRANE_PROTEIN in names else 0.0
    add_vesicles(rng, canvas, 1 + rng.poisson(rng.uniform(0.5, 4) * area), proteins, population)
    if rng.uniform() < 0.3:
        add_sheets(rng, canvas, int(rng.integers(1, 4)), min(thickness, 400.0))
    if rng.uniform() < 0.5:
        _add_layer(rng, canvas, [str(rng.choice(names))], rng.uniform(0.01, 0.3), population)


def _empty(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], thickness: float, population: Population
) -> None:
    """Nothing but ice."""


KINDS: dict[str, tuple[float, Draw]] = {
    "single": (0.45, _single),
    "mixture": (0.15, _mixture),
    "crowded": (0.12, _crowded),
    "filaments": (0.10, _filaments),
    "membranes": (0.12, _membranes),
    "empty": (0.06, _empty),
}
"""Kinds of specimen by name: how frequent they are, and what draws them."""


def draw_specimen(rng: np.random.Generator, canvas: Canvas, names: Sequence[str], thickness: float, kind: str) -> int:
    """Draw a specimen of `kind` on the canvas.

    Args:
        rng: source of all randomness here.
        canvas: to draw on.
        names: structures to choose from.
        thickness: Å of ice.
        kind: one of `KINDS`.

    Returns:
        The number of protein particles on the canvas.
    """
    population = Population()
    KINDS[kind][1](rng, canvas, names, thickness, population)
    broken = rng.uniform(0.05, 0.4) if rng.uniform() < 0.4 else 0.0
    draw_proteins(canvas, population, broken, rng)
    return len(population)


def _add_layer(
    rng: np.random.Generator, canvas: Canvas, names: Sequence[str], coverage: float, population: Population
) -> None:
    """Add one layer of particles that do not overlap."""
    radii = [equivalent_radius(structure(name)) * 1.05 for name in names]
    unevenness = rng.uniform(0, 1) if rng.uniform() < 0.3 else 0.0
    centres, kinds = scatter(rng, canvas.extent, radii, coverage, unevenness)
    spread = rng.uniform(5, 30) if rng.uniform() < 0.3 else None
    for kind, name in enumerate(names):
        mine = centres[kinds == kind]
        if len(mine):
            population.add(name, mine, orientations(rng, len(mine), spread))
