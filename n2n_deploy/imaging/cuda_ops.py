"""Crop × band-pass × CTF sign, and pad × low-pass × merge, on a GPU: the fused kernels of `kernels.cu`.

Each does in one pass over the data what `host_ops` does with several NumPy functions, whose formulas it shares. The
structures that carry the parameters are described here once, for CuPy and for the tests. Kernels run on the current
stream.
"""

import functools
import math
from importlib import resources
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.cuda import CudaDevice
from n2n_deploy.imaging.ctf import aberration_terms
from n2n_deploy.imaging.fourier import nyquist
from n2n_deploy.imaging.steps import CropStep, Flip, PadStep

OPTIONS = ("--std=c++17",)
"""For NVRTC, whose division and square root are precise by default, as the agreement with NumPy needs."""

_MOST_BAND_THREADS = 1024 * 256
"""They add up their shares of the merge band with atomics, so there are fewer than components."""

_GRID = numpy.dtype([("ny", "i8"), ("nx", "i8"), ("columns", "i8"), ("step_y", "f8"), ("step_x", "f8")])
_ABERRATION = numpy.dtype(
    [("flip", "i8"), ("fourth", "f8"), ("xx", "f8"), ("xy", "f8"), ("yy", "f8"), ("constant", "f8")]
)
_CROP = numpy.dtype(
    [
        ("raw", _GRID),
        ("network", _GRID),
        ("ctf", _ABERRATION),
        ("scale", "f8"),
        ("highpass", "f8"),
        ("lowpass", "f8"),
    ]
)
_PAD = numpy.dtype(
    [
        ("network", _GRID),
        ("full", _GRID),
        ("denoised_ctf", _ABERRATION),
        ("noisy_ctf", _ABERRATION),
        ("scale", "f8"),
        ("start", "f8"),
        ("end", "f8"),
        ("extra_start", "f8"),
        ("extra_end", "f8"),
    ]
)


@functools.cache
def source() -> str:
    """Return the text of `kernels.cu`, with a line that lets compilers' messages point into that file."""
    text = (resources.files(__package__) / "kernels.cu").read_text(encoding="utf-8")
    return f'#line 1 "n2n_deploy/imaging/kernels.cu"\n{text}'


def crop_structure(step: CropStep, columns: int) -> NDArray[Any]:
    """Return the structure `Crop` of `kernels.cu`, one element, for a raw spectrum of so many columns."""
    lowpass = min(1.0 / step.recipe.max_resolution, nyquist(step.spacing))
    return numpy.array(
        [
            (
                _grid(step.shape, (step.pixel_size, step.pixel_size), columns),
                _grid(step.size, step.spacing),
                _aberration(step.flip),
                math.prod(step.size) / math.prod(step.shape),
                step.recipe.highpass,
                lowpass,
            )
        ],
        dtype=_CROP,
    )


def pad_structure(step: PadStep, columns: int) -> NDArray[Any]:
    """Return the structure `Pad` of `kernels.cu`, one element, for a result of so many columns."""
    return numpy.array(
        [
            (
                _grid(step.size, step.spacing),
                _grid(step.shape, step.pixel, columns),
                _aberration(step.denoised_flip),
                _aberration(step.noisy_flip),
                step.gain * math.prod(step.shape) / math.prod(step.size),
                *step.edge,
                *(step.extra_edge or (0.0, 0.0)),
            )
        ],
        dtype=_PAD,
    )


def crop(device: CudaDevice, raw: Array, step: CropStep) -> Array:
    """Fourier-crop, band-pass and phase-flip a raw spectrum (S2.1) in one kernel; see `operations.crop`."""
    out: Array = device.xp.empty((step.size[0], step.size[1] // 2 + 1), dtype=device.xp.complex64)
    structure = crop_structure(step, raw.shape[1])
    device.launch(source(), OPTIONS, "crop_kernel", out.size, (_contiguous(device, raw), out, structure))
    return out


def pad(device: CudaDevice, denoised: Array, step: PadStep, noisy: Array | None) -> Array:
    """Zero-pad, low-pass, phase-flip and merge (S2.3, S2.4) in one kernel; see `operations.pad`.

    One kernel more finds the factor s from the amplitudes in the merge band.
    """
    xp = device.xp
    columns = step.columns(noisy is not None)
    structure = pad_structure(step, columns)
    out: Array = xp.empty((step.shape[0], columns), dtype=xp.complex64)
    denoised = _contiguous(device, denoised)
    sums = xp.zeros(5, dtype=xp.float64)
    # A null pointer tells the kernel that there is nothing to merge.
    other: Any = numpy.uint64(0)
    if noisy is not None:
        other = _contiguous(device, noisy)
        threads = min(out.size, _MOST_BAND_THREADS)
        device.launch(source(), OPTIONS, "band_kernel", threads, (denoised, other, sums, structure))
    device.launch(source(), OPTIONS, "pad_kernel", out.size, (denoised, other, sums, out, structure))
    return out


def _grid(
    shape: tuple[int, int], spacing: tuple[float, float], columns: int | None = None
) -> tuple[int, int, int, float, float]:
    ny, nx = shape
    columns = nx // 2 + 1 if columns is None else columns
    return ny, nx, columns, 1.0 / (ny * spacing[0]), 1.0 / (nx * spacing[1])


def _aberration(flip: Flip) -> tuple[int, float, float, float, float, float]:
    if flip is None:
        return 0, 0.0, 0.0, 0.0, 0.0, 0.0
    terms = aberration_terms(*flip)
    along, across = terms.difference * math.cos(terms.angle), terms.difference * math.sin(terms.angle)
    return 1, terms.fourth, terms.mean + along, 2.0 * across, terms.mean - along, terms.constant


def _contiguous(device: CudaDevice, array: Array) -> Array:
    contiguous: Array = device.xp.ascontiguousarray(array, dtype=device.xp.complex64)
    return contiguous
