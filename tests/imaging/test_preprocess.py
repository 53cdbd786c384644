"""Preprocessing against independent Fourier arithmetic and the physics of phase flipping."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.host import HOST
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import restore

Image = NDArray[Any]

OPTICS = Optics(1.2, 300.0, 2.7, 0.1)
CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
FLIP = Recipe(max_resolution=4.5)
NO_FLIP = Recipe(max_resolution=4.5, phase_flip=False)


def _noise(shape: tuple[int, int], seed: int = 0) -> Image:
    return (50 + 6 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(512, 512), (511, 400), (433, 509)])
@pytest.mark.parametrize("pixel_size", [1.2, 2.25, 3.0])
def test_input_is_normalised_and_sized_for_the_network(shape: tuple[int, int], pixel_size: float) -> None:
    prepared = preprocess(_noise(shape), Optics(pixel_size, 300.0, 2.7, 0.1), CTF, FLIP)
    assert prepared.image.dtype == np.float32
    assert all(side % 8 == 0 for side in prepared.image.shape)
    assert prepared.image.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert prepared.image.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    assert prepared.mean == pytest.approx(_noise(shape).mean(dtype=np.float64), rel=1e-9)
    assert prepared.resolution == max(4.5, 2 * pixel_size)
    assert prepared.spectrum is None


@pytest.mark.parametrize("shape", [(512, 512), (511, 400)])
def test_std_is_that_of_the_band(shape: tuple[int, int]) -> None:
    # Parseval: of white noise, what the two Butterworth filters let through of all frequencies.
    image = _noise(shape)
    prepared = preprocess(image, OPTICS, None, NO_FLIP)
    s = np.hypot(np.fft.fftfreq(shape[0], 1.2)[:, None], np.fft.fftfreq(shape[1], 1.2)[None])
    inside = np.maximum(*np.broadcast_arrays(*np.ogrid[: shape[0], : shape[1]])) >= 0
    for axis, (n, size) in enumerate(zip(shape, prepared.image.shape, strict=True)):
        k = np.abs(np.fft.fftfreq(n) * n)
        inside &= (k < size / 2)[:, None] if axis == 0 else (k < size / 2)[None]
    with np.errstate(divide="ignore"):
        band = 1 / np.sqrt((1 + (1 / (200 * s)) ** 8) * (1 + (4.5 * s) ** 32))
    power = np.abs(np.fft.fft2(image.astype(np.float64))) ** 2
    truth = np.sqrt((power * band**2 * inside).sum()) / image.size
    # The components at the crop's ±Nyquist are a row and a column of hundreds, at half power.
    assert prepared.std == pytest.approx(truth, rel=3e-3)


def test_phase_flip_makes_the_image_of_an_object_positive_again() -> None:
    # A weak phase object through a CTF: its components carry the CTF's signs, and after flipping none.
    generator = np.random.default_rng(2)
    shape = (400, 380)
    field = np.fft.rfft2(generator.standard_normal(shape))
    field[0, :3] = field[:3, 0] = field[-2:, 0] = 0  # it has no ice gradient
    image = 20 + np.fft.irfft2(field * ctf(shape, (1.2, 1.2), OPTICS, CTF), s=shape)
    truth = 20 + np.fft.irfft2(field * np.abs(ctf(shape, (1.2, 1.2), OPTICS, CTF)), s=shape)
    flipped, unflipped, raw = (
        np.fft.rfft2(prepared.image * prepared.std)
        for prepared in (
            preprocess(image, OPTICS, CTF, FLIP),
            preprocess(truth, OPTICS, None, NO_FLIP),
            preprocess(image, OPTICS, None, NO_FLIP),
        )
    )
    # At the crop's Nyquist frequency components of both signs were added up before.
    inside = np.s_[np.arange(flipped.shape[0]) != flipped.shape[0] // 2, : flipped.shape[1] - 1]
    scale = np.abs(unflipped).max()
    np.testing.assert_allclose(flipped[inside], unflipped[inside], atol=1e-5 * scale)
    assert np.abs(raw[inside] - unflipped[inside]).max() > 0.1 * scale


def test_kept_spectrum_is_that_of_the_raw_image() -> None:
    image = _noise((301, 420))
    spectrum = preprocess(image, OPTICS, CTF, FLIP, keep_spectrum=True).spectrum
    truth = np.fft.rfft2(image.astype(np.float64) - image.mean(dtype=np.float64))
    assert spectrum is not None
    assert spectrum.dtype == np.complex64
    np.testing.assert_allclose(spectrum, truth, atol=1e-5 * np.abs(truth).max())


def test_keeping_the_spectrum_changes_nothing_else() -> None:
    image = _noise((301, 420))
    with_it = preprocess(image, OPTICS, CTF, FLIP, keep_spectrum=True)
    without = preprocess(image, OPTICS, CTF, FLIP)
    np.testing.assert_allclose(with_it.image, without.image, atol=1e-5)


def test_a_grey_level_of_tens_of_thousands_costs_no_precision() -> None:
    image = _noise((512, 512)).astype(np.float64)
    low, high = (preprocess(image + level, OPTICS, None, NO_FLIP).image for level in (0, 2**15))
    # float32 pixels near 2¹⁵ are multiples of 2⁻⁸; the transform must not add to that rounding.
    assert np.abs(low - high).max() < 5e-3


def test_input_image_is_not_changed() -> None:
    image = _noise((256, 256))
    before = image.copy()
    preprocess(image, OPTICS, CTF, FLIP, keep_spectrum=True)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("optics", "parameters", "words"),
    [
        (OPTICS, None, "no CTF.*phase_flip off"),
        (Optics(1.2, None, 2.7, 0.1), CTF, "voltage.*phase_flip off"),
        (Optics(0.0, 300.0, 2.7, 0.1), CTF, "pixel size"),
        (Optics(0.1, 300.0, 2.7, 0.1), CTF, "too small"),
    ],
)
def test_missing_ctf_values_are_named(optics: Optics, parameters: CTFParameters | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        preprocess(_noise((256, 256)), optics, parameters, FLIP)


def test_an_image_without_signal_in_the_band_is_rejected() -> None:
    # One wave of 2.5 Å, finer than max_resolution.
    image = np.cos(2 * np.pi * np.arange(510) / 2.5) * np.ones((512, 1))
    with pytest.raises(DataError, match="no signal between"):
        preprocess(image, Optics(1.0), None, Recipe(max_resolution=10.0, phase_flip=False))


def test_many_threads_and_shapes_give_what_one_thread_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    # A cache too small for all, so that entries come and go all the time.
    monkeypatch.setattr(HOST.grids, "limit", 200_000)
    shapes = [(256, 256), (255, 300), (300, 255), (128, 512)]
    images = [_noise(shape, seed) for seed, shape in enumerate(shapes)]

    def one(index: int) -> tuple[Prepared, Image]:
        prepared = preprocess(images[index % 4], Optics(1.0 + index % 4 / 10, 300.0, 2.7, 0.1), CTF, FLIP)
        return prepared, restore(prepared.image, prepared)

    alone = [one(index) for index in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for index, (prepared, restored) in enumerate(pool.map(one, range(64))):
            assert np.array_equal(prepared.image, alone[index % 4][0].image)
            assert np.array_equal(restored, alone[index % 4][1])
