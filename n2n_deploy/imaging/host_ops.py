"""Crop × band-pass × CTF sign, and pad × low-pass × merge, on the host: NumPy functions one after the other."""

import math

import numpy

from n2n_deploy.device.array_types import Array
from n2n_deploy.imaging.ctf import flip_phases
from n2n_deploy.imaging.filters import apply_filter, bandpass, soft_lowpass
from n2n_deploy.imaging.fourier import common_columns, resize_occupied, resize_spectrum, shared_rows
from n2n_deploy.imaging.steps import CropStep, PadStep


def crop(raw: Array, step: CropStep) -> Array:
    """Fourier-crop, band-pass and phase-flip a raw spectrum (S2.1); see `operations.crop`."""
    cropped = resize_spectrum(raw, step.shape, step.size)
    apply_filter(cropped, bandpass(step.size, step.spacing, step.recipe))
    if step.flip is not None:
        flip_phases(cropped, step.size, step.spacing, *step.flip)
    return cropped


def pad(denoised: Array, step: PadStep, noisy: Array | None) -> Array:
    """Zero-pad, low-pass, phase-flip and merge (S2.3, S2.4); see `operations.pad`."""
    denoised *= numpy.float32(step.gain)
    if step.denoised_flip is not None:
        flip_phases(denoised, step.size, step.spacing, *step.denoised_flip)
    if noisy is not None:
        return _merged(denoised, step, noisy)
    apply_filter(denoised, soft_lowpass(step.size, step.spacing, *step.edge))
    if step.extra_edge is not None:
        apply_filter(denoised, soft_lowpass(step.size, step.spacing, *step.extra_edge))
    return resize_occupied(denoised, step.size, step.shape)


def _merged(denoised: Array, step: PadStep, noisy: Array) -> Array:
    """S2.4: the noisy image, phase-flipped like the denoised one, above the band; the denoised one below."""
    size, shape, pixel = step.size, step.shape, step.pixel
    merged: Array = noisy.copy()
    if step.noisy_flip is not None:
        flip_phases(merged, shape, pixel, *step.noisy_flip)
    denoised *= numpy.float32(math.prod(shape) / math.prod(size))
    weight = soft_lowpass(size, step.spacing, *step.edge)
    columns = common_columns(size, shape)
    parts = [
        (merged[rows, :columns], denoised[small_rows, :columns], weight[small_rows, :columns])
        for rows, small_rows in shared_rows(shape[0], size[0])
    ]
    noisy_std = _amplitude_std([target[(low > 0) & (low < 1)] for target, _, low in parts])
    denoised_std = _amplitude_std([source[(low > 0) & (low < 1)] for _, source, low in parts])
    scale = noisy_std / denoised_std if denoised_std > 0 else 1.0
    for target, source, low in parts:
        apply_filter(target, 1.0 - low)
        apply_filter(source, low)
        source *= numpy.float32(scale)
        target += source
    if step.extra_edge is not None:
        apply_filter(merged, soft_lowpass(shape, pixel, *step.extra_edge))
    return merged


def _amplitude_std(components: list[Array]) -> float:
    """Return the standard deviation of the amplitudes of all these components; 0 of none."""
    amplitudes = numpy.abs(numpy.concatenate(components))  # type: ignore[arg-type]
    return float(amplitudes.std(dtype=numpy.float64)) if amplitudes.size else 0.0
