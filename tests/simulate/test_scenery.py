"""Placement, filaments, membranes and contamination: geometry, known integrals, random sequential adsorption."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.spatial.distance import pdist

from n2n_deploy.data.structures import NAMES, structure
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.contamination import GOLD_PATH, add_carbon, add_gold, add_ice_crystals
from n2n_deploy.simulate.filaments import add_filaments
from n2n_deploy.simulate.membranes import add_sheets, add_vesicles, profile, upright, vesicle_projection
from n2n_deploy.simulate.placement import equivalent_radius, orientations, scatter
from n2n_deploy.simulate.proteins import Population


def test_particles_do_not_overlap_and_jam_below_the_known_limit() -> None:
    """Random sequential adsorption of discs jams at 0.547 (Feder 1980)."""
    extent = np.array([2000.0, 2500.0])
    centres, _ = scatter(np.random.default_rng(0), extent, [40.0], 1.0, 0.0)
    assert pdist(centres).min() >= 80
    coverage = len(centres) * np.pi * 40**2 / extent.prod()
    assert 0.42 < coverage < 0.56
    sparse, _ = scatter(np.random.default_rng(0), extent, [40.0], 0.1, 0.0)
    assert len(sparse) * np.pi * 40**2 / extent.prod() == pytest.approx(0.1, rel=0.02)


def test_particles_of_several_sizes_keep_their_distance() -> None:
    radii = np.array([20.0, 60.0])
    centres, kinds = scatter(np.random.default_rng(1), np.array([1500.0, 1500.0]), radii, 0.4, 1.0)
    own = radii[kinds]
    i, j = np.triu_indices(len(centres), 1)
    assert np.all(np.linalg.norm(centres[i] - centres[j], axis=1) >= own[i] + own[j])
    assert set(kinds) == {0, 1}


def test_equivalent_radius_agrees_with_the_mass() -> None:
    """Compact proteins fill the sphere: 0.066 M^(1/3) nm (Erickson 2009), within the looseness of real shapes."""
    masses = {"hsp70": 41e3, "esterase": 57e3, "rubisco": 540e3}
    for name, mass in masses.items():
        assert equivalent_radius(structure(name)) == pytest.approx(0.66 * mass ** (1 / 3), rel=0.3)
    assert len(NAMES) == 13


def test_preferred_orientations_share_a_view_but_not_the_angle_in_the_plane() -> None:
    turned = orientations(np.random.default_rng(0), 2000, 5.0)
    views = turned.apply([0, 0, 1])
    common = views.mean(axis=0) / np.linalg.norm(views.mean(axis=0))
    # Two independent tilts of 5° make a mean square angle of 2 · 5².
    angles = np.degrees(np.arccos(np.clip(views @ common, -1, 1)))
    assert np.mean(angles**2) == pytest.approx(50, rel=0.1)
    assert np.linalg.norm(turned.apply([1, 0, 0]).mean(axis=0)) < 0.1
    anywhere = orientations(np.random.default_rng(0), 2000).apply([0, 0, 1])
    np.testing.assert_allclose(anywhere.mean(axis=0), 0, atol=5 * np.sqrt(1 / 3 / 2000))


def test_filament_has_helical_symmetry() -> None:
    """Neighbours differ by the same rotation about the same axis of the subunit all along, and lie evenly."""
    canvas, population = Canvas.empty((256, 256), 4.0), Population()
    add_filaments(np.random.default_rng(2), canvas, "hsp70", 1, population)
    ((centres, rotations),) = population.parts["hsp70"]
    steps = (rotations[1:] * rotations[:-1].inv()).as_rotvec()
    assert np.ptp(np.linalg.norm(steps, axis=1)) < 0.02
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=0.02)
    # Off the axis by the projected helix, never more than its radius (at most 1.1 of the subunit's) and the bend.
    line = np.linalg.svd(centres[:60] - centres[:60].mean(axis=0))[2][1]
    assert np.abs((centres[:60] - centres[:60].mean(axis=0)) @ line).max() < 2.5 * equivalent_radius(structure("hsp70"))


def test_vesicle_keeps_its_scattering_in_projection() -> None:
    """The integral over the image is that over the shell, ∫ 4π r² c(r − R) dr; through the centre it is 2 ∫ c."""
    radius = 150.0
    rho = np.linspace(0, 220, 4000)
    image = np.trapezoid(vesicle_projection(rho, radius, 0.0) * 2 * np.pi * rho, rho)
    shell, _ = quad(lambda r: 4 * np.pi * r**2 * profile(np.array(r - radius)), 80, 220, points=[131, 150, 169])
    assert image == pytest.approx(shell, rel=0.01)
    across, _ = quad(lambda z: profile(np.array(z)), -60, 60)
    assert vesicle_projection(np.zeros(1), radius, 0.0)[0] == pytest.approx(2 * across, rel=0.01)


def test_proteins_stand_upright_in_membranes() -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(upright(rng, normals).apply(normals), np.tile([0, 0, 1], (20, 1)), atol=1e-9)
    canvas, population = Canvas.empty((200, 200), 5.0), Population()
    add_vesicles(rng, canvas, 3, 10.0, population)
    add_sheets(rng, canvas, 1, 300.0)
    assert len(population) > 0
    assert canvas.scattering.max() > 0.5
    assert not canvas.opacity.any()


def test_gold_bead_has_a_spheres_volume() -> None:
    canvas = Canvas.empty((128, 128), 2.0)
    add_gold(np.random.default_rng(5), canvas, 1)
    thickness = canvas.opacity * GOLD_PATH
    if thickness.any():
        area, height = (thickness > 5).sum() * 4, thickness.max()
        assert height / 2 == pytest.approx(np.sqrt(area / np.pi), rel=0.2)
        assert thickness.sum() * 4 == pytest.approx(np.pi * height**3 / 6, rel=0.25)


def test_carbon_covers_one_side_and_crystals_absorb() -> None:
    canvas = Canvas.empty((200, 240), 4.0)
    covered = add_carbon(np.random.default_rng(0), canvas)
    assert 0 < covered < 1
    film = canvas.crop(canvas.opacity) > canvas.opacity.max() / 2
    assert film.mean() == pytest.approx(covered, abs=0.01)
    clear = Canvas.empty((200, 240), 4.0)
    add_ice_crystals(np.random.default_rng(0), clear, 3)
    assert clear.opacity.max() > 0
    assert np.all(clear.scattering >= 0)
