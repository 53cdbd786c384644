"""Pictures, spectra and flags of a micrograph, on images whose content is known."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.report.entries import Curves, Flag, MicrographEntry
from n2n_deploy.report.flags import (
    BLANK_OUTPUT,
    CTF_MISMATCH,
    FLAT_SPECTRUM,
    NO_CONTRAST,
    POWER_OUTLIER,
    SNR_OUTLIER,
    area_without_contrast,
    outlier_flags,
)
from n2n_deploy.report.thumbnails import picture_limit
from n2n_deploy.report.views import view
from n2n_deploy.statistics.spectra import ctf_zeros, fit_thon_rings, frequencies, power

OPTICS = Optics(0.66, 300.0, 2.7, 0.1)
SPACING = (2.25, 2.25)
RINGS_SNR = 0.5


def micrograph(shape=(512, 480), defocus=12000.0, seed=0, spacing=SPACING) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a phase-flipped micrograph with Thon rings, mean 0 and standard deviation 1, and its signal."""
    rng = np.random.default_rng(seed)
    transfer = np.abs(ctf(shape, spacing, OPTICS, CTFParameters(defocus, defocus)))
    y, x = np.fft.fftfreq(shape[0], spacing[0])[:, None], np.fft.rfftfreq(shape[1], spacing[1])
    falloff = np.exp(-15 * np.hypot(y, x))
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * transfer * falloff, shape)
    noise = np.sqrt(signal.var() / RINGS_SNR) * rng.standard_normal(shape)
    scale = (signal + noise).std()
    return ((signal + noise) / scale).astype(np.float32), (signal / scale).astype(np.float32)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(float)


@pytest.mark.parametrize("shape", [(512, 480), (481, 513)])
def test_the_power_of_white_noise_is_its_variance_in_every_ring(shape):
    noise = 3 * np.random.default_rng(0).standard_normal(shape)
    spectrum = power(np.fft.rfft2(noise), shape, SPACING)
    assert spectrum[20:].mean() == pytest.approx(9, rel=0.02)
    assert np.abs(spectrum[20:] / 9 - 1).max() < 0.5


@pytest.mark.parametrize("phase_shift", [0.0, 75.0])
@pytest.mark.parametrize("defocus", [8000.0, 25000.0, -6000.0])
def test_the_ctf_changes_sign_at_its_zeros_and_nowhere_else(defocus, phase_shift):
    parameters = CTFParameters(defocus, defocus, phase_shift=phase_shift)
    zeros = ctf_zeros(OPTICS, parameters, 0.2)
    n = 20001
    line = ctf((1, n), (1.0, 1.0), OPTICS, parameters)[0]
    s = np.fft.rfftfreq(n, 1.0)
    line, s = line[s <= 0.2], s[s <= 0.2]
    changes = np.flatnonzero(np.diff(np.sign(line)) != 0)
    assert len(zeros) == len(changes)
    np.testing.assert_allclose(zeros, (s[changes] + s[changes + 1]) / 2, atol=s[1])


def test_thon_rings_tell_a_wrong_pixel_size_and_defocus():
    noisy, _ = micrograph((768, 768))
    given = CTFParameters(12000.0, 12000.0)
    spectrum = power(np.fft.rfft2(noisy), noisy.shape, SPACING)
    frequency = frequencies(noisy.shape, SPACING)
    right = fit_thon_rings(frequency, spectrum, OPTICS, given)
    assert right.given > 0.6
    assert right.scale == pytest.approx(1.0, abs=0.011)
    assumed_too_large = fit_thon_rings(frequency / 1.12, spectrum, OPTICS, given)
    assert assumed_too_large.given < 0.2
    assert assumed_too_large.best > 0.6
    assert assumed_too_large.scale == pytest.approx(1.12, abs=0.011)
    # γ is nearly π λ Δz s²: half the defocus is the same as 1/√2 of the frequency.
    wrong_defocus = fit_thon_rings(frequency, spectrum, OPTICS, CTFParameters(16000.0, 16000.0))
    assert wrong_defocus.scale == pytest.approx(np.sqrt(12000 / 16000), abs=0.011)


def test_without_defocus_there_are_no_thon_rings_to_fit():
    noisy, _ = micrograph((256, 256))
    spectrum = power(np.fft.rfft2(noisy), noisy.shape, SPACING)
    assert fit_thon_rings(frequencies(noisy.shape, SPACING), spectrum, OPTICS, CTFParameters(0.0, 0.0)) is None


def test_noise_has_no_thon_rings():
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((512, 512))
        spectrum = power(np.fft.rfft2(noise), noise.shape, SPACING)
        assert (
            fit_thon_rings(frequencies(noise.shape, SPACING), spectrum, OPTICS, CTFParameters(12000, 12000)).best < 0.4
        )


def test_a_good_micrograph_has_no_flag_and_each_trouble_has_its_own():
    noisy, signal = micrograph()
    given = CTFParameters(12000.0, 12000.0)

    def kinds(image: np.ndarray, denoised: np.ndarray = signal, spacing: tuple[float, float] = SPACING) -> list[str]:
        return [flag.kind for flag in view(image, denoised, spacing, OPTICS, given).flags]

    assert kinds(noisy) == []
    assert kinds(noisy, 0.01 * signal) == [BLANK_OUTPUT]
    assert CTF_MISMATCH in kinds(noisy, spacing=(2.55, 2.55))
    black = noisy * (np.arange(noisy.shape[1]) > 200)
    assert kinds(black) == [NO_CONTRAST]
    assert area_without_contrast(black) == pytest.approx(200 / 480, abs=0.05)
    noise = np.random.default_rng(1).standard_normal(noisy.shape).astype(np.float32)
    assert kinds(noise) == [FLAT_SPECTRUM]


def test_pictures_show_the_images_and_what_was_taken_away():
    noisy, _ = micrograph((960, 720), seed=3)
    disc = np.hypot(*(np.indices(noisy.shape) - np.array([300, 500])[:, None, None])) < 60
    noisy = noisy - 2.0 * disc.astype(np.float32)
    blind = gaussian_filter(noisy, 3) + 2.0 * disc.astype(np.float32)  # a "network" that took the disc away
    drawn = view(noisy, blind, SPACING, OPTICS, None, limit=120_000).pictures
    small = opened(drawn["noisy"])
    assert small.shape[0] / small.shape[1] == pytest.approx(960 / 720, rel=0.02)
    # The two ways of shrinking place pixels a fraction apart, which blurring makes little of.
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
def test_pictures_keep_within_their_bytes(limit):
    noise = np.random.default_rng(5).standard_normal((1100, 1408)).astype(np.float32)
    drawn = view(noise, noise, SPACING, OPTICS, None, limit).pictures
    assert 0.4 * limit < sum(map(len, drawn.values())) <= limit
    assert set(drawn) >= {"noisy", "denoised", "residual"}


def test_the_pictures_of_thousands_are_small_and_of_few_are_large():
    assert 4000 * picture_limit(4000) <= 60_000_000
    assert picture_limit(3) > 100_000


def test_a_micrograph_that_stands_out_is_flagged():
    rng = np.random.default_rng(6)
    snr: list[float | None] = list(0.07 * np.exp(rng.normal(0, 0.1, 40)))
    snr[11], snr[12] = 0.5, None
    kept: list[float | None] = [0.01] * 40
    found = outlier_flags(snr, kept)
    assert {index: [flag.kind for flag in flags] for index, flags in found.items()} == {11: [SNR_OUTLIER]}
    assert "SNR is 0.5" in found[11][0].text
    kept[7] = kept[11] = 0.3
    kinds = {index: [flag.kind for flag in flags] for index, flags in outlier_flags(snr, kept).items()}
    assert kinds == {7: [POWER_OUTLIER], 11: [SNR_OUTLIER, POWER_OUTLIER]}
    assert "power kept (%) is 0.3" in outlier_flags(snr, kept)[7][0].text
    assert not outlier_flags(snr[8:14], kept[8:14]), "six are too few to say what is ordinary"


def test_an_entry_survives_json():
    noisy, signal = micrograph((128, 128))
    views = view(noisy, signal, SPACING, OPTICS, CTFParameters(12000, 11000), 20_000)
    curve = Curves(np.array([0.1, 0.2]), np.array([1.0, np.nan]), np.array([2.0, np.inf]))
    entry = MicrographEntry(
        "a.mrc", "denoised", seconds=1.5, snr=(0.1, 2.0), flags=(Flag("x", "y"),), notes=("n",), views=views, ssnr=curve
    )
    again = MicrographEntry.from_json(entry.as_json())
    assert again.views.pictures == views.pictures
    assert (again.name, again.snr, again.flags, again.notes) == (entry.name, entry.snr, entry.flags, entry.notes)
    np.testing.assert_allclose(again.views.spectra.noisy, views.spectra.noisy, rtol=1e-3)
    np.testing.assert_allclose(again.views.spectra.zeros, views.spectra.zeros, rtol=1e-3)
    assert np.isnan(again.ssnr.noisy[1])
