"""Lipid bilayers in projection: vesicles with their proteins, and membranes seen edge-on.

The bilayer's profile is an approximation: two Gaussians of the head groups and a dip of the tails, in scattering
factor per volume relative to ice.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import log_uniform
from n2n_deploy.simulate.proteins import Population

MEMBRANE_PROTEIN = "cav1.1"
"""Its deposited frame has the membrane's normal along z."""

HEADS = (0.04, 19.0, 4.0)
"""Head groups: Å per Å³ at the peak, distance from the bilayer's middle in Å, standard deviation in Å."""

TAILS = (-0.02, 7.0)
"""Tails: Å per Å³ at the middle, standard deviation in Å."""


def profile(distance: NDArray[np.floating], blur: float = 0.0) -> NDArray[np.float64]:
    """Return a bilayer's scattering in Å per Å³, at `distance` Å from its middle, blurred by a Gaussian of `blur` Å."""

    def gaussian(peak: float, width: float, at: float) -> NDArray[np.float64]:
        broad = np.hypot(width, blur)
        values: NDArray[np.float64] = peak * width / broad * np.exp(-(((distance - at) / broad) ** 2) / 2)
        return values

    peak, offset, width = HEADS
    return gaussian(peak, width, offset) + gaussian(peak, width, -offset) + gaussian(*TAILS, 0.0)


def vesicle_projection(distance: NDArray[np.floating], radius: float, blur: float) -> NDArray[np.float64]:
    """Return the projected scattering of a spherical vesicle in Å per Å².

    Args:
        distance: Å from the projected centre, of any shape.
        radius: Å, of the bilayer's middle.
        blur: Å, standard deviation of a blur of the profile.
    """
    reach = radius + HEADS[1] + 5 * np.hypot(HEADS[2], blur)
    rho = np.linspace(0, reach, 4 * int(reach) + 2)
    z = np.linspace(0, reach, 2 * int(reach) + 1)
    through = 2 * np.trapezoid(profile(np.hypot(rho[:, None], z) - radius, blur), z, axis=1)
    projected: NDArray[np.float64] = np.interp(distance, rho, through, right=0.0)
    return projected


def add_vesicles(
    rng: np.random.Generator, canvas: Canvas, number: int, proteins: float, population: Population
) -> None:
    """Draw vesicles of 80 to 400 Å radius, slightly deformed, and add proteins in their membranes.

    Args:
        rng: source of all randomness here.
        canvas: to draw on.
        number: of vesicles.
        proteins: per vesicle of 200 Å radius; as many per area on the others.
        population: takes the proteins, whose normal is the membrane's.
    """
    for _ in range(number):
        radius = log_uniform(rng, 80, 400)
        centre = rng.uniform(0, 1, 2) * canvas.extent
        window, y, x = canvas.window(centre, 1.4 * radius + 60)
        theta = np.arctan2(y, x)
        lobes = rng.normal(0, 0.04, 3) * np.cos(np.arange(2, 5) * (theta[..., None] - rng.uniform(0, 2 * np.pi, 3)))
        distance = np.hypot(y, x) / (1 + lobes.sum(axis=-1))
        canvas.scattering[window] += vesicle_projection(distance, radius, 0.5 * canvas.pixel_size)
        count = rng.poisson(proteins * (radius / 200) ** 2)
        normals = rng.normal(size=(count, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        population.add(MEMBRANE_PROTEIN, centre + radius * normals[:, 1::-1], upright(rng, normals))


def upright(rng: np.random.Generator, normals: NDArray[np.float64]) -> Rotation:
    """Return rotations from the view to a structure's frame that put `normals`, (n, 3) x, y, z, on its z axis."""
    azimuth, tilt = np.arctan2(normals[:, 1], normals[:, 0]), np.arccos(np.clip(normals[:, 2], -1, 1))
    spin = rng.uniform(0, 2 * np.pi, len(normals))
    return Rotation.from_euler("ZYZ", np.stack([spin, -tilt, -azimuth], axis=1))


def add_sheets(rng: np.random.Generator, canvas: Canvas, number: int, thickness: float) -> None:
    """Draw membranes edge-on, as curved lines through the ice's `thickness` in Å."""
    y, x = (np.arange(n) * canvas.pixel_size for n in canvas.shape)
    for _ in range(number):
        angle, (middle_y, middle_x) = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 2) * canvas.extent
        across = np.cos(angle) * (y - middle_y)[:, None] - np.sin(angle) * (x - middle_x)
        along = np.sin(angle) * (y - middle_y)[:, None] + np.cos(angle) * (x - middle_x)
        length = float(np.hypot(*canvas.extent)) * rng.uniform(0.3, 1)
        wave, phase = rng.uniform(0, 0.05) * length, rng.uniform(0, 2 * np.pi)
        slope = 2 * np.pi * wave / length * np.cos(2 * np.pi * along / length + phase)
        distance = (across - wave * np.sin(2 * np.pi * along / length + phase)) / np.hypot(1, slope)
        near = np.abs(distance) < 80
        # Not quite parallel to the beam: the profile is smeared a little.
        blur = np.hypot(0.5 * canvas.pixel_size, rng.uniform(0, 0.1) * thickness / 4)
        canvas.scattering[near] += thickness * profile(distance[near], float(blur)).astype(np.float32)
