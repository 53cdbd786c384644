"""Angular distances against rotations by hand, random rotations' distribution and the formula of S2.5."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from n2n_deploy.refinement.angles import compare, rotation_distance
from n2n_deploy.refinement.orientations import euler_to_rotation
from n2n_deploy.refinement.symmetry import point_group

from .conftest import random_euler, write_star


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, 12.0, 20.0])
@pytest.mark.parametrize("name", ["C1", "D7", "T", "I3"])
def test_known_rotation_of_a_symmetry_mate_is_measured(angle, name):
    euler = random_euler(50, seed=1)
    axes = np.random.default_rng(4).standard_normal((50, 3))
    turn = Rotation.from_rotvec(np.radians(angle) * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    mate = point_group(name)[-1]
    turned = (mate * euler_to_rotation(euler) * turn).as_euler("ZYZ", degrees=True)
    measured = rotation_distance(euler, turned, name)
    # Another mate may be closer only beyond half the smallest angle between mates (51.4° in D7, 72° in I).
    np.testing.assert_allclose(measured, angle, rtol=1e-6, atol=2e-12)


def test_rotations_by_hand():
    # Turning the camera about its own axis changes psi alone; turning the view over the pole changes tilt.
    a = np.array([[10.0, 40.0, 5.0], [10.0, 40.0, 5.0], [10.0, 0.0, 5.0]])
    b = np.array([[10.0, 40.0, 35.0], [10.0, 95.0, 5.0], [5.0, 0.0, 10.0]])
    np.testing.assert_allclose(rotation_distance(a, b, "C1"), [30.0, 55.0, 0.0], atol=1e-12)


def test_unrelated_orientations_have_the_distribution_of_random_rotations():
    # Haar measure on SO(3): the density of the rotation angle is (1 - cos θ)/π, so its mean is π/2 + 2/π.
    angles = rotation_distance(random_euler(20000, seed=5), random_euler(20000, seed=6), "C1")
    assert np.radians(angles).mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=4 * 0.65 / np.sqrt(20000))


def test_summary_agrees_with_the_angles_and_the_papers_angle_is_half(tmp_path):
    a = random_euler(200, seed=10)
    b = a + np.array([0, 0, 3.0])
    tables = [write_star(tmp_path / "a.star", a), write_star(tmp_path / "b.star", b)]
    distances = compare(*tables, "d7")
    distances.write(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "angles.json").read_text())
    assert summary["median_deg"] == pytest.approx(3.0)
    assert summary["quaternion_angle"]["median_deg"] == pytest.approx(1.5)
    assert summary["fraction_below"] == {"1_deg": 0, "2_deg": 0, "5_deg": 1, "10_deg": 1}
    assert summary["matched"] == 200
    # arccos of the inner product, taken literally
    q1, q2 = euler_to_rotation(a).as_quat(), euler_to_rotation(b).as_quat()
    literal = np.degrees(np.arccos(np.abs((q1 * q2).sum(axis=1))))
    np.testing.assert_allclose(distances.quaternion_angle, literal, atol=1e-9)
    lines = (tmp_path / "out" / "angles.csv").read_text().splitlines()
    assert len(lines) == 201
    assert (tmp_path / "out" / "angles.png").stat().st_size > 5000
