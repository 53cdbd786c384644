"""The noise power spectrum of a single exposure, estimated from the exposure itself.

Signal only adds power. Between Thon rings and beyond the signal (finer than 3 Å) the spectrum is the noise's, and a
family of `noise_models` that fits there tells it everywhere. Where nobody has fitted the CTF the rings
tell the defocus; where there are none either, the fit beyond the signal has to do, and where the micrograph has less
power than that, the noise has, too. Electron counts need no estimate: theirs is white, of the variance of a Poisson
distribution, and thinning splits them exactly.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.arrays import rfft2
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.statistics.noise_bins import NoiseBins, noise_bins
from n2n_deploy.statistics.noise_models import FAMILIES, NoiseModel, Values, fit_family
from n2n_deploy.statistics.shared_noise import FINEST_SIGNAL
from n2n_deploy.statistics.thon_defocus import assumed, find_defocus

_STARTS = (0.25, 0.30, 0.35, 0.40, 0.43)
"""Cycles per pixel from which on the spectrum may be the noise's alone."""

_COARSEST = 25.0
"""Å; at lower frequencies ice and carbon have so much power that the gaps between Thon rings are not free of it."""

_EXTRA = 0.005
"""Relative error of the families themselves."""

_RING = 0.02
"""Cycles per pixel; width of the rings that the model is compared with at low frequencies."""

_LARGEST_ERROR = 0.05
"""Relative error from which on an estimate is refused: that part of the noise would be kept, or signal be lost."""

_LARGEST_GUESS = 0.015
"""The same where no frequency with signal confirms the model: then the families' own error adds to the scatter's."""

_EVIDENCE = 10.0
"""By how much Schwarz's criterion must be lower for a family with more parameters (very strong evidence: Kass and
Raftery, 1995)."""

_LARGEST_CHANGE = 0.03
"""Logarithm of the ratio of a detector's largest and smallest noise power, where nothing confirms them."""

_FARTHEST = 4.0
"""How many times the change that was seen, on a logarithmic scale, a model may go on changing where it is not seen."""

Image = NDArray[np.float32]


def estimate_noise(
    image: Image, optics: Optics, parameters: CTFParameters | None = None, *, highpass: float, resolution: float
) -> NoiseModel:
    """Estimate the noise power spectrum of an exposure.

    Args:
        image: (ny, nx), as read, with repaired pixels.
        optics: its optics; only the pixel size must be known.
        parameters: its CTF; None where nobody has fitted it.
        highpass: Å; what is coarser does not matter.
        resolution: Å; nor does what is finer.

    Returns:
        The model that fits best where there is no signal.

    Raises:
        DataError: noise cannot be told from signal: why, and what to do.
    """
    shape = (image.shape[0], image.shape[1])
    pixel_size = optics.pixel_size
    squared = _squared_spectrum(image)
    squared_ctf = _squared_ctf(squared, shape, optics, parameters)
    bins = noise_bins(squared, shape, pixel_size / FINEST_SIGNAL, squared_ctf)
    radius = bins.radius
    band = (radius > pixel_size / highpass) & (radius < pixel_size / max(resolution, 2 * pixel_size))
    finest = radius > 0.4
    if not band.any() or not finest.any():
        raise _refusal("it is too small for its spectrum to be measured")
    if (
        np.median(bins.power[finest]) < 0.02 * np.median(bins.power[band])
        or bins.power[finest].min() < 1e-3 * bins.power[finest].max()
    ):
        raise _refusal("it has almost no power at its highest frequencies: it was low-pass filtered or upsampled")
    if squared_ctf is not None:
        model = _fit_beyond(pixel_size / _COARSEST, bins, band)
        if model is not None and float(model.error(bins.fy[band], bins.fx[band]).max()) < _LARGEST_ERROR:
            return model
    given = squared_ctf is not None and parameters is not None
    tried = [start for start in _STARTS if start >= min(pixel_size / FINEST_SIGNAL, _STARTS[3])]
    for start in tried:
        model = _fit_beyond(start, bins, band)
        if model is None:
            continue
        model = _below_power(model, bins, band)
        error = float(model.error(bins.fy[band], bins.fx[band]).max())
        if (
            squared_ctf is None
            and model.family in ("detector", "kernel")
            and _change(model, bins, band) > _LARGEST_ERROR
        ):
            raise _refusal(
                "its noise is not white, and its Thon rings are too weak to tell what it is where there is signal; "
                "estimate the CTF first"
            )
        if error < (_LARGEST_ERROR if given else _LARGEST_GUESS):
            return model
    raise _refusal(
        f"no smooth noise spectrum fits its power beyond {pixel_size / tried[0]:.2g} Å, where signal should end"
        + ("" if given else ", and Thon rings do not tell it, either")
    )


def count_level(image: Image) -> float | None:
    """Mean count of an image of electron counts, whole numbers whose variance is their mean; None for another image.

    The variance is that at the highest frequencies, where there is hardly any signal.

    Args:
        image: (ny, nx).
    """
    mean = float(image.mean(dtype=np.float64))
    if mean <= 0 or image.min() < 0 or not np.array_equal(image, np.rint(image)):
        return None
    part = image[: min(len(image), 1024), : min(image.shape[1], 1024)]
    bins = noise_bins(_squared_spectrum(part), (part.shape[0], part.shape[1]))
    finest = bins.radius > 0.4
    if not finest.any():
        return None
    return mean if abs(float(np.average(bins.power[finest], weights=bins.count[finest])) / mean - 1) < 0.05 else None


def _squared_spectrum(image: Image) -> Values:
    """|F|² over the number of pixels, without the mean: white noise of variance 1 has 1."""
    spectrum = rfft2(image - np.float32(image.mean(dtype=np.float64)))
    return np.asarray((spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2) / image.size)


def _squared_ctf(
    squared: Values, shape: tuple[int, int], optics: Optics, parameters: CTFParameters | None
) -> Values | None:
    """CTF² from the fit, or from the defocus that the Thon rings tell; None where there is neither."""
    if parameters is None or None in (optics.voltage, optics.spherical_aberration, optics.amplitude_contrast):
        parameters = find_defocus(squared, shape, optics)
    if parameters is None:
        return None
    spacing = (optics.pixel_size, optics.pixel_size)
    return np.asarray(ctf(shape, spacing, assumed(optics), parameters).astype(np.float64) ** 2)


def _fit_beyond(start: float, bins: NoiseBins, band: NDArray[np.bool_]) -> NoiseModel | None:
    """The family that fits best beyond `start` (Schwarz's criterion); None where none does, or signal reaches there."""
    radius, power, count, fy, fx = bins.radius, bins.power, bins.count, bins.fy, bins.fx
    beyond = radius > start
    best: tuple[float, NoiseModel] | None = None
    if beyond.sum() < 20:
        return None
    for family in FAMILIES:
        inside = beyond
        for robust in (True, True, False):
            model, squares = fit_family(
                family, power[inside], count[inside], fy[inside], fx[inside], _EXTRA, robust=robust
            )
            away = power / model.power(fy, fx) - 1
            # Single bins may hold the ring of ice crystals or a periodic artefact of the readout.
            inside = beyond & (np.abs(away) < 4 * np.sqrt(1 / count + _EXTRA**2))
        number = len(model.parameters) + 1
        freedom = int(inside.sum()) - number
        if inside.sum() < 0.9 * beyond.sum():
            continue
        near = inside & (radius < start + 0.05)
        excess = float(np.average(away[near], weights=count[near])) if near.any() else np.inf
        scatter = 3 / np.sqrt(max(1.0, float(count[near].sum())))
        if squares > freedom + 4 * np.sqrt(2 * freedom) or excess > _EXTRA + scatter:
            continue
        if not _goes_on(model, bins, beyond, band):
            continue
        criterion = squares + number * np.log(freedom)
        more = best is not None and len(model.parameters) > len(best[1].parameters)
        if best is None or criterion < best[0] - (_EVIDENCE if more else 0):
            best = criterion, replace(model, start=start)
    return None if best is None else best[1]


def _goes_on(model: NoiseModel, bins: NoiseBins, seen: NDArray[np.bool_], band: NDArray[np.bool_]) -> bool:
    """Whether the model changes about as much where it is not seen as where it is.

    The tail of strong signal is a faint rise beyond the signal, which goes on as a steep one.
    """
    return _change(model, bins, band & ~seen) <= _FARTHEST * _change(model, bins, seen) + _EXTRA


def _change(model: NoiseModel, bins: NoiseBins, where: NDArray[np.bool_]) -> float:
    """Logarithm of the ratio of the model's largest and smallest power there."""
    power = model.power(bins.fy[where], bins.fx[where])
    return float(np.log(power.max() / power.min())) if power.size else 0.0


def _below_power(model: NoiseModel, bins: NoiseBins, band: NDArray[np.bool_]) -> NoiseModel:
    """The model refitted where the micrograph has less power than it says: signal cannot take power away."""
    radius, power, count, fy, fx = bins.radius, bins.power, bins.count, bins.fy, bins.fx
    joined = radius > model.start
    detector = next(family for family in FAMILIES if family.name == "detector")
    ring = (radius / _RING).astype(np.intp)
    sizes = np.bincount(ring, count)
    for _ in range(8):
        found, said = (np.bincount(ring, count * values) for values in (power, model.power(fy, fx)))
        # Whole rings are compared: single bins scatter too much, and the lowest of them would pull the model down.
        lacking = (found < said * (1 - 3 / np.sqrt(np.maximum(sizes, 1)) - _EXTRA))[ring] & band
        if not (lacking & ~joined).any():
            break
        joined = joined | lacking
        refitted, _ = fit_family(detector, power[joined], count[joined], fy[joined], fx[joined], _EXTRA)
        model = replace(refitted, start=model.start)
    return model


def _refusal(reason: str) -> DataError:
    return DataError(
        f"the noise cannot be told from the signal: {reason}; give the unfiltered, unbinned sums of motion correction, "
        "or even and odd halves (--pairs halves)"
    )
