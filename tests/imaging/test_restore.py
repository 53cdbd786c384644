"""Restoring against analytic images, and merging against its definition in S2.4."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.restore import Merge, restore

Image = NDArray[Any]

CTF = CTFParameters(14000.0, 12500.0, 25.0, 10.0)
FLIP = Recipe(max_resolution=4.5)
NO_FLIP = Recipe(max_resolution=4.5, phase_flip=False)
SHAPES = [(400, 400), (401, 389), (512, 300)]


def _optics(pixel_size: float) -> Optics:
    return Optics(pixel_size, 300.0, 2.7, 0.1)


def _band_limited(shape: tuple[int, int], pixel_size: float, finest: float) -> Image:
    """Grey level 34 and waves between 90 Å and `finest`, at which all filters pass more than 99.9 %."""
    generator = np.random.default_rng(5)
    y = np.arange(shape[0])[:, None] * pixel_size
    x = np.arange(shape[1])[None, :] * pixel_size
    image = np.full(shape, 34.0)
    for resolution in np.geomspace(90, finest, 12):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        # Whole numbers of waves on each axis: the image must be periodic to be band-limited.
        ky = np.round(shape[0] * pixel_size * np.sin(angle) / resolution) / (shape[0] * pixel_size)
        kx = np.round(shape[1] * pixel_size * np.cos(angle) / resolution) / (shape[1] * pixel_size)
        image += np.cos(2 * np.pi * (ky * y + kx * x) + phase)
    return image.astype(np.float32)


def _noise(shape: tuple[int, int], seed: int = 0) -> Image:
    return (50 + 6 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _frequencies(shape: tuple[int, int], pixel_size: float) -> Image:
    s: Image = np.hypot(np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.rfftfreq(shape[1], pixel_size))
    return s


def _network(prepared: Prepared, blur: float = 8.0, gain: float = 0.2) -> Image:
    """Stand in for a denoiser: pass low frequencies better, with amplitudes far below the noise's."""
    size = prepared.image.shape
    s = np.hypot(np.fft.fftfreq(size[0], prepared.spacing[0])[:, None], np.fft.rfftfreq(size[1], prepared.spacing[1]))
    denoised: Image = np.fft.irfft2(np.fft.rfft2(prepared.image) * gain / (1 + (s * blur) ** 2), s=size)
    return denoised.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("pixel_size", "finest"), [(0.9, 5.8), (1.3, 5.8), (2.2, 5.8), (3.0, 7.8)])
@pytest.mark.parametrize("recipe", [FLIP, NO_FLIP])
def test_identity_network_returns_a_band_limited_image(
    shape: tuple[int, int], pixel_size: float, finest: float, recipe: Recipe
) -> None:
    image = _band_limited(shape, pixel_size, finest)
    prepared = preprocess(image, _optics(pixel_size), CTF, recipe)
    restored = restore(prepared.image, prepared, flip_back=True)
    assert restored.shape == shape
    assert restored.dtype == np.float32
    assert restored.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=1e-4)
    assert restored.std(dtype=np.float64) == pytest.approx(image.std(dtype=np.float64), rel=2e-3)
    np.testing.assert_allclose(restored, image, atol=0.05)


def test_without_flip_back_phases_stay_flipped() -> None:
    image = _band_limited((400, 390), 1.2, 5.8)
    prepared = preprocess(image, _optics(1.2), CTF, FLIP)
    flipped = np.fft.rfft2(image) * np.where(ctf((400, 390), (1.2, 1.2), _optics(1.2), CTF) < 0, -1, 1)
    np.testing.assert_allclose(restore(prepared.image, prepared), np.fft.irfft2(flipped, s=(400, 390)), atol=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_remains_beyond_the_networks_nyquist(shape: tuple[int, int]) -> None:
    prepared = preprocess(_noise(shape), _optics(1.1), CTF, FLIP)
    amplitudes = np.abs(np.fft.rfft2(restore(prepared.image, prepared).astype(np.float64) - prepared.mean))
    s = _frequencies(shape, 1.1)
    assert amplitudes[s > 1 / (2 * max(prepared.spacing))].max() < 1e-4 * amplitudes.max()
    assert amplitudes[(s > 1 / 100) & (s < 0.85 / 4.5)].min() > 0


def test_lowpass_removes_finer_detail() -> None:
    shape = (400, 389)
    prepared = preprocess(_noise(shape), _optics(1.1), CTF, FLIP)
    whole = np.fft.rfft2(restore(prepared.image, prepared).astype(np.float64) - prepared.mean)
    low = np.fft.rfft2(restore(prepared.image, prepared, lowpass=12.0).astype(np.float64) - prepared.mean)
    s, scale = _frequencies(shape, 1.1), np.abs(whole).max()
    np.testing.assert_allclose(low[s < 0.94 / 12], whole[s < 0.94 / 12], atol=1e-5 * scale)
    assert np.abs(low[s > 1.06 / 12]).max() < 1e-5 * scale
    middle = np.abs(s * 12 - 1) < 0.002
    np.testing.assert_allclose(np.abs(low[middle]), np.abs(whole[middle]) / 2, rtol=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip_back", [False, True])
@pytest.mark.parametrize("recipe", [FLIP, NO_FLIP])
def test_merge_is_denoised_below_the_band_and_noisy_above(
    shape: tuple[int, int], flip_back: bool, recipe: Recipe
) -> None:
    pixel_size, merge = 1.1, Merge(resolution=9.0, width=3.0)
    image = _noise(shape)
    prepared = preprocess(image, _optics(pixel_size), CTF, recipe, keep_spectrum=True)
    denoised = _network(prepared)
    merged = np.fft.rfft2(restore(denoised, prepared, merge=merge, flip_back=flip_back).astype(np.float64))
    own = np.fft.rfft2(restore(denoised, prepared, flip_back=flip_back).astype(np.float64))
    noisy = np.fft.rfft2(image.astype(np.float64))
    if recipe.phase_flip and not flip_back:
        noisy *= np.where(ctf(shape, (pixel_size, pixel_size), _optics(pixel_size), CTF) < 0, -1, 1)
    # The amplitudes' scale, by its definition; 1.5 Å either side of 9 Å.
    s = _frequencies(shape, pixel_size)
    start, end = 1 / 10.5, 1 / 7.5
    band = (s > start) & (s < end)
    factor = np.abs(noisy[band]).std() / np.abs(own[band]).std()
    assert factor > 2
    own[0, 0] = noisy[0, 0] / factor
    low = np.clip(0.5 + 0.5 * np.cos(np.pi * np.clip((s - start) / (end - start), 0, 1)), 0, 1)
    expected = factor * own * low + noisy * (1 - low)
    atol = 2e-5 * np.abs(noisy[1:]).max()
    np.testing.assert_allclose(merged[s >= end], noisy[s >= end], atol=atol)
    np.testing.assert_allclose(merged[s <= start], factor * own[s <= start], atol=atol)
    np.testing.assert_allclose(merged, expected, atol=atol)
    assert (factor * np.abs(own[band])).std() == pytest.approx(np.abs(noisy[band]).std(), rel=1e-6)


def test_merging_an_image_with_itself_is_seamless() -> None:
    # With the identity for a network both sides of the seam are the same image, and s must come out as 1.
    spectrum = np.fft.rfft2(_noise((400, 400)))
    spectrum[0, 1:2] = spectrum[[1, -1], 0] = 0  # slower than the high-pass: it would be taken for an ice gradient
    image = np.fft.irfft2(spectrum, (400, 400))
    prepared = preprocess(image, _optics(1.0), CTF, NO_FLIP, keep_spectrum=True)
    merged = np.fft.rfft2(restore(prepared.image, prepared, merge=Merge(9.0, 3.0)))
    noisy, s = np.fft.rfft2(image), _frequencies((400, 400), 1.0)
    kept = s > 1 / 100
    np.testing.assert_allclose(merged[kept], noisy[kept], atol=0.005 * np.abs(noisy[kept]).max())


def test_merging_leaves_what_preprocess_returned_as_it_was() -> None:
    prepared = preprocess(_noise((300, 310)), _optics(1.0), CTF, FLIP, keep_spectrum=True)
    denoised = _network(prepared)
    copies = prepared.spectrum.copy(), prepared.image.copy(), denoised.copy()  # type: ignore[union-attr]
    first = restore(denoised, prepared, merge=Merge(9.0, 3.0))
    assert np.array_equal(prepared.spectrum, copies[0])
    assert np.array_equal(prepared.image, copies[1])
    assert np.array_equal(denoised, copies[2])
    assert np.array_equal(restore(denoised, prepared, merge=Merge(9.0, 3.0)), first)


def test_merging_nothing_keeps_the_noise_above_the_band() -> None:
    image = _noise((300, 310))
    prepared = preprocess(image, _optics(1.0), CTF, NO_FLIP, keep_spectrum=True)
    merged = restore(np.zeros_like(prepared.image), prepared, merge=Merge(9.0, 3.0))
    s = _frequencies((300, 310), 1.0)
    difference = np.abs(np.fft.rfft2(merged) - np.fft.rfft2(image))
    assert difference[s > 1 / 7.5].max() < 1
    assert merged.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=1e-4)


def test_lowpass_after_merging_ends_the_noise_too() -> None:
    prepared = preprocess(_noise((300, 310)), _optics(1.0), CTF, FLIP, keep_spectrum=True)
    merged = restore(_network(prepared), prepared, merge=Merge(9.0, 3.0), lowpass=5.0)
    amplitudes = np.abs(np.fft.rfft2(merged.astype(np.float64) - prepared.mean))
    assert amplitudes[_frequencies((300, 310), 1.0) > 1.06 / 5].max() < 1e-4 * amplitudes.max()


@pytest.mark.parametrize(("resolution", "width"), [(0.0, 1.0), (-5.0, 1.0), (5.0, 0.0), (5.0, 10.0), (np.nan, 1.0)])
def test_invalid_merge_bands_are_rejected(resolution: float, width: float) -> None:
    with pytest.raises(UsageError, match="merge"):
        Merge(resolution, width)


def test_impossible_merges_and_outputs_are_rejected() -> None:
    prepared = preprocess(_noise((300, 310)), _optics(1.0), CTF, FLIP, keep_spectrum=True)
    with pytest.raises(UsageError, match="coarser resolution"):
        restore(prepared.image, prepared, merge=Merge(5.0, 2.0))
    with pytest.raises(UsageError, match="finer resolution"):
        restore(prepared.image, prepared, merge=Merge(1000.0, 2.0))
    with pytest.raises(UsageError, match="keep_spectrum"):
        restore(prepared.image, dataclasses.replace(prepared, spectrum=None), merge=Merge(9.0, 2.0))
    with pytest.raises(UsageError, match="low-pass"):
        restore(prepared.image, prepared, lowpass=0.0)
    with pytest.raises(DataError, match="expected a denoised image"):
        restore(prepared.image[:-1], prepared)
    broken = prepared.image.copy()
    broken[3, 4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        restore(broken, prepared)
