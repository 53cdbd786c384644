"""Fused CUDA kernels, launched through CuPy: crop × band-pass × CTF sign, and pad × low-pass × merge.

Each does in one pass over the data what `preprocess` and `restore` do with several NumPy functions, whose
formulas `kernels.cu` shares. The structures that carry the parameters are described here once, for CuPy and
for the tests.
"""

import functools
import math
from importlib import resources
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.arrays import Array
from n2n_deploy.imaging.ctf import CTFParameters, Optics, aberration_terms
from n2n_deploy.imaging.fourier import grid_spacing, nyquist

OPTIONS = ("--std=c++17",)
"""For NVRTC, whose division and square root are precise by default, as the agreement with NumPy needs."""

_THREADS = 256
_BAND_BLOCKS = 1024

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

Flip = tuple[Optics, CTFParameters] | None
"""What the CTF's sign is computed from, or None where phases stay as they are."""

Edge = tuple[float, float]
"""Start and end of a soft low-pass, in 1/Å."""


def source() -> str:
    """Return the text of `kernels.cu`."""
    return (resources.files("n2n_deploy.imaging") / "kernels.cu").read_text()


def crop_parameters(
    shape: tuple[int, int],
    columns: int,
    pixel_size: float,
    size: tuple[int, int],
    recipe: Recipe,
    flip: Flip,
) -> NDArray[Any]:
    """Return the structure `Crop` of `kernels.cu`, one element; arguments as for `crop`."""
    spacing = grid_spacing(shape, pixel_size, size)
    lowpass = min(1.0 / recipe.max_resolution, nyquist(spacing))
    return numpy.array(
        [
            (
                _grid(shape, (pixel_size, pixel_size), columns),
                _grid(size, spacing),
                _aberration(flip),
                math.prod(size) / math.prod(shape),
                recipe.highpass,
                lowpass,
            )
        ],
        dtype=_CROP,
    )


def pad_parameters(
    size: tuple[int, int],
    shape: tuple[int, int],
    columns: int,
    pixel_size: float,
    gain: float,
    edge: Edge,
    *,
    denoised_flip: Flip = None,
    noisy_flip: Flip = None,
    extra_edge: Edge = (0.0, 0.0),
) -> NDArray[Any]:
    """Return the structure `Pad` of `kernels.cu`, one element; arguments as for `pad`."""
    return numpy.array(
        [
            (
                _grid(size, grid_spacing(shape, pixel_size, size)),
                _grid(shape, (pixel_size, pixel_size), columns),
                _aberration(denoised_flip),
                _aberration(noisy_flip),
                gain * math.prod(shape) / math.prod(size),
                *edge,
                *extra_edge,
            )
        ],
        dtype=_PAD,
    )


def crop(
    raw: Array, shape: tuple[int, int], pixel_size: float, size: tuple[int, int], recipe: Recipe, flip: Flip
) -> Array:
    """Fourier-crop, band-pass and phase-flip a raw spectrum (S2.1) in one kernel, on CuPy's current stream.

    Args:
        raw: (ny, columns) complex64, C-contiguous: at least the columns that both grids have in common.
        shape: (ny, nx) of the raw image.
        pixel_size: Å per pixel of the raw image.
        size: (height, width) of the network's image.
        recipe: gives the band-pass.
        flip: what to flip phases by, or None.

    Returns:
        (height, width//2+1) complex64.

    Raises:
        DataError: the CTF's voltage, spherical aberration or amplitude contrast is unknown.
    """
    import cupy

    parameters = crop_parameters(shape, raw.shape[1], pixel_size, size, recipe, flip)
    out = cupy.empty((size[0], size[1] // 2 + 1), dtype=cupy.complex64)
    _launch("crop_kernel", out.size, (_contiguous(raw), out, parameters))
    return out


def pad(
    denoised: Array,
    size: tuple[int, int],
    shape: tuple[int, int],
    pixel_size: float,
    gain: float,
    edge: Edge,
    *,
    noisy: Array | None = None,
    denoised_flip: Flip = None,
    noisy_flip: Flip = None,
    extra_edge: Edge = (0.0, 0.0),
) -> Array:
    """Zero-pad, low-pass, phase-flip and merge (S2.3, S2.4) in one kernel, on CuPy's current stream.

    With a noisy spectrum N the result is s·D·L + N·(1 − L), s from the amplitudes in the band (one kernel
    more); without, it is D·L, and only the columns in which that is not zero are returned.

    Args:
        denoised: (height, width//2+1) complex64, the spectrum of the network's output.
        size: (height, width) of the network's image.
        shape: (ny, nx) of the raw image.
        pixel_size: Å per pixel of the raw image.
        gain: factor on `denoised`.
        edge: of L.
        noisy: (ny, nx//2+1) complex64, the raw image's spectrum.
        denoised_flip: what to flip the denoised spectrum back by, or None.
        noisy_flip: what to flip the noisy one by, or None.
        extra_edge: of a further low-pass on the result; zeros for none.

    Returns:
        (ny, columns) complex64; columns is nx//2+1 with `noisy`, min(nx, width)//2+1 without.

    Raises:
        DataError: the CTF's voltage, spherical aberration or amplitude contrast is unknown.
    """
    import cupy

    columns = (shape[1] if noisy is not None else min(shape[1], size[1])) // 2 + 1
    parameters = pad_parameters(
        size,
        shape,
        columns,
        pixel_size,
        gain,
        edge,
        denoised_flip=denoised_flip,
        noisy_flip=noisy_flip,
        extra_edge=extra_edge,
    )
    out = cupy.empty((shape[0], columns), dtype=cupy.complex64)
    denoised = _contiguous(denoised)
    sums = cupy.zeros(5, dtype=cupy.float64)
    # A null pointer tells the kernel that there is nothing to merge.
    other: Array = numpy.uint64(0)
    if noisy is not None:
        other = _contiguous(noisy)
        _launch("band_kernel", min(out.size, _BAND_BLOCKS * _THREADS), (denoised, other, sums, parameters))
    _launch("pad_kernel", out.size, (denoised, other, sums, out, parameters))
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


def _contiguous(array: Array) -> Array:
    import cupy

    return cupy.ascontiguousarray(array, dtype=cupy.complex64)


def _launch(name: str, threads: int, arguments: tuple[Any, ...]) -> None:
    _module().get_function(name)((-(-threads // _THREADS),), (_THREADS,), arguments)


@functools.cache
def _module() -> Any:
    import cupy

    # CuPy writes the source in the locale's encoding, which may lack the comments' Greek.
    return cupy.RawModule(code=source().encode("ascii", "ignore").decode(), options=OPTIONS)
