"""The same functions on CuPy arrays, where there is a GPU, against NumPy."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from n2n_deploy.imaging.arrays import array_module, to_numpy
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf, ctf_sign
from n2n_deploy.imaging.filters import bandpass
from n2n_deploy.imaging.fourier import resize_spectrum
from n2n_deploy.imaging.pixels import repair_pixels
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.imaging.restore import Merge, restore
from n2n_deploy.recipe import Recipe

OPTICS = Optics(1.2, 300.0, 2.7, 0.1)
CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
RECIPE = Recipe(max_resolution=4.5)


@pytest.fixture(scope="module")
def cupy() -> ModuleType:
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy finds no GPU: {error}")
    if not count:
        pytest.skip("no GPU")
    return module


def _image(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(0).poisson(34, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(300, 320), (301, 287)])
def test_grids(cupy: ModuleType, shape: tuple[int, int]) -> None:
    for function, last in ((ctf, (OPTICS, CTF)), (ctf_sign, (OPTICS, CTF)), (bandpass, (RECIPE,))):
        theirs = function(shape, (1.2, 1.2), *last, xp=cupy)
        assert array_module(theirs) is cupy
        np.testing.assert_allclose(to_numpy(theirs), function(shape, (1.2, 1.2), *last), atol=1e-5)


@pytest.mark.parametrize("new_shape", [(200, 208), (331, 208)])
def test_resize(cupy: ModuleType, new_shape: tuple[int, int]) -> None:
    spectrum = np.fft.rfft2(_image((300, 320))).astype(np.complex64)
    theirs = resize_spectrum(cupy.asarray(spectrum), (300, 320), new_shape)
    np.testing.assert_allclose(to_numpy(theirs), resize_spectrum(spectrum, (300, 320), new_shape), rtol=1e-5)


def test_repair(cupy: ModuleType) -> None:
    image = _image((300, 317))
    image[10, 10], image[50, 60], image[100:110, 100:105] = 1e6, np.inf, np.nan
    ours, report = repair_pixels(image)
    theirs, their_report = repair_pixels(cupy.asarray(image))
    np.testing.assert_allclose(to_numpy(theirs), ours, rtol=1e-6)
    assert (their_report.bad, their_report.clipped) == (report.bad, report.clipped) == (51, 1)
    assert their_report.std == pytest.approx(report.std, rel=1e-6)


@pytest.mark.parametrize("shape", [(500, 520), (501, 487)])
@pytest.mark.parametrize("merge", [None, Merge(9.0, 3.0)])
@pytest.mark.parametrize("flip_back", [False, True])
def test_the_whole_way(cupy: ModuleType, shape: tuple[int, int], merge: Merge | None, flip_back: bool) -> None:
    image = _image(shape)
    ours = preprocess(image, OPTICS, CTF, RECIPE, keep_spectrum=True)
    theirs = preprocess(cupy.asarray(image), OPTICS, CTF, RECIPE, keep_spectrum=True)
    assert theirs.image.dtype == np.float32
    np.testing.assert_allclose(to_numpy(theirs.image), ours.image, atol=1e-4)
    assert theirs.std == pytest.approx(ours.std, rel=1e-5)
    back = restore(theirs.image, theirs, merge=merge, flip_back=flip_back)
    assert array_module(back) is cupy
    expected = restore(ours.image, ours, merge=merge, flip_back=flip_back)
    np.testing.assert_allclose(to_numpy(back), expected, atol=1e-4 * expected.std())
