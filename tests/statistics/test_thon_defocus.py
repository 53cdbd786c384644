"""The defocus from Thon rings alone against the defocus that an image was made with."""

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy import data
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.statistics.thon_defocus import find_defocus

SHAPE = (1200, 1280)
OPTICS = Optics(1.0, 300.0, 2.7, 0.1)


def image(parameters: CTFParameters, strength: float) -> NDArray[np.float64]:
    """White noise, and structure of this amplitude spectrum over that of the noise, at low frequencies."""
    rng = np.random.default_rng(5)
    transfer = ctf(SHAPE, (1.0, 1.0), OPTICS, parameters) * np.exp(-30 * frequencies(SHAPE, (1.0, 1.0)) ** 2)
    structure = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * transfer, s=SHAPE)
    return np.asarray(rng.standard_normal(SHAPE) + strength * structure)


def found(image: NDArray[np.floating], optics: Optics) -> CTFParameters | None:
    return find_defocus(np.abs(np.fft.rfft2(image - image.mean())) ** 2, (image.shape[0], image.shape[1]), optics)


@pytest.mark.parametrize(
    "true",
    [CTFParameters(9000.0, 8600.0, 70.0), CTFParameters(25600.0, 24400.0, -30.0), CTFParameters(15000.0, 15000.0)],
)
def test_the_defocus_is_found(true: CTFParameters) -> None:
    fit = found(image(true, 0.7), OPTICS)
    assert fit is not None
    # At 5 Å, 100 Å of defocus shift the phase by a quarter of a radian.
    assert fit.mean_defocus == pytest.approx(true.mean_defocus, abs=100)
    for angle in np.radians([0.0, 45.0, 90.0, 135.0]):
        along = [
            each.mean_defocus
            + (each.defocus_u - each.defocus_v) / 2 * np.cos(2 * (angle - np.radians(each.defocus_angle)))
            for each in (fit, true)
        ]
        assert along[0] == pytest.approx(along[1], abs=200)


def test_without_optics_the_rings_are_found_all_the_same() -> None:
    """At 300 kV; the usual optics are assumed."""
    fit = found(image(CTFParameters(12000.0, 12000.0), 0.7), Optics(1.0))
    assert fit is not None
    assert fit.mean_defocus == pytest.approx(12000, abs=100)


def test_the_real_micrographs_defocus_is_that_of_its_ctf_fit() -> None:
    fit = found(data.micrograph_counts().astype(np.float32), data.OPTICS)
    assert fit is not None
    assert fit.mean_defocus == pytest.approx(data.CTF.mean_defocus, abs=100)


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_where_there_are_no_rings_nothing_is_found(strength: float) -> None:
    assert found(image(CTFParameters(15000.0, 15000.0), strength), OPTICS) is None
