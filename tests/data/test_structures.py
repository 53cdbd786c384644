"""The structures in the package: against their PDB entries and published masses."""

import lzma
from pathlib import Path

import gemmi
import numpy as np
import pytest
from scipy.spatial import KDTree

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import proteasome
from n2n_deploy.data.structures import ENTRIES, NAMES, pdb_code, structure, structures

KEPT = {"C", "N", "O", "S", "P"}


@pytest.mark.parametrize("name", ENTRIES)
def test_structure_is_the_pdb_entry(name: str, shared_data: Path) -> None:
    """The atoms of the entry's first chain lie as far from each other as there, up to the rounding to 0.1 Å."""
    with lzma.open(shared_data / "models" / f"{ENTRIES[name]}.pdb.xz", "rt") as stream:
        entry = gemmi.read_pdb_string(stream.read())
    entry.remove_waters()
    chain = [atom for residue in entry[0][0] for atom in residue if atom.element.name in KEPT]
    published = np.array([atom.pos.tolist() for atom in chain])
    atoms = structure(name)
    count = len(published)
    assert atoms.elements[:count].tolist() == [atom.element.atomic_number for atom in chain]
    for reference in (0, count // 2, count - 1):
        ours, theirs = (
            np.linalg.norm(points - points[reference], axis=1) for points in (atoms.positions[:count], published)
        )
        assert np.abs(ours - theirs).max() < 0.2


@pytest.mark.parametrize(("name", "copies"), [("rubisco", 2), ("p97", 2), ("clpb", 2)])
def test_assembly_has_the_symmetry_of_its_copies(name: str, copies: int) -> None:
    """RuBisCO L8S8 and the hexamers come from half of their atoms: the copies' inner distances agree."""
    positions = structure(name).positions
    half = len(positions) // copies
    assert len(positions) == copies * half
    distances = [np.linalg.norm(part[0] - part, axis=1) for part in (positions[:half], positions[half:])]
    assert np.abs(distances[0] - distances[1]).max() < 0.5


@pytest.mark.parametrize(("name", "kilodalton"), [("rubisco", 540), ("p97", 540), ("hsp70", 42), ("esterase", 54)])
def test_mass_is_that_of_the_assembly(name: str, kilodalton: float) -> None:
    """Published masses; the models lack what was not resolved, up to a fifth."""
    elements, counts = np.unique(structure(name).elements, return_counts=True)
    masses = [gemmi.Element(int(element)).weight + 1.008 for element in elements]
    assert 0.75 * kilodalton < np.dot(counts, masses) / 1000 < 1.1 * kilodalton


def test_structures_are_centred_and_complete() -> None:
    found = structures()
    assert tuple(found) == NAMES
    assert len(found["proteasome"].elements) == len(proteasome().elements)
    for name, atoms in found.items():
        assert np.abs(np.average(atoms.positions, axis=0, weights=atoms.elements)).max() < 0.5
        nearest, _ = KDTree(atoms.positions).query(atoms.positions[::97], k=2)
        assert np.median(nearest[:, 1]) == pytest.approx(1.4, abs=0.2), name
    assert pdb_code("ribosome-30s") == "4V4R"
    with pytest.raises(UsageError, match="no structure named 'virus'; use one of proteasome, rubisco"):
        structure("virus")
