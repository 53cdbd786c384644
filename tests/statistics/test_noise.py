"""Noise spectra from single exposures against what the noise was made with, and against counting statistics."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_deploy import data
from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.imaging.rings import ring_frequencies, ring_means
from n2n_deploy.statistics.noise import count_level, estimate_noise

SHAPE = (1536, 1440)
OPTICS = Optics(1.0, 300.0, 2.7, 0.1)
CTF = CTFParameters(15000.0, 14600.0, 20.0)
HIGHPASS, RESOLUTION = 200.0, 4.5

Image = NDArray[np.float64]
Noise = tuple[Image, Image]
"""A noise image and its expected power on the rfft grid."""


def axes() -> tuple[Image, Image]:
    return np.abs(np.fft.fftfreq(SHAPE[0]))[:, None], np.fft.rfftfreq(SHAPE[1])[None, :]


def coloured(rng: np.random.Generator, power: Image) -> Image:
    white = np.fft.rfft2(rng.standard_normal(SHAPE))
    return np.asarray(np.fft.irfft2(white * np.sqrt(power), s=SHAPE))


def white(rng: np.random.Generator) -> Noise:
    return rng.normal(scale=3, size=SHAPE), np.full((SHAPE[0], SHAPE[1] // 2 + 1), 9.0)


def integrating(rng: np.random.Generator) -> Noise:
    """A Gaussian noise transfer over a floor, as of an integrating detector."""
    fy, fx = axes()
    power = 4 + 5 * np.exp(-(fy**2 + fx**2) / 0.35**2)
    return coloured(rng, power), power


def coincidence_loss(rng: np.random.Generator) -> Noise:
    fy, fx = axes()
    power = 9 * (1 - 0.1 * np.exp(-(fy**2 + fx**2) / 0.2**2))
    return coloured(rng, power), power


def dose_weighted(rng: np.random.Generator) -> Noise:
    """Frames weighted by Grant & Grigorieff's critical dose and divided by √Σw²: flat, whatever the weights are."""
    s = np.maximum(frequencies(SHAPE, (1.0, 1.0)), 1e-4).astype(np.float64)
    weights = [np.exp(-dose / 2 / (0.245 * s**-1.665 + 2.81)) for dose in (5.0, 15.0, 25.0, 35.0)]
    total = sum(weight * np.fft.rfft2(rng.normal(scale=3, size=SHAPE)) for weight in weights)
    image = np.fft.irfft2(total / np.sqrt(sum(weight**2 for weight in weights)), s=SHAPE)
    return image, np.full((SHAPE[0], SHAPE[1] // 2 + 1), 9.0)


def interpolated(rng: np.random.Generator) -> Noise:
    """The sum of eight frames, each shifted by linear interpolation."""
    fy, fx = axes()
    image, power = np.zeros(SHAPE), np.zeros((SHAPE[0], SHAPE[1] // 2 + 1))
    for ty, tx in rng.random((8, 2)):
        frame = rng.standard_normal(SHAPE)
        frame = (1 - ty) * frame + ty * np.roll(frame, 1, 0)
        image += (1 - tx) * frame + tx * np.roll(frame, 1, 1)
        power += (1 - 4 * ty * (1 - ty) * np.sin(np.pi * fy) ** 2) * (1 - 4 * tx * (1 - tx) * np.sin(np.pi * fx) ** 2)
    return image, power


def summed_pixels(rng: np.random.Generator) -> Noise:
    """Super-resolution pixels whose noise is correlated by their detector, Fourier-cropped by half."""
    fy, fx = axes()
    power = 9 * np.sinc(fy / 2) ** 2 * np.sinc(fx / 2) ** 2
    return coloured(rng, power), power


def quantised(rng: np.random.Generator) -> Noise:
    """White noise written as float16, at a grey level where its steps are a quarter of the noise."""
    image = (300 + rng.normal(scale=1, size=SHAPE)).astype(np.float16).astype(np.float64)
    # Rounding to steps of 1/4 adds their variance divided by 12 (Sheppard).
    return image, np.full((SHAPE[0], SHAPE[1] // 2 + 1), 1 + 0.25**2 / 12)


def specimen(rng: np.random.Generator, strength: float, b_factor: float = 80.0) -> Image:
    """Structure with Thon rings, and ice that gets thicker, both far above the noise at low frequencies."""
    s = frequencies(SHAPE, (1.0, 1.0)).astype(np.float64)
    envelope = ctf(SHAPE, (1.0, 1.0), OPTICS, CTF) * np.exp(-b_factor / 4 * s**2)
    envelope *= strength * (1 + 20 * np.exp(-((s * 40) ** 2)))
    gradient = np.linspace(-2, 2, SHAPE[1])[None, :] * np.ones((SHAPE[0], 1))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * envelope, s=SHAPE) + gradient)


MAKERS = (white, integrating, coincidence_loss, dose_weighted, interpolated, summed_pixels, quantised)


@pytest.mark.parametrize("known", [True, False], ids=["CTF known", "CTF unknown"])
@pytest.mark.parametrize("make", MAKERS)
def test_spectra_are_within_3_percent_of_the_truth_on_every_ring(make: Callable[..., Noise], known: bool) -> None:
    """Without CTF and optics, the Thon rings of the image tell where the gaps between them are."""
    rng = np.random.default_rng(3)
    noise, truth = make(rng)
    image = noise + specimen(rng, 0.7 * float(np.sqrt(truth.mean())))
    optics = OPTICS if known else Optics(OPTICS.pixel_size)
    model = estimate_noise(
        image.astype(np.float32), optics, CTF if known else None, highpass=HIGHPASS, resolution=RESOLUTION
    )
    found, expected = (ring_means(power, SHAPE) for power in (model.power(*axes()), truth))
    ring = ring_frequencies(SHAPE)
    band = (ring > 1 / HIGHPASS) & (ring < 1 / RESOLUTION)
    np.testing.assert_allclose(found[band], expected[band], rtol=0.03)


def test_the_real_micrographs_spectrum_is_that_of_counting_statistics() -> None:
    """As grey values, so that it is not known to be counts; its even half tells the noise of a half."""
    counts = data.micrograph_counts()
    level = float(counts.mean())
    gain = 0.1
    model = estimate_noise((counts * gain).astype(np.float32), Optics(0.854), highpass=200, resolution=8)
    f = np.linspace(0.854 / 200, 0.854 / 8, 20)
    found = model.power(np.zeros(1), f)
    np.testing.assert_allclose(found, level * gain**2, rtol=0.03)
    assert count_level(counts.astype(np.float32)) == pytest.approx(level)
    assert count_level((counts * gain).astype(np.float32)) is None
    assert count_level((2 * counts).astype(np.float32)) is None


def test_the_stated_error_covers_the_scatter() -> None:
    fy, fx = np.array([0.05]), np.array([0.05])
    found, stated = [], []
    for seed in range(6):
        noise, truth = interpolated(np.random.default_rng(seed))
        model = estimate_noise(noise.astype(np.float32), Optics(1.0), highpass=HIGHPASS, resolution=RESOLUTION)
        near = truth[int(0.05 * SHAPE[0]), int(0.05 * SHAPE[1])]
        found.append(float(model.power(fy, fx)[0] / near - 1))
        stated.append(float(model.error(fy, fx)[0]))
    assert np.sqrt(np.mean(np.square(found))) < 2 * np.mean(stated)
    assert max(stated) < 0.05


def filtered(image: Image) -> Image:
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image) * (np.hypot(*axes()) < 0.3), s=SHAPE))


def upsampled(image: Image) -> Image:
    spectrum = np.fft.rfft2(image)
    fy, fx = axes()
    return np.asarray(np.fft.irfft2(spectrum * ((fy < 0.25) & (fx < 0.25)), s=SHAPE))


@pytest.mark.parametrize("spoil", [filtered, upsampled])
def test_what_hides_the_noise_is_refused_with_a_remedy(spoil: Callable[[Image], Image]) -> None:
    image = spoil(white(np.random.default_rng(0))[0])
    with pytest.raises(DataError, match=r"cannot be told from the signal: .*--pairs halves") as refusal:
        estimate_noise(image.astype(np.float32), Optics(1.0), highpass=HIGHPASS, resolution=RESOLUTION)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("make", [integrating, coincidence_loss])
def test_a_detectors_spectrum_without_ctf_and_thon_rings_is_refused(make: Callable[..., Noise]) -> None:
    """A rise towards low frequencies may be the specimen's or the detector's: nothing tells which."""
    rng = np.random.default_rng(4)
    noise, truth = make(rng)
    s = frequencies(SHAPE, (1.0, 1.0)).astype(np.float64)
    envelope = 0.5 * float(np.sqrt(truth.mean())) * np.exp(-60 * s**2)
    blurred = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * envelope, s=SHAPE)
    with pytest.raises(DataError, match="estimate the CTF first") as refusal:
        estimate_noise((noise + blurred).astype(np.float32), OPTICS, None, highpass=HIGHPASS, resolution=RESOLUTION)
    assert "\n" not in str(refusal.value)
