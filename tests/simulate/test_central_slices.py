"""Projections by central slices (central_slices, proteins): against sums over atoms and Fourier-cropped images."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch_fourier_rescale import fourier_rescale_2d

from n2n_deploy.data import Atoms
from n2n_deploy.data.structures import structure
from n2n_deploy.simulate import potential
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.central_slices import projections, transform
from n2n_deploy.simulate.proteins import Population, draw_atoms, draw_proteins
from n2n_deploy.simulate.specimen import Particles


@pytest.mark.parametrize("pixel_size", [2.0, 3.3, 6.0])
def test_projection_is_the_direct_sum_over_atoms(pixel_size: float) -> None:
    """exp(-2πi s·r) with the contrast factors, atom by atom, up to 1/5 Å or Nyquist."""
    whole = structure("esterase")
    atoms = Atoms(whole.elements[::10], whole.positions[::10])
    rotation, offset = Rotation.from_euler("ZYZ", [[25, 70, -130]], degrees=True), np.array([[0.3, -0.4]])
    image = projections(transform(atoms), offset, rotation, pixel_size)[0]
    side = len(image)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    s = np.hypot(fy, fx) / pixel_size
    view = rotation.inv().apply(atoms.positions) / pixel_size
    expected = np.zeros(s.shape, complex)
    for element in np.unique(atoms.elements):
        x, y, _ = view[atoms.elements == element].T
        along_y = np.exp(-2j * np.pi * fy * (y + offset[0, 0] + side // 2))
        along_x = np.exp(-2j * np.pi * fx[:, None] * (x + offset[0, 1] + side // 2))
        expected += potential.contrast_factor(int(element), s) * (along_y @ along_x.T)
    known = (s < 0.2) & (np.abs(fy) < 0.5) & (fx < 0.5)
    error = np.fft.rfft2(image) - expected
    assert np.sqrt(np.mean(np.abs(error[known]) ** 2) / np.mean(np.abs(expected[known]) ** 2)) < 0.03


def test_coarse_image_is_the_fine_one_fourier_cropped() -> None:
    """Particles drawn on pixels of 4 Å, against the same drawn on 1 Å and cropped by torch-fourier-rescale."""
    rotations = Rotation.random(3, np.random.default_rng(1))
    centres = np.array([[250.0, 260.3], [401.7, 380.2], [300.9, 420.4]])
    fine = Canvas.empty((180, 180), 1.0)
    coarse = Canvas.empty((45, 45), 4.0)
    size = min(fine.shape[0], 4 * coarse.shape[0])
    draw_atoms(fine, structure("get3"), Particles(centres, rotations))
    population = Population()
    # The centres of the first pixels of both images lie at the same place, which Fourier cropping keeps.
    population.add("get3", centres, rotations)
    draw_proteins(coarse, population, 0.0, np.random.default_rng(0))
    image = np.zeros((4 * coarse.shape[0],) * 2, np.float32)
    image[:size, :size] = fine.scattering[:size, :size]
    cropped, _ = fourier_rescale_2d(torch.from_numpy(image), 1.0, 4.0)
    assert tuple(cropped.shape) == coarse.shape
    error = coarse.scattering - cropped.numpy()
    assert np.sqrt(np.mean(error**2)) < 0.04 * np.std(cropped.numpy())


def test_broken_particles_lose_what_lies_beyond_the_plane() -> None:
    """The same cuts by atoms (1.9 Å) and by slices (2 Å); broken particles scatter less, whole ones as ever."""
    totals = []
    for pixel_size in (1.9, 2.0):
        for broken in (0.0, 1.0):
            canvas, rng = Canvas.empty((64, 64), pixel_size), np.random.default_rng(3)
            population = Population()
            population.add("esterase", np.full((1, 2), 260.0), Rotation.identity(1))
            draw_proteins(canvas, population, broken, rng)
            totals.append(canvas.scattering.sum() * pixel_size**2)
    whole_atoms, broken_atoms, whole_slices, broken_slices = totals
    elements, counts = np.unique(structure("esterase").elements, return_counts=True)
    factors = [potential.contrast_factor(int(element), np.zeros(1))[0] for element in elements]
    assert whole_atoms == pytest.approx(np.dot(counts, factors), rel=1e-3)
    assert whole_slices == pytest.approx(whole_atoms, rel=0.01)
    assert 0.1 < broken_atoms / whole_atoms < 0.95
    assert broken_slices == pytest.approx(broken_atoms, rel=0.05)
