"""Pictures of a micrograph: their content, their size in bytes."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from simulated_images import OPTICS, SPACING, image_with_thon_rings

from n2n_deploy.report.thumbnails import picture_limit
from n2n_deploy.report.views import view


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(float)


def test_pictures_show_the_images_and_the_residual():
    noisy, _ = image_with_thon_rings((960, 720), seed=3)
    disc = np.hypot(*(np.indices(noisy.shape) - np.array([300, 500])[:, None, None])) < 60
    noisy = noisy - 2.0 * disc.astype(np.float32)
    blind = gaussian_filter(noisy, 3) + 2.0 * disc.astype(np.float32)  # a "network" that removes the disc
    drawn = view(noisy, blind, SPACING, OPTICS, None, limit=120_000).pictures
    small = opened(drawn["noisy"])
    assert small.shape[0] / small.shape[1] == pytest.approx(960 / 720, rel=0.02)
    # The two downsampling methods shift pixels by a fraction; blurring makes that negligible.
    reference = zoom(gaussian_filter(noisy, 6), np.array(small.shape) / noisy.shape, order=1)
    assert np.corrcoef(gaussian_filter(small, 2).ravel(), reference.ravel())[0, 1] > 0.9
    shown = zoom(disc.astype(float), np.array(small.shape) / noisy.shape, order=1) > 0.5
    residual = opened(drawn["residual"])
    assert residual[shown].mean() < residual[~shown].mean() - 30
    detail = opened(drawn["denoised detail"])
    side = detail.shape[0]
    middle = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in noisy.shape)
    assert np.corrcoef(detail.ravel(), blind[middle].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("limit", [12_000, 30_000, 100_000])
def test_pictures_stay_within_the_size_limit(limit):
    noise = np.random.default_rng(5).standard_normal((1100, 1408)).astype(np.float32)
    drawn = view(noise, noise, SPACING, OPTICS, None, limit).pictures
    assert 0.4 * limit < sum(map(len, drawn.values())) <= limit
    assert set(drawn) >= {"noisy", "denoised", "residual"}


def test_size_limit_depends_on_the_number_of_micrographs():
    assert 4000 * picture_limit(4000) <= 60_000_000
    assert picture_limit(3) > 100_000
