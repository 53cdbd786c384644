"""What else is on a grid: the carbon film's edge, crystals of ice, gold beads."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from n2n_deploy.simulate.amorphous import CARBON_DENSITY, carbon_grain
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import log_uniform
from n2n_deploy.simulate.potential import WATER_DENSITY, scattering_factor

HOLE_RADIUS = 6000.0
"""Å: half the width of the holes of common carbon films, 1.2 µm."""

CARBON_PATH = 1800.0
"""Å of carbon that scatter a fraction 1 − 1/e of the electrons out of the image; approximate, at 300 kV."""

ICE_PATH = 2500.0
"""Å of crystalline ice, likewise; diffraction comes on top of it."""

GOLD_PATH = 120.0
"""Å of gold, likewise."""

_GOLD_SCATTERING = 0.2  # Å per Å³; a third of the mean potential, since a weak phase holds no longer


def add_carbon(rng: np.random.Generator, canvas: Canvas) -> float:
    """Cover one side of the canvas with a carbon film of 80 to 200 Å, beyond the edge of a round hole.

    Returns:
        The fraction of the frame that is covered.
    """
    thickness, angle = rng.uniform(80, 200), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(angle), np.cos(angle)])
    edge = canvas.extent / 2 + direction * rng.uniform(-0.35, 0.35) * canvas.extent.min()
    hole = edge - direction * HOLE_RADIUS
    y, x = (np.arange(n) * canvas.pixel_size for n in canvas.shape)
    distance = np.hypot((y - hole[0])[:, None], x - hole[1]) - HOLE_RADIUS
    theta = np.arctan2((y - hole[0])[:, None], x - hole[1])
    distance += rng.uniform(0, 15) * np.sin(theta * HOLE_RADIUS / rng.uniform(60, 300))
    film = _step(distance, max(20.0, 1.5 * canvas.pixel_size)) * np.float32(thickness)
    mean = np.float32(CARBON_DENSITY * scattering_factor(6, np.zeros(1))[0])
    canvas.scattering[:] += film * mean
    canvas.scattering[:] += film / np.float32(thickness) * carbon_grain(rng, canvas.shape, canvas.pixel_size, thickness)
    canvas.opacity[:] += film / np.float32(CARBON_PATH)
    return float((canvas.crop(film) > thickness / 2).mean())


def add_ice_crystals(rng: np.random.Generator, canvas: Canvas, number: int) -> None:
    """Draw crystals of ice that lie on the surface: faceted, 60 to 500 Å in radius, darkened by diffraction."""
    per_volume = WATER_DENSITY * (scattering_factor(8, np.zeros(1))[0] + 2 * scattering_factor(1, np.zeros(1))[0])
    for _ in range(number):
        radius = log_uniform(rng, 60, 500)
        window, y, x = canvas.window(rng.uniform(0, 1, 2) * canvas.extent, 1.6 * radius + 50)
        facets = rng.uniform(0, 2 * np.pi, rng.integers(5, 9))
        heights = radius * rng.uniform(0.6, 1.1, len(facets))
        inside = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf)
        for angle, height in zip(facets, heights, strict=True):
            inside = np.minimum(inside, height - np.sin(angle) * y - np.cos(angle) * x)
        inside = np.minimum(inside, 1.2 * radius - np.hypot(y, x))
        height = radius * rng.uniform(0.3, 1.0)
        slope = max(0.4 * radius, 20.0)
        crystal = (height * np.tanh(np.maximum(inside, 0) / slope) * _step(inside, 15.0)).astype(np.float32)
        canvas.scattering[window] += crystal * np.float32(0.5 * per_volume)
        canvas.opacity[window] += crystal * np.float32(rng.uniform(1, 4) / ICE_PATH)


def add_gold(rng: np.random.Generator, canvas: Canvas, number: int) -> None:
    """Draw gold beads of one nominal size, 50 or 100 Å in diameter."""
    nominal = rng.choice([25.0, 50.0])
    soft = max(4.0, 0.7 * canvas.pixel_size)
    for _ in range(number):
        radius = nominal * rng.normal(1, 0.06)
        window, y, x = canvas.window(rng.uniform(0, 1, 2) * canvas.extent, radius + 8 * soft)
        inside = radius**2 - y**2 - x**2
        # A sphere's thickness, rounded off at the rim where the pixels could not follow it.
        bead = np.sqrt(2 * (inside + np.hypot(inside, 2 * radius * soft)) * _step(inside / (2 * radius), soft))
        canvas.scattering[window] += (bead * _GOLD_SCATTERING).astype(np.float32)
        canvas.opacity[window] += (bead / GOLD_PATH).astype(np.float32)


def _step(distance: NDArray[np.floating], width: float) -> NDArray[np.float32]:
    """Rise from 0 to 1 over about `width` Å around distance 0."""
    step: NDArray[np.float32] = (0.5 + 0.5 * erf(distance / width)).astype(np.float32)
    return step
