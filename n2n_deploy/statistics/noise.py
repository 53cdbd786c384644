"""The noise power spectrum of a single exposure, estimated from the exposure itself.

Signal only adds power. Beyond the signal (finer than 3 Å, or between Thon rings where the pixels are too coarse for
that) the spectrum is the noise's, and a family of `noise_models` that fits there tells it at lower frequencies. Where
the micrograph has less power than that, the noise has, too: such frequencies join the fit. Electron counts need no
estimate: theirs is white, of the variance of a Poisson distribution, and thinning splits them exactly.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.arrays import rfft2
from n2n_deploy.statistics.noise_models import FAMILIES, NoiseModel, Values, fit_family
from n2n_deploy.statistics.shared_noise import FINEST_SIGNAL

_BINS = 24
"""Bins along each axis of a quadrant of the Fourier plane, up to Nyquist; fewer where a frame is small."""

_STARTS = (0.25, 0.30, 0.35, 0.40, 0.43)
"""Cycles per pixel from which on the spectrum may be the noise's alone."""

_FEWEST = 50.0
"""Components in a bin that is looked at."""

_EXTRA = 0.005
"""Relative error of the families themselves."""

_RING = 0.02
"""Cycles per pixel; width of the rings that the model is compared with at low frequencies."""

_TROUGH = 0.2
"""CTF² up to which a component lies between Thon rings."""

_LARGEST_ERROR = 0.05
"""Relative error from which on an estimate is refused: that part of the noise would be kept, or signal be lost."""

Image = NDArray[np.float32]


def estimate_noise(
    image: Image, pixel_size: float, *, highpass: float, resolution: float, squared_ctf: Values | None = None
) -> NoiseModel:
    """Estimate the noise power spectrum of an exposure.

    Args:
        image: (ny, nx), as read, with repaired pixels.
        pixel_size: Å.
        highpass: Å; what is coarser does not matter.
        resolution: Å; nor does what is finer.
        squared_ctf: (ny, nx//2+1), or None where there is no CTF.

    Returns:
        The model that fits best beyond the signal.

    Raises:
        DataError: noise cannot be told from signal: why, and what to do.
    """
    power, count, fy, fx = _binned(image, FINEST_SIGNAL, pixel_size, squared_ctf)
    radius = np.hypot(fy, fx)
    band = (radius > pixel_size / highpass) & (radius < pixel_size / max(resolution, 2 * pixel_size))
    finest = radius > 0.4
    if not band.any() or not finest.any():
        raise _refusal("it is too small for its spectrum to be measured")
    if np.median(power[finest]) < 0.02 * np.median(power[band]) or power[finest].min() < 1e-3 * power[finest].max():
        raise _refusal("it has almost no power at its highest frequencies: it was low-pass filtered or upsampled")
    tried = [start for start in _STARTS if start >= min(pixel_size / FINEST_SIGNAL, _STARTS[3])]
    for start in tried:
        model = _fit_beyond(start, power, count, fy, fx, radius)
        if model is None:
            continue
        model = _below_power(model, power, count, fy, fx, radius, band)
        error = float(model.error(fy[band], fx[band]).max())
        if error < _LARGEST_ERROR:
            return model
    raise _refusal(
        f"no smooth noise spectrum fits its power beyond {pixel_size / tried[0]:.2g} Å, where signal should end"
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
    power, count, fy, fx = _binned(part, FINEST_SIGNAL, 1.0, None)
    finest = np.hypot(fy, fx) > 0.4
    if not finest.any():
        return None
    return mean if abs(float(np.average(power[finest], weights=count[finest])) / mean - 1) < 0.05 else None


def _binned(
    image: Image, finest_signal: float, pixel_size: float, squared_ctf: Values | None
) -> tuple[Values, Values, Values, Values]:
    """Mean power, number of components, |f_y| and f_x of the bins that have enough of them."""
    ny, nx = image.shape
    spectrum = rfft2(image - np.float32(image.mean(dtype=np.float64)))
    squared = (spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2) / image.size
    y, x = np.abs(np.fft.fftfreq(ny))[:, None], np.fft.rfftfreq(nx)[None, :]
    # The edges of a frame do not match: a step's power lies along the axes.
    used = (y * ny > 2.5) & (x * nx > 2.5) & (y < 0.5) & (x < 0.5)
    if squared_ctf is not None:
        used = used & ((squared_ctf < _TROUGH) | (np.hypot(y, x) > pixel_size / finest_signal))
    bins = int(np.clip(np.sqrt(image.size / 800), 8, _BINS))
    index = (y * 2 * bins).astype(np.intp) * bins + (x * 2 * bins).astype(np.intp)
    index = np.where(used, index, bins**2).ravel()

    def sums(values: Values | None = None) -> Values:
        weights = None if values is None else np.broadcast_to(values, used.shape).ravel()
        return np.bincount(index, weights, minlength=bins**2 + 1)[:-1].astype(np.float64)

    count = sums()
    enough = count >= _FEWEST
    count = count[enough]
    power, fy, fx = (sums(values)[enough] / count for values in (squared, y, x))
    return power, count, fy, fx


def _fit_beyond(
    start: float, power: Values, count: Values, fy: Values, fx: Values, radius: Values
) -> NoiseModel | None:
    """The family that fits best beyond `start` (Schwarz's criterion); None where none does, or signal reaches there."""
    beyond = radius > start
    best: tuple[float, NoiseModel] | None = None
    if beyond.sum() < 20:
        return None
    for family in FAMILIES:
        inside = beyond
        for _ in range(2):
            model, squares = fit_family(family, power[inside], count[inside], fy[inside], fx[inside], _EXTRA)
            away = power / model.power(fy, fx) - 1
            # Single bins may hold the ring of ice crystals or a periodic artefact of the readout.
            inside = beyond & (np.abs(away) < 4 * np.sqrt(1 / count + _EXTRA**2))
        parameters = len(model.parameters) + 1
        freedom = int(inside.sum()) - parameters
        if inside.sum() < 0.9 * beyond.sum():
            continue
        near = inside & (radius < start + 0.05)
        excess = float(np.average(away[near], weights=count[near])) if near.any() else np.inf
        scatter = 3 / np.sqrt(max(1.0, float(count[near].sum())))
        if squares > freedom + 4 * np.sqrt(2 * freedom) or excess > _EXTRA + scatter:
            continue
        criterion = squares + parameters * np.log(freedom)
        if best is None or criterion < best[0]:
            best = criterion, replace(model, start=start)
    return None if best is None else best[1]


def _below_power(
    model: NoiseModel, power: Values, count: Values, fy: Values, fx: Values, radius: Values, band: NDArray[np.bool_]
) -> NoiseModel:
    """The model refitted where the micrograph has less power than it says: signal cannot take power away."""
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
