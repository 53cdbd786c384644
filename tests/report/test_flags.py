"""Flags: a good micrograph has none, and each defect has its own."""

import numpy as np
import pytest
from simulated_images import OPTICS, SPACING, image_with_thon_rings

from n2n_deploy.imaging.ctf import CTFParameters
from n2n_deploy.report.flags import (
    BLANK_OUTPUT,
    CTF_MISMATCH,
    FLAT_SPECTRUM,
    IDENTICAL_HALVES,
    NO_CONTRAST,
    NO_SIGNAL,
    POWER_OUTLIER,
    SNR_OUTLIER,
    area_without_contrast,
    identical_halves_flag,
    no_signal_flag,
    outlier_flags,
    shared_noise_flag,
)
from n2n_deploy.report.views import view
from n2n_deploy.statistics.estimates import covariances
from n2n_deploy.statistics.shared_noise import SharedNoise


def test_good_micrograph_has_no_flag_and_each_defect_has_its_own():
    noisy, signal = image_with_thon_rings()
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


def test_outliers_of_snr_and_of_power_kept_are_flagged_separately():
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
    assert not outlier_flags(snr[8:14], kept[8:14]), "six micrographs are too few to define outliers"


def test_shared_noise_is_flagged_if_large_and_significant() -> None:
    assert shared_noise_flag(SharedNoise(0.009, 0.0001, "")) is None
    assert shared_noise_flag(SharedNoise(0.2, 0.05, "")) is None
    flag = shared_noise_flag(SharedNoise(0.05, 0.001, "beyond 3 Å"))
    assert flag is not None
    assert "5.0% (± 0.1%) of their power beyond 3 Å" in flag.text


def test_halves_are_flagged_by_their_correlation():
    rng = np.random.default_rng(3)
    signal, first, second = rng.standard_normal((3, 200, 200))
    for even, odd, no_signal, identical in (
        (first, second, True, False),
        (signal + 3 * first, signal + 3 * second, False, False),
        (first, first + 0.05 * second, False, True),
    ):
        image = covariances(even, odd, even, odd)
        flag = no_signal_flag(image, signal.size)
        assert (flag is not None) == no_signal
        assert flag is None or flag.kind == NO_SIGNAL
        flag = identical_halves_flag(image)
        assert (flag is not None) == identical
        assert flag is None or flag.kind == IDENTICAL_HALVES
