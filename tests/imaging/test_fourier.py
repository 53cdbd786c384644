"""Fourier crop and pad against analytic images, torch-fourier-rescale and SciPy; even and odd sizes."""

import itertools
import math

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.fourier import (
    common_columns,
    effective_resolution,
    frequencies,
    grid_spacing,
    network_shape,
    partial_irfft2,
    partial_rfft2,
    resize_occupied,
    resize_spectrum,
)

Image = NDArray[np.float32]

SIZES = [31, 32, 40, 41, 42]
PAIRS = list(itertools.product(itertools.product(SIZES, SIZES), [(32, 40), (41, 32), (33, 33), (48, 31)]))


def _waves(shape: tuple[int, int]) -> Image:
    """Sample one continuous image, band-limited to 13 waves per side, on any grid."""
    y = np.arange(shape[0])[:, None] / shape[0]
    x = np.arange(shape[1])[None, :] / shape[1]
    image = np.full(shape, 7.0)
    for amplitude, ky, kx, phase in [
        (1, 0, 13, 0.3),
        (2, -13, 5, 1.1),
        (0.5, 12, 12, 2),
        (3, 1, 0, -1),
        (1, 13, 0, 4),
    ]:
        image += amplitude * np.cos(2 * np.pi * (ky * y + kx * x) + phase)
    return image.astype(np.float32)


def _noise(shape: tuple[int, int], seed: int = 0) -> Image:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _resample(image: Image, new_shape: tuple[int, int]) -> Image:
    resized: Image = irfft2(resize_spectrum(rfft2(image), image.shape, new_shape), new_shape)
    return resized


@pytest.mark.parametrize(("shape", "new_shape"), PAIRS)
def test_band_limited_images_are_the_same_on_every_grid(shape: tuple[int, int], new_shape: tuple[int, int]) -> None:
    resampled = _resample(_waves(shape), new_shape)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, _waves(new_shape), atol=2e-5)


@pytest.mark.parametrize(("shape", "new_shape"), PAIRS)
def test_crop_undoes_pad(shape: tuple[int, int], new_shape: tuple[int, int]) -> None:
    # White noise, so that the Nyquist rows and columns matter.
    larger = (max(shape[0], new_shape[0]), max(shape[1], new_shape[1]))
    image = _noise(shape)
    padded = resize_spectrum(rfft2(image), shape, larger)
    np.testing.assert_allclose(irfft2(resize_spectrum(padded, larger, shape), shape), image, atol=3e-6)
    # And by way of real space: what the padded Nyquist components mean must be a real image.
    np.testing.assert_allclose(_resample(irfft2(padded, larger), shape), image, atol=3e-6)


@pytest.mark.parametrize(("n", "new_n"), list(itertools.permutations([16, 17, 20, 21, 32], 2)))
def test_equals_scipy_resample_along_one_axis(n: int, new_n: int) -> None:
    # SciPy's Fourier resampling has the same rules for Nyquist.
    signal = pytest.importorskip("scipy.signal")
    image = _noise((n, n), seed=n)
    truth = signal.resample(signal.resample(image.astype(np.float64), new_n, axis=0), new_n, axis=1)
    np.testing.assert_allclose(_resample(image, (new_n, new_n)), truth, atol=1e-5)


@pytest.mark.parametrize(("shape", "new_shape"), [((64, 60), (48, 40)), ((63, 61), (48, 40)), ((40, 41), (56, 64))])
def test_equals_torch_fourier_rescale_below_nyquist(shape: tuple[int, int], new_shape: tuple[int, int]) -> None:
    rescale = pytest.importorskip("torch_fourier_rescale")
    torch = pytest.importorskip("torch")
    image = _waves(shape)
    # It centres images by shifting them, which puts odd-sized ones off by a fraction of a pixel: undo that.
    theirs, _ = rescale.fourier_rescale_2d(torch.from_numpy(np.fft.ifftshift(image)), target_shape=new_shape)
    ours = _resample(image, new_shape)
    np.testing.assert_allclose(ours, np.fft.fftshift(theirs.numpy()), atol=3e-5)


@pytest.mark.parametrize("shape", [(64, 64), (63, 61), (64, 61)])
def test_mean_and_power_are_preserved(shape: tuple[int, int]) -> None:
    image = _waves(shape)
    cropped = _resample(image, (40, 40))
    assert cropped.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=1e-5)
    # Parseval: nothing of a band-limited image is lost.
    assert cropped.var(dtype=np.float64) == pytest.approx(image.var(dtype=np.float64), rel=1e-5)


@pytest.mark.parametrize("shape", [(150, 130), (151, 131), (90, 201)])
@pytest.mark.parametrize("new_shape", [(64, 72), (160, 96), (88, 208)])
def test_partial_transforms_equal_whole_ones(shape: tuple[int, int], new_shape: tuple[int, int]) -> None:
    image = _noise(shape) + 5
    columns = common_columns(shape, new_shape)
    forward = partial_rfft2(image, 5.0, columns)
    assert forward.dtype == np.complex64
    truth = scipy.fft.rfft2(image.astype(np.float64) - 5)
    np.testing.assert_allclose(forward, truth[:, :columns], atol=2e-6 * np.abs(truth).max())
    small = resize_spectrum(truth.astype(np.complex64), shape, new_shape)
    np.testing.assert_allclose(resize_spectrum(forward, shape, new_shape), small, atol=1e-3)
    back = partial_irfft2(resize_occupied(small, new_shape, shape), shape, 5.0)
    assert back.dtype == np.float32
    whole = scipy.fft.irfft2(resize_spectrum(small, new_shape, shape), s=shape) + 5
    np.testing.assert_allclose(back, whole, atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 12), (11, 9)])
def test_frequencies(shape: tuple[int, int]) -> None:
    s = frequencies(shape, (2.0, 0.5))
    assert s.shape == (shape[0], shape[1] // 2 + 1)
    assert s.dtype == np.float32
    truth = np.hypot(scipy.fft.fftfreq(shape[0], 2.0)[:, None], scipy.fft.rfftfreq(shape[1], 0.5)[None])
    np.testing.assert_allclose(s, truth, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "pixel_size", "max_resolution"),
    [
        ((4096, 4096), 0.66, 3.4),
        ((3838, 3710), 0.85378, 8.0),
        ((1023, 1001), 1.5, 4.5),
        ((1024, 2048), 2.0, 4.0),
        ((1000, 1000), 2.0, 3.0),
    ],
)
def test_network_shape_is_the_smallest_that_reaches(
    shape: tuple[int, int], pixel_size: float, max_resolution: float
) -> None:
    size = network_shape(shape, pixel_size, max_resolution)
    wanted = max(max_resolution, 2 * pixel_size)
    assert effective_resolution(pixel_size, max_resolution) == wanted
    for n, new_n in zip(shape, size, strict=True):
        assert new_n % 8 == 0
        assert 2 * n * pixel_size / new_n <= wanted * (1 + 1e-9)
        assert 2 * n * pixel_size / (new_n - 8) > wanted
    for n, new_n, step in zip(shape, size, grid_spacing(shape, pixel_size, size), strict=True):
        assert math.isclose(n * pixel_size, new_n * step)


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, math.nan, math.inf])
def test_invalid_pixel_sizes_are_rejected(pixel_size: float) -> None:
    with pytest.raises(DataError, match="pixel size"):
        network_shape((512, 512), pixel_size, 4.5)


def test_tiny_images_are_rejected() -> None:
    with pytest.raises(DataError, match="too small"):
        network_shape((40, 512), 1.0, 4.5)
