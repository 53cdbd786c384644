"""Point groups: their order, closure, and agreement with RELION's own symmetry expansion."""

import numpy as np
import pytest

from n2n_deploy.core.errors import UsageError
from n2n_deploy.refinement.angles import rotation_distance
from n2n_deploy.refinement.symmetry import point_group

from .conftest import random_euler, write_star

GROUPS = {"C1": 1, "C2": 2, "C7": 7, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24}
GROUPS |= dict.fromkeys(("I", "I1", "I2", "I3", "I4"), 60)


@pytest.mark.parametrize("name", GROUPS)
def test_group_has_its_order_and_is_closed(name):
    group = point_group(name)
    assert len(group) == GROUPS[name]
    for operation in group:
        for product in group * operation:
            assert (group.inv() * product).magnitude().min() < 1e-7


@pytest.mark.parametrize("name", ["C7", "D1", "D2", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_relions_symmetry_expansion_has_distance_zero(name, relion, tmp_path):
    euler = random_euler(5, seed=3)
    table = write_star(tmp_path / "particles.star", euler)
    relion("relion_particle_symmetry_expand", "--i", table, "--o", tmp_path / "expanded.star", "--sym", name)
    rows = [line.split() for line in (tmp_path / "expanded.star").read_text().splitlines() if "@" in line]
    expanded = np.array([row[1:4] for row in rows], dtype=float)
    assert len(expanded) == GROUPS[name] * len(euler)
    originals = np.repeat(euler, GROUPS[name], axis=0)
    # RELION writes six decimals.
    assert rotation_distance(originals, expanded, name).max() < 1e-4
    assert rotation_distance(originals, expanded, "C1").max() > 20


@pytest.mark.parametrize("name", ["D", "C0", "Ih", "I5", "C2v", "TD", "", "D7x", "icosahedral"])
def test_unknown_symmetry_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match="symmetry") as caught:
        point_group(name)
    assert "\n" not in str(caught.value)
