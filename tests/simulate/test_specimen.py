"""The specimen's phase (specimen, potential): against X-ray factors, published constants, direct sums and RELION."""

from collections.abc import Callable
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import Atoms, proteasome
from n2n_deploy.simulate import potential
from n2n_deploy.simulate.specimen import Particles, in_frame, phase_spectrum, place


@pytest.mark.parametrize("element", [6, 7, 8, 16])
def test_scattering_factors_obey_mott_and_bethe(element: int) -> None:
    """Electron factors follow from the X-ray factors of another table: f = 0.023934 (Z - f_x) / (s/2)²."""
    s = np.array([0.5, 0.7, 1.0])
    xray = [gemmi.Element(element).it92.calculate_sf(stol2=(x / 2) ** 2) for x in s]
    expected = 0.023934 * (element - np.array(xray)) / (s / 2) ** 2
    np.testing.assert_allclose(potential.scattering_factor(element, s), expected, rtol=0.03)


def test_hydrogen_is_the_1s_orbital() -> None:
    """Born approximation: f = 2 a (8 + q²a²) / (4 + q²a²)², with the Bohr radius a and q = 2πs."""
    s = np.linspace(0, 1, 11)
    qa = (2 * np.pi * s * 0.529177) ** 2
    np.testing.assert_allclose(potential.scattering_factor(1, s), 2 * 0.529177 * (8 + qa) / (4 + qa) ** 2, rtol=0.01)


@pytest.mark.parametrize(("voltage", "interaction"), [(100, 9.244e-4), (200, 7.288e-4), (300, 6.526e-4)])
def test_phase_agrees_with_the_interaction_parameter(voltage: float, interaction: float) -> None:
    """Kirkland's interaction parameter in rad/(V Å), with 47.878 V Å² for each Å of scattering factor."""
    assert potential.phase_per_scattering(voltage) == pytest.approx(interaction * 47.878, rel=1e-3)


def test_protein_scatters_more_than_the_ice_it_displaces() -> None:
    """Mean potentials: about 4.5 V of ice and 7 to 9 V of protein, for free atoms."""
    zero = np.zeros(1)
    for element in (6, 7, 8, 16):
        total = potential.scattering_factor(element, zero) + potential.scattering_factor(1, zero)
        contrast = potential.contrast_factor(element, zero)
        assert 0.2 < (contrast / total).item() < 0.7
    sharp = np.array([0.4])
    bare = potential.scattering_factor(6, sharp) + potential.scattering_factor(1, sharp)
    np.testing.assert_allclose(potential.contrast_factor(6, sharp), bare, rtol=1e-3)


def test_spectrum_is_the_direct_sum_over_atoms() -> None:
    """Up to half of Nyquist, against exp(-2πi s·r) summed atom by atom."""
    rng = np.random.default_rng(0)
    shape, pixel_size = (60, 73), 1.3
    atoms = Atoms(rng.choice([6, 8], 20).astype(np.uint8), rng.uniform(-15, 15, (20, 3)).astype(np.float32))
    particles = Particles(np.array([[31.3, 40.9]]), Rotation.identity(1))
    spectrum = phase_spectrum(particles, atoms, shape, pixel_size, 300.0)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    low = np.hypot(fy, fx) < 0.25
    s = np.hypot(fy, fx) / pixel_size
    expected = np.zeros(s.shape, complex)
    for element, (x, y, _) in zip(atoms.elements, atoms.positions, strict=True):
        wave = np.exp(-2j * np.pi * (fy * (31.3 + y / pixel_size) + fx * (40.9 + x / pixel_size)))
        expected += potential.contrast_factor(int(element), s) * wave
    expected *= potential.phase_per_scattering(300.0) / pixel_size**2
    error = np.abs(spectrum - expected)[low]
    assert error.max() < 0.02 * np.abs(expected[low]).max()
    assert np.sqrt(np.mean(error**2)) < 0.005 * np.sqrt(np.mean(np.abs(expected[low]) ** 2))


def test_projection_follows_relions_convention(relion: Callable[..., str], tmp_path: Path) -> None:
    """An asymmetric part of the model, projected by relion_project: directions, hand, angles and centre."""
    whole = proteasome()
    part = whole.positions @ [1, 2, 0.5] > 20
    atoms = Atoms(whole.elements[part], whole.positions[part])
    n, pixel_size, angles = 96, 2.5, (25.0, 70.0, -130.0)
    volume = np.zeros((n, n, n), np.float32)
    x, y, z = np.rint(atoms.positions / pixel_size + n // 2).astype(int).T
    np.add.at(volume, (z, y, x), atoms.elements)
    with mrcfile.new(tmp_path / "volume.mrc") as mrc:
        mrc.set_data(gaussian_filter(volume, 1.5))
        mrc.voxel_size = pixel_size
    names = ("--i", "volume.mrc", "--o", "projection.mrc", "--angpix", pixel_size)
    turns = (item for pair in zip(("--rot", "--tilt", "--psi"), angles, strict=True) for item in pair)
    relion("relion_project", *names, *turns, cwd=tmp_path)
    expected = mrcfile.read(tmp_path / "projection.mrc").squeeze()
    particles = Particles(np.array([[n / 2, n / 2]]), Rotation.from_euler("ZYZ", [angles], degrees=True))
    phase = np.fft.irfft2(phase_spectrum(particles, atoms, (n, n), pixel_size, 300.0), (n, n))
    ours = gaussian_filter(phase, 1.5)
    assert np.corrcoef(expected.ravel(), ours.ravel())[0, 1] > 0.995


def test_particles_do_not_overlap_and_have_uniform_orientations() -> None:
    rng = np.random.default_rng(1)
    shape, margin = (900, 1400), 100
    placed = place(shape, margin, 60, 80.0, rng)
    assert in_frame(placed.centres, shape).sum() == 60
    assert pdist(placed.centres).min() >= 80
    assert placed.centres.min() < 0
    # Of uniform rotations the beam's direction in the model is uniform on the sphere: mean 0, variance 1/3.
    views = place((4000, 4000), 0, 800, 5.0, rng).rotations.apply([0, 0, 1])
    np.testing.assert_allclose(views.mean(axis=0), 0, atol=5 * np.sqrt(1 / 3 / 800))
    np.testing.assert_allclose(np.cov(views.T), np.eye(3) / 3, atol=0.06)


def test_too_many_particles_are_refused() -> None:
    with pytest.raises(UsageError, match="30 particles of 150 pixels do not fit"):
        place((300, 300), 0, 30, 150.0, np.random.default_rng(0))
