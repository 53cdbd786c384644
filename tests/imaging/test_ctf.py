"""The CTF against RELION's and torch-ctf's, and phase flipping."""

import math
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf, flip_phases, wavelength
from tests.support.ctf_sign import ctf_sign

SETTINGS = [
    # pixel size, kV, Cs, amplitude contrast, U, V, angle, phase shift
    (1.0, 300.0, 2.7, 0.1, 15000.0, 15000.0, 0.0, 0.0),
    (1.3, 300.0, 2.7, 0.1, 15000.0, 14000.0, 30.0, 40.0),
    (0.66, 300.0, 2.7, 0.07, 9000.0, 8200.0, 71.0, 0.0),
    (1.7, 200.0, 2.0, 0.1, 21000.0, 23500.0, -38.0, 0.0),
    (2.1, 120.0, 6.3, 0.14, 32000.0, 29000.0, 155.0, 0.0),
    (1.05, 300.0, 0.01, 0.1, 5000.0, 4700.0, 12.0, 90.0),
    (0.85, 300.0, 2.7, 0.0, 12000.0, 11000.0, 90.0, 120.0),
    (1.4, 200.0, 1.4, 0.2, 800.0, 300.0, 45.0, 65.0),
    (1.2, 300.0, 2.7, 0.1, 30000.0, 26000.0, 20.0, 0.0),
]

# RELION's program takes a negative defocus for "not given".
OVERFOCUS = (1.2, 300.0, 2.7, 0.1, -4000.0, -5000.0, 20.0, 0.0)


def _our_types(setting: tuple[float, ...]) -> tuple[Optics, CTFParameters]:
    pixel_size, kv, cs, contrast, u, v, angle, phase = setting
    return Optics(pixel_size, kv, cs, contrast), CTFParameters(u, v, angle, phase)


@pytest.mark.parametrize("box", [200, 201])
@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_relion(relion: Callable[..., str], tmp_path: Path, setting: tuple[float, ...], box: int) -> None:
    names = ("angpix", "kV", "Cs", "Q0", "defU", "defV", "defAng", "phase_shift")
    arguments = [text for name, value in zip(names, setting, strict=True) for text in (f"--{name}", value)]
    relion("relion_ctf_toolbox", "--simulate", tmp_path / "ctf.mrc", "--box", box, *arguments)
    with mrcfile.open(tmp_path / "ctf.mrc") as file:
        theirs = np.fft.ifftshift(np.asarray(file.data))
    # Of an even box RELION writes −Nyquist where an rfft has +Nyquist, which differs for an astigmatic CTF.
    columns = (box + 1) // 2
    optics, parameters = _our_types(setting)
    ours = ctf((box, box), (setting[0], setting[0]), optics, parameters)
    assert ours.shape == (box, box // 2 + 1)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[:, :columns], theirs[:, :columns], atol=1e-3)
    signs = ctf_sign((box, box), (setting[0], setting[0]), optics, parameters)[:, :columns]
    clear = np.abs(theirs[:, :columns]) > 1e-4
    assert clear.mean() > 0.99
    assert (signs[clear] == np.sign(theirs[:, :columns])[clear]).all()


@pytest.mark.parametrize("shape", [(128, 96), (127, 128), (101, 75)])
@pytest.mark.parametrize("setting", [*SETTINGS, OVERFOCUS])
def test_equals_torch_ctf_on_any_shape(setting: tuple[float, ...], shape: tuple[int, int]) -> None:
    torch_ctf = pytest.importorskip("torch_ctf")
    pixel_size, kv, cs, contrast, u, v, angle, phase = setting
    theirs = torch_ctf.calculate_ctf_2d(
        defocus=(u + v) / 2e4,
        # It takes no negative astigmatism, but the same with the axes exchanged.
        astigmatism=abs(u - v) / 2e4,
        astigmatism_angle=angle if u >= v else angle + 90.0,
        voltage=kv,
        spherical_aberration=cs,
        amplitude_contrast=contrast,
        phase_shift=phase,
        pixel_size=pixel_size,
        image_shape=shape,
        rfft=True,
        fftshift=False,
    ).numpy()
    # In the Nyquist column of an even width theirs is not that of a real filter where y < 0.
    columns = (shape[1] + 1) // 2
    ours = ctf(shape, (pixel_size, pixel_size), *_our_types(setting))
    rows = (shape[0] + 1) // 2
    np.testing.assert_allclose(ours[:rows], theirs[:rows], atol=1e-2)
    # It rounds frequencies to float32 and has its own constants, which shows where γ is many turns.
    np.testing.assert_allclose(ours[:, :columns], theirs[:, :columns], atol=1e-2)


@pytest.mark.parametrize(("kv", "expected"), [(100.0, 0.037014), (200.0, 0.025079), (300.0, 0.019687)])
def test_wavelength_as_tabulated(kv: float, expected: float) -> None:
    assert wavelength(kv) == pytest.approx(expected, rel=1e-4)


def test_spacing_may_differ_along_the_axes() -> None:
    optics, parameters = _our_types(SETTINGS[1])
    # The same field of view in both: cropping the finer grid's frequencies must give the coarser grid's CTF.
    fine = ctf((120, 160), (1.0, 1.0), optics, parameters)
    coarse = ctf((80, 96), (120 / 80, 160 / 96), optics, parameters)
    np.testing.assert_allclose(coarse[:40, :48], fine[:40, :48], atol=1e-5)
    np.testing.assert_allclose(coarse[-39:, :48], fine[-39:, :48], atol=1e-5)


def test_sign_of_zero_is_positive() -> None:
    # No amplitude contrast and no phase shift: γ is exactly 0 at the origin.
    signs = ctf_sign((32, 32), (1.0, 1.0), Optics(1.0, 300.0, 2.7, 0.0), CTFParameters(1e4, 1e4))
    assert signs[0, 0] == 1


def test_signs_are_right_where_gamma_is_hundreds_of_radians() -> None:
    optics, parameters = Optics(0.5, 300.0, 2.7, 0.1), CTFParameters(60000.0, 55000.0, 33.0, 20.0)
    shape, spacing = (2048, 63), (0.5, 0.5)
    signs = ctf_sign(shape, spacing, optics, parameters)
    y = np.fft.fftfreq(shape[0], spacing[0]).astype(np.longdouble)[:, None]
    x = np.fft.rfftfreq(shape[1], spacing[1]).astype(np.longdouble)[None, :]
    squared, theta = x * x + y * y, np.arctan2(y, x) - np.deg2rad(np.longdouble(33))
    length = np.longdouble(wavelength(300.0))
    defocus = 57500 + 2500 * np.cos(2 * theta)
    gamma = np.pi * length * squared * (defocus - 0.5 * 2.7e7 * length**2 * squared)
    gamma += np.deg2rad(np.longdouble(20)) + np.arcsin(np.longdouble(0.1))
    assert np.abs(gamma).max() > 500
    truth = np.sin(gamma)
    clear = np.abs(truth) > 1e-9
    assert (signs[clear] == np.sign(truth[clear])).all()


@pytest.mark.parametrize("shape", [(90, 64), (91, 64), (90, 65)])
@pytest.mark.parametrize("setting", SETTINGS)
def test_flipped_images_are_real_images(setting: tuple[float, ...], shape: tuple[int, int]) -> None:
    # By way of real space, where what is not the spectrum of a real image is lost: Nyquist columns above all.
    optics, parameters = _our_types(setting)
    spacing = (setting[0], setting[0])
    spectrum = np.fft.rfft2(np.random.default_rng(4).standard_normal(shape))
    spectrum *= ctf_sign(shape, spacing, optics, parameters)
    again = np.fft.rfft2(np.fft.irfft2(spectrum, s=shape))
    np.testing.assert_allclose(again, spectrum, atol=1e-9)


def test_flipping_twice_restores_the_spectrum() -> None:
    optics, parameters = _our_types(SETTINGS[3])
    generator = np.random.default_rng(3)
    spectrum = generator.standard_normal((90, 46)) + 1j * generator.standard_normal((90, 46))
    spectrum = spectrum.astype(np.complex64)
    flipped = spectrum.copy()
    flip_phases(flipped, (90, 90), (1.7, 1.7), optics, parameters)
    assert flipped.dtype == np.complex64
    truth = spectrum * np.where(ctf((90, 90), (1.7, 1.7), optics, parameters) < 0, -1, 1)
    assert np.array_equal(flipped, truth)
    flip_phases(flipped, (90, 90), (1.7, 1.7), optics, parameters)
    assert np.array_equal(flipped, spectrum)


@pytest.mark.parametrize(
    ("optics", "words"),
    [
        (Optics(1.0, None, 2.7, 0.1), "voltage"),
        (Optics(1.0, 300.0, None, 0.1), "spherical aberration"),
        (Optics(1.0, 300.0, 2.7, None), "amplitude contrast"),
        (Optics(1.0, 0.0, 2.7, 0.1), "voltage above 0"),
        (Optics(1.0, 300.0, 2.7, 7.0), "amplitude contrast of 0 to 1"),
        (Optics(1.0, 300.0, math.nan, 0.1), "finite"),
    ],
)
def test_missing_or_wrong_optics_are_named(optics: Optics, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ctf((64, 64), (1.0, 1.0), optics, CTFParameters(1e4, 1e4))
