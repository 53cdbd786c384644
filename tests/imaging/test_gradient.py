"""Slopes across the frame, against images that have none and against a plane fitted by least squares."""

import numpy as np
import pytest

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.gradient import subtract_ramp
from n2n_deploy.imaging.preprocess import preprocess

OPTICS = Optics(1.2, 300.0, 2.7, 0.1)
CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
SHAPES = [(600, 640), (601, 511)]


def slope(shape: tuple[int, int], along_y: float, along_x: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return along_y * (y - (shape[0] - 1) / 2) + along_x * (x - (shape[1] - 1) / 2)


def band_limited(shape: tuple[int, int]) -> np.ndarray:
    """Noise of periods below 150 Å only."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal(shape))
    s = np.hypot(np.fft.fftfreq(shape[0], 1.2)[:, None], np.fft.rfftfreq(shape[1], 1.2))
    return 40 + 6 * np.fft.irfft2(np.where(s > 1 / 150, spectrum, 0), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [None, 100])
def test_a_plane_leaves_nothing(shape: tuple[int, int], count: int | None) -> None:
    spectrum = np.fft.rfft2(slope(shape, 0.02, -0.03))[:, :count]
    before = spectrum.copy()
    with subtract_ramp(spectrum, shape, 1.2, 200.0):
        assert np.abs(spectrum).max() < 1e-9 * np.abs(before).max()
    assert np.array_equal(spectrum, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_network_sees_the_same_with_and_without_a_gradient(shape: tuple[int, int]) -> None:
    flat = band_limited(shape)
    level, tilted = (
        preprocess(image, OPTICS, CTF, Recipe()) for image in (flat, flat + slope(shape, 6 / shape[0], -9 / shape[1]))
    )
    np.testing.assert_allclose(tilted.image, level.image, atol=2e-4)
    assert tilted.std == pytest.approx(level.std, rel=1e-4)


def test_the_edges_of_a_thickening_ice_look_like_its_middle() -> None:
    # Thickness as a smooth but not a straight function of the place, and shot noise: as in a real frame.
    y, x = np.mgrid[:1024, :1024] / 1024
    image = np.random.default_rng(1).poisson(40 - 6 * y - 4 * x + 1.5 * x * y).astype(np.float32)
    seen = preprocess(image, OPTICS, CTF, Recipe(max_resolution=20.0)).image
    edge = 10
    rims = [seen[:edge], seen[-edge:], seen[:, :edge], seen[:, -edge:]]
    middle = seen[edge:-edge, edge:-edge]
    assert all(abs(rim.mean()) < 0.15 * middle.std() for rim in rims)


def test_a_frame_shorter_than_the_high_pass_is_unchanged() -> None:
    spectrum = np.fft.rfft2(slope((64, 64), 1.0, 1.0))
    before = spectrum.copy()
    with subtract_ramp(spectrum, (64, 64), 1.2, 200.0):
        assert np.array_equal(spectrum, before)
