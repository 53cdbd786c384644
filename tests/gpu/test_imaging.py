"""CuPy against NumPy, for every function and odd sizes."""

from dataclasses import astuple
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import device_of, irfft2, rfft2, to_host
from n2n_deploy.device.cuda import CudaDevice
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf, flip_phases
from n2n_deploy.imaging.defects import describe
from n2n_deploy.imaging.filters import bandpass, soft_lowpass
from n2n_deploy.imaging.fourier import (
    frequencies,
    nyquist,
    partial_irfft2,
    partial_rfft2,
    resize_occupied,
    resize_spectrum,
)
from n2n_deploy.imaging.gradient import subtract_ramp
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.restore import Merge, restore
from n2n_deploy.imaging.rings import hermitian_weights, ring_index, ring_means, ring_sizes, ring_sums
from n2n_deploy.statistics.estimates import estimate, per_ring
from n2n_deploy.statistics.wiener import fit_wiener
from tests.support.ctf_sign import ctf_sign

pytestmark = pytest.mark.usefixtures("stream")

SHAPES = [(512, 512), (511, 513), (640, 501), (1023, 1001)]
PRIMES = (1019, 997)
"""Lengths that the FFT has to take a detour for, with large work areas."""
OPTICS = Optics(1.1, 300.0, 2.7, 0.1)
CTF = CTFParameters(18000.0, 15500.0, 31.0, 20.0)


def micrograph(shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(30.0, 5.0, shape).astype(np.float32)


def close(found: Any, expected: Any, tolerance: float) -> None:
    found = to_host(found)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("shape", [*SHAPES, PRIMES])
def test_transforms(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = micrograph(shape)
    there = cupy.asarray(image)
    close(rfft2(there), rfft2(image), 1e-6)
    close(irfft2(rfft2(there), shape), image, 1e-5)
    columns = shape[1] // 3
    partial = partial_rfft2(image, 30.0, columns)
    close(partial_rfft2(there, 30.0, columns), partial, 1e-5)
    close(partial_irfft2(cupy.asarray(partial), shape, 30.0), partial_irfft2(partial, shape, 30.0), 1e-5)


def test_an_fft_plan_larger_than_the_cache_bound_still_works(cupy: ModuleType) -> None:
    image, cache = micrograph(PRIMES), cupy.fft.config.get_plan_cache()
    bound = cache.get_memsize()
    try:
        cache.clear()
        cache.set_memsize(1)
        close(rfft2(cupy.asarray(image)), rfft2(image), 1e-6)
        assert cache.get_curr_memsize() <= cache.get_memsize()
    finally:
        cache.set_memsize(bound)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (40, 51), (25, 27, 21)])
@pytest.mark.parametrize("stored_half", [False, True])
def test_rings(cupy: ModuleType, gpu: CudaDevice, shape: tuple[int, ...], stored_half: bool) -> None:
    spacing = (1.1, 1.3, 0.9)[: len(shape)]
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfftn(rng.standard_normal(shape)) * np.conj(np.fft.rfftn(rng.standard_normal(shape)))
    there = cupy.asarray(spectrum)
    assert np.array_equal(to_host(ring_index(shape, spacing, gpu)), ring_index(shape, spacing))
    close(hermitian_weights(shape, gpu), hermitian_weights(shape), 0)
    close(ring_sizes(shape, spacing, gpu), ring_sizes(shape, spacing), 0)
    options: dict[str, Any] = {"stored_half": stored_half}
    close(ring_sums(there, shape, spacing, **options), ring_sums(spectrum, shape, spacing, **options), 1e-9)
    close(ring_means(there, shape, spacing), ring_means(spectrum, shape, spacing), 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_phases_are_flipped_alike(cupy: ModuleType, shape: tuple[int, int]) -> None:
    spectrum, spacing = rfft2(micrograph(shape)), (1.1, 1.1)
    there = cupy.asarray(spectrum)
    clear = np.abs(ctf(shape, spacing, OPTICS, CTF)) > 1e-4
    flip_phases(spectrum, shape, spacing, OPTICS, CTF)
    flip_phases(there, shape, spacing, OPTICS, CTF)
    assert np.array_equal(to_host(there)[clear], spectrum[clear])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ice_gradient_is_subtracted(cupy: ModuleType, shape: tuple[int, int]) -> None:
    spectrum = rfft2(micrograph(shape) + np.linspace(0, 20, shape[1], dtype=np.float32))
    there = cupy.asarray(spectrum)
    with subtract_ramp(spectrum, shape, 1.1, 200.0), subtract_ramp(there, shape, 1.1, 200.0):
        close(there, spectrum, 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_resizing_occupied_columns(cupy: ModuleType, shape: tuple[int, int]) -> None:
    small = (256, 264)
    spectrum = rfft2(micrograph(small))
    close(resize_occupied(cupy.asarray(spectrum), small, shape), resize_occupied(spectrum, small, shape), 1e-6)


def test_a_grid_made_on_one_stream_is_complete_on_another(cupy: ModuleType, gpu: CudaDevice) -> None:
    spin = cupy.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }', "spin"
    )
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    gpu.grids.clear()

    def make() -> Any:
        array = cupy.zeros(1000)
        spin((1,), (1,), (200_000_000,))
        array += 1
        return array

    with first:
        gpu.grid("ones", make)
    with second:
        assert float((gpu.grid("ones", make) * 1).sum()) == 1000


@pytest.mark.parametrize("shape", SHAPES)
def test_grids_and_filters(gpu: CudaDevice, shape: tuple[int, int]) -> None:
    spacing = (1.1, 1.2)
    close(frequencies(shape, spacing, gpu), frequencies(shape, spacing), 1e-6)
    close(bandpass(shape, spacing, Recipe(), gpu), bandpass(shape, spacing, Recipe()), 1e-5)
    close(soft_lowpass(shape, spacing, 0.1, 0.2, gpu), soft_lowpass(shape, spacing, 0.1, 0.2), 1e-5)
    truth = ctf(shape, spacing, OPTICS, CTF)
    close(ctf(shape, spacing, OPTICS, CTF, gpu), truth, 1e-4)
    clear = np.abs(truth) > 1e-4
    signs = to_host(ctf_sign(shape, spacing, OPTICS, CTF, gpu))
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


def damaged(shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A micrograph with all that is repaired at once: margins, a staircase, a dead module, lines, a hot pixel."""
    image = micrograph(shape)
    image[:, 200:203], image[321], image[:, 50] = 0, 10 * image[321], 7
    image[150:250, 300:400] = 3
    image[:5], image[:, -9:] = 0, -1
    image[5:150, :12], image[150:300, :20] = 0, 0
    image[400, 100] = 1e6
    return image


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_margins_and_modules_are_repaired_alike(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = damaged(shape)
    expected, report = repair_pixels(image, 180.0)
    found, there = repair_pixels(cupy.asarray(image), 180.0)
    assert len(report.defects) >= 6
    assert describe(there.defects) == describe(report.defects)
    assert [defect.rows + defect.columns for defect in there.defects] == [
        defect.rows + defect.columns for defect in report.defects
    ]
    assert there.filled == report.filled
    assert there.mean == pytest.approx(report.mean, rel=1e-6)
    close(found, expected, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_areas_are_put_back_alike(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = damaged(shape)
    recipe = Recipe(max_resolution=8.0)
    prepared = preprocess(image, OPTICS, CTF, recipe)
    there = preprocess(cupy.asarray(image), OPTICS, CTF, recipe)
    close(there.image, prepared.image, 2e-4)
    assert np.array_equal(there.missing(), prepared.missing())
    expected, found = restore(prepared.image, prepared), to_host(restore(there.image, there))
    close(found, expected, 1e-4)
    assert (found[:5, :-9] == 0).all()
    assert (found[:, -9:] == -1).all()
    assert (found[150:250, 300:400] == 3).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_beam_edge_is_levelled_alike(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = micrograph(shape) * np.where(np.arange(shape[1]) < shape[1] // 4, np.float32(0.1), np.float32(1))
    expected, report = repair_pixels(image, 60.0)
    found, there = repair_pixels(cupy.asarray(image), 60.0)
    assert report.illumination is not None
    assert there.illumination is not None
    assert str(there.illumination) == str(report.illumination)
    close(found, expected, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resolution", [2.0, 4.5, 8.0])
def test_fused_preprocessing_and_restoring(
    cupy: ModuleType, gpu: CudaDevice, shape: tuple[int, int], resolution: float
) -> None:
    recipe, image = Recipe(max_resolution=resolution), micrograph(shape)
    expected = preprocess(image, OPTICS, CTF, recipe, keep_spectrum=True)
    found = preprocess(cupy.asarray(image), OPTICS, CTF, recipe, keep_spectrum=True)
    assert device_of(found.image) is gpu
    assert found.image.dtype == np.float32
    assert found.std == pytest.approx(expected.std, rel=1e-5)
    assert np.abs(to_host(found.image) - expected.image).max() < 1e-4
    end = min(nyquist(expected.spacing), 0.5 / expected.pixel_size)
    for merge in (None, Merge(1.3 / end, 0.3 / end)):
        for flip_back, coarser in ((False, None), (True, None), (False, 1.4), (True, 5.0)):
            options: dict[str, Any] = {"merge": merge, "flip_back": flip_back, "lowpass": 1.5 / end}
            options["output_pixel_size"] = coarser and coarser * OPTICS.pixel_size
            truth = restore(expected.image, expected, **options)
            there = restore(found.image, found, **options)
            assert device_of(there) is gpu
            assert np.abs(to_host(there) - truth).max() < 2e-4 * truth.std() + 1e-5 * abs(truth.mean())


@pytest.mark.parametrize("shape", [(200, 240), (201, 239)])
def test_estimates_and_wiener_filters(cupy: ModuleType, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    signal = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    halves = [(signal + 0.1 * rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]
    wiener = fit_wiener(*halves)
    denoised = [wiener(half) for half in halves]
    close(wiener(cupy.asarray(halves[0])), denoised[0], 1e-5)
    there = [cupy.asarray(image) for image in (*halves, *denoised)]
    found, expected = estimate(*there), estimate(*halves, *denoised)
    assert astuple(found)[:-1] == pytest.approx(astuple(expected)[:-1], rel=1e-9)
    rings, truth = (per_ring(*images, (1.1, 1.2)) for images in (there, (*halves, *denoised)))
    np.testing.assert_allclose(rings.var_signal, truth.var_signal, atol=1e-6 * truth.var_signal.max())
