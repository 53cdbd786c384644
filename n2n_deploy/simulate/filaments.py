"""Filaments: a subunit repeated along a helix, lying in the plane of the ice."""

import numpy as np
from scipy.spatial.transform import Rotation

from n2n_deploy.data.structures import structure
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.placement import equivalent_radius
from n2n_deploy.simulate.proteins import Population

_PACKING = 0.6  # fraction of the helix' cylinder that its subunits fill


def add_filaments(rng: np.random.Generator, canvas: Canvas, name: str, number: int, population: Population) -> None:
    """Add straight or gently bent filaments that share one helical symmetry.

    Rise, twist and radius are drawn so that neighbouring subunits touch; every filament starts at a random place
    on the canvas and crosses it.

    Args:
        rng: source of all randomness here.
        canvas: only its extent is used.
        name: structure of the subunit.
        number: of filaments.
        population: takes the subunits.
    """
    size = equivalent_radius(structure(name))
    radius = size * rng.uniform(0.5, 1.1)
    rise = 4 / 3 * size**3 / (_PACKING * (radius + size) ** 2)
    twist = rng.uniform(0.3, np.pi)
    subunit = Rotation.random(None, rng)
    length = float(np.hypot(*canvas.extent)) + 4 * size
    count = int(np.ceil(length / rise))
    along = (np.arange(count) - count / 2) * rise
    for _ in range(number):
        turn = rng.uniform(0, 2 * np.pi) + twist * np.arange(count)
        direction = rng.uniform(0, 2 * np.pi)
        # The direction changes along the filament by the curvature: an arc of a large circle.
        angle = direction + along * rng.normal(0, 2e-4)
        middle = rng.uniform(0, 1, 2) * canvas.extent
        steps = np.stack([np.sin(angle), np.cos(angle)], axis=1) * rise
        axis = np.cumsum(steps, axis=0)
        axis += middle - axis[count // 2]
        sideways = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
        centres = axis + radius * np.cos(turn)[:, None] * sideways
        # From the view to the filament's frame (axis on z), back by the helix' turn, then to the subunit.
        tangent = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
        normal = np.stack([-np.sin(angle), np.cos(angle), np.zeros(count)], axis=1)
        beam = np.broadcast_to([0.0, 0.0, 1.0], tangent.shape)
        frame = Rotation.from_matrix(np.stack([normal, beam, tangent], axis=1))
        back = Rotation.from_rotvec(np.outer(turn, [0, 0, 1]))
        population.add(name, centres, subunit * back * frame)
