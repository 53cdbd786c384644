"""CuPy against NumPy, for every function and odd sizes."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from n2n_deploy.imaging.arrays import array_module, irfft2, rfft2, to_numpy
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf, ctf_sign
from n2n_deploy.imaging.filters import bandpass, soft_lowpass
from n2n_deploy.imaging.fourier import frequencies, nyquist, partial_irfft2, partial_rfft2, resize_spectrum
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.restore import Merge, restore
from n2n_deploy.recipe import Recipe

pytestmark = pytest.mark.usefixtures("stream")

SHAPES = [(512, 512), (511, 513), (640, 501), (1023, 1001)]
OPTICS = Optics(1.1, 300.0, 2.7, 0.1)
CTF = CTFParameters(18000.0, 15500.0, 31.0, 20.0)


def micrograph(shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(30.0, 5.0, shape).astype(np.float32)


def close(found: Any, expected: Any, tolerance: float) -> None:
    found = to_numpy(found)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_transforms(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = micrograph(shape)
    there = cupy.asarray(image)
    close(rfft2(there), rfft2(image), 1e-6)
    close(irfft2(rfft2(there), shape), image, 1e-5)
    columns = shape[1] // 3
    partial = partial_rfft2(image, 30.0, columns)
    close(partial_rfft2(there, 30.0, columns), partial, 1e-5)
    close(partial_irfft2(cupy.asarray(partial), shape, 30.0), partial_irfft2(partial, shape, 30.0), 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_grids_and_filters(cupy: ModuleType, shape: tuple[int, int]) -> None:
    spacing = (1.1, 1.2)
    close(frequencies(shape, spacing, cupy), frequencies(shape, spacing), 1e-6)
    close(bandpass(shape, spacing, Recipe(), cupy), bandpass(shape, spacing, Recipe()), 1e-5)
    close(soft_lowpass(shape, spacing, 0.1, 0.2, cupy), soft_lowpass(shape, spacing, 0.1, 0.2), 1e-5)
    truth = ctf(shape, spacing, OPTICS, CTF)
    close(ctf(shape, spacing, OPTICS, CTF, cupy), truth, 1e-4)
    clear = np.abs(truth) > 1e-4
    signs = to_numpy(ctf_sign(shape, spacing, OPTICS, CTF, cupy))
    assert np.array_equal(signs[clear], ctf_sign(shape, spacing, OPTICS, CTF)[clear])


@pytest.mark.parametrize("new_shape", [(256, 264), (520, 520)])
@pytest.mark.parametrize("shape", SHAPES)
def test_resizing(cupy: ModuleType, shape: tuple[int, int], new_shape: tuple[int, int]) -> None:
    spectrum = rfft2(micrograph(shape))
    close(resize_spectrum(cupy.asarray(spectrum), shape, new_shape), resize_spectrum(spectrum, shape, new_shape), 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "uint16", "float16"])
def test_pixels(cupy: ModuleType, dtype: str) -> None:
    image = micrograph((301, 302)).astype(dtype)
    image[7, 9] = np.iinfo(dtype).max if image.dtype.kind in "iu" else np.inf
    expected, report = repair_pixels(image)
    found, there = repair_pixels(cupy.asarray(image))
    assert (there.bad, there.clipped) == (report.bad, report.clipped)
    assert there.mean == pytest.approx(report.mean, rel=1e-6)
    close(found, expected, 1e-5)


def test_defects_in_clusters_are_repaired_alike(cupy: ModuleType) -> None:
    image = micrograph((300, 317))
    image[10, 10], image[50, 60], image[100:110, 100:105] = 1e6, np.inf, np.nan
    expected, report = repair_pixels(image)
    found, there = repair_pixels(cupy.asarray(image))
    assert (there.bad, there.clipped) == (report.bad, report.clipped) == (51, 1)
    assert there.std == pytest.approx(report.std, rel=1e-6)
    close(found, expected, 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resolution", [2.0, 4.5, 8.0])
def test_fused_preprocessing_and_restoring(cupy: ModuleType, shape: tuple[int, int], resolution: float) -> None:
    recipe, image = Recipe(max_resolution=resolution), micrograph(shape)
    expected = preprocess(image, OPTICS, CTF, recipe, keep_spectrum=True)
    found = preprocess(cupy.asarray(image), OPTICS, CTF, recipe, keep_spectrum=True)
    assert array_module(found.image) is cupy
    assert found.image.dtype == np.float32
    assert found.std == pytest.approx(expected.std, rel=1e-5)
    assert np.abs(to_numpy(found.image) - expected.image).max() < 1e-4
    end = min(nyquist(expected.spacing), 0.5 / expected.pixel_size)
    for merge in (None, Merge(1.3 / end, 0.3 / end)):
        for flip_back in (False, True):
            options: dict[str, Any] = {"merge": merge, "flip_back": flip_back, "lowpass": 1.5 / end}
            truth = restore(expected.image, expected, **options)
            there = restore(found.image, found, **options)
            assert array_module(there) is cupy
            assert np.abs(to_numpy(there) - truth).max() < 2e-4 * truth.std() + 1e-5 * abs(truth.mean())
