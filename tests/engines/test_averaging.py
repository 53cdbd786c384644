"""Test-time averaging over flips and quarter turns, with networks whose average is known from theory."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import convolve

from n2n_deploy.device.host import HOST
from n2n_deploy.engines.averaging import run_averaged

Image = NDArray[np.float32]


class Function:
    """A session made of a function of one image; it remembers the shapes it saw."""

    name, device = "function", HOST

    def __init__(self, function: Callable[[Image], Image]) -> None:
        self.function = function
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: Image) -> Image:
        self.shapes.append(batch.shape)
        return np.stack([[self.function(image) for image in channels] for channels in batch])


def noise(shape: tuple[int, int]) -> Image:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_what_a_network_does_askew_is_averaged_to_all_sides() -> None:
    """A shift by one pixel becomes the mean of the four neighbours: convolution with a cross."""
    image = noise((40, 64))
    averaged = run_averaged(Function(lambda x: np.roll(x, 1, axis=1)), image, 0, image.shape)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    np.testing.assert_allclose(averaged, convolve(image, cross, mode="wrap"), atol=1e-6)


def test_a_network_that_commutes_with_turning_is_not_changed() -> None:
    image = noise((40, 64))
    np.testing.assert_allclose(run_averaged(Function(np.tanh), image, 0, image.shape), np.tanh(image), atol=1e-6)


def test_independent_errors_of_the_views_average_out() -> None:
    rng = np.random.default_rng(1)
    image = np.zeros((256, 256), np.float32)
    noisy = Function(lambda x: x + rng.normal(size=x.shape).astype(np.float32))
    assert run_averaged(noisy, image, 0, image.shape).var() == pytest.approx(1 / 8, rel=0.05)


def test_tiles_are_turned_with_the_image() -> None:
    image = noise((64, 96))
    smooth = Function(lambda x: convolve(x, np.full((3, 3), 1 / 9), mode="constant"))
    whole = run_averaged(smooth, image, 8, image.shape)
    smooth.shapes.clear()
    np.testing.assert_allclose(run_averaged(smooth, image, 8, (32, 48)), whole, atol=1e-6)
    assert {shape[2:] for shape in smooth.shapes} == {(32, 48), (48, 32)}
