"""The package's data and `make`: against their sources, statistics and symmetry."""

from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from n2n_deploy import data
from n2n_deploy.data import make


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return data.micrograph_counts()


def test_micrograph_is_the_published_one_in_electrons(counts: np.ndarray, shared_data: Path) -> None:
    with mrcfile.open(shared_data / "micrographs" / "fei-extended.mrc", permissive=True) as mrc:
        expected = mrc.data / 104.0
    assert np.abs(counts - expected).max() < 1
    assert counts.mean() == pytest.approx(expected.mean(), abs=5 * 0.5 / np.sqrt(counts.size))


def test_make_writes_files_that_the_loaders_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = np.random.default_rng(1).poisson(256, (7, 5)).astype(np.uint16)
    assert written.max() > 255 > written.min()
    make.write_strips(written, tmp_path)
    monkeypatch.setattr(data, "files", lambda _: tmp_path)
    assert np.array_equal(data.micrograph_counts(), written)


def test_thinned_halves_are_independent_poisson_images() -> None:
    counts = np.random.default_rng(1).poisson(34.0, (400, 500)).astype(np.uint16)
    even, odd = data.thin(counts, seed=3)
    assert np.array_equal(even + odd, counts)
    for half in (even, odd):
        assert half.mean() == pytest.approx(17, abs=0.05)
        assert half.var() == pytest.approx(17, rel=0.02)
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 5 / np.sqrt(counts.size)
    assert not np.array_equal(even, data.thin(counts, seed=4)[0])


def test_real_micrograph_is_nearly_poisson(counts: np.ndarray) -> None:
    assert counts.mean() == pytest.approx(34, abs=0.5)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.05)


def test_proteasome_is_the_pdb_entry(shared_data: Path) -> None:
    atoms = data.proteasome()
    entry = gemmi.read_structure(str(shared_data / "models" / "3j9i.pdb"))[0]
    sites = [site.atom for site in entry.all()]
    assert atoms.elements.tolist() == [atom.element.atomic_number for atom in sites]
    published = np.array([atom.pos.tolist() for atom in sites])
    published -= published.mean(axis=0)
    ours = atoms.positions - atoms.positions.mean(axis=0)
    rotation, _ = Rotation.align_vectors(published, ours)  # proper rotations only: the hand is kept
    assert np.abs(rotation.apply(ours) - published).max() < 0.02


def test_proteasome_is_in_the_standard_setting_of_d7() -> None:
    positions = data.proteasome().positions
    tree = KDTree(positions)
    for operation in Rotation.create_group("D7"):
        distance, _ = tree.query(operation.apply(positions[::50]))
        assert distance.max() < 0.1
