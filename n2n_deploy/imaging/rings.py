"""Fourier rings (shells in 3-D): which one a component of an rfft belongs to, and sums over each.

Ring k holds the components whose spatial frequency rounds to k ring widths, RELION's definition. One ring
width is 1/extent, where extent is the length (Å) of the shortest side, so that no ring is empty; on a square
image or a cubic map that is the step of the transform itself. Rings end at the Nyquist frequency of the
coarsest axis; the corners beyond belong to none.
"""

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST


def ring_count(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> int:
    """Count the rings, from the zero frequency to the last whole ring up to Nyquist.

    Args:
        shape: real-space shape.
        spacing: Å per pixel along each axis; one pixel where not given.
    """
    width = _ring_width(shape, spacing)
    nyquist = min((n // 2) / (n * step) for n, step in zip(shape, _spacing(shape, spacing), strict=True))
    return int(nyquist / width + 1e-6) + 1


def ring_frequencies(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> NDArray[np.float64]:
    """Spatial frequency of each ring's middle: (rings,) float64, in 1/Å (or cycles per pixel)."""
    return np.arange(ring_count(shape, spacing), dtype=np.float64) * _ring_width(shape, spacing)


@overload
def ring_index(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> NDArray[np.intp]: ...
@overload
def ring_index(shape: tuple[int, ...], spacing: tuple[float, ...] | None, device: Device) -> Array: ...
def ring_index(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, device: Device = HOST) -> Array:
    """Ring of every component of `rfftn` of a real array: integers of shape (…, n//2 + 1), read-only.

    Args:
        shape: real-space shape, of any number of axes and any sizes.
        spacing: Å per pixel along each axis; all the same where not given.
        device: where the result is wanted.

    Returns:
        0 … `ring_count` - 1, and `ring_count` for the corners beyond Nyquist.
    """
    spacing = _spacing(shape, spacing)
    return device.grid(("ring index", shape, spacing), lambda: _ring_index(shape, spacing, device))


def hermitian_weights(shape: tuple[int, ...], device: Device = HOST) -> Array:
    """Say how many components of the full transform each rfft column stands for: (n//2 + 1,), 1 or 2."""
    columns = shape[-1] // 2 + 1
    weights: Array = device.xp.full(columns, 2.0)
    weights[0] = 1.0
    if shape[-1] % 2 == 0:
        weights[-1] = 1.0
    return weights


@overload
def ring_sums(
    values: NDArray[Any],
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    *,
    stored_half: bool = False,
) -> NDArray[np.float64]: ...
@overload
def ring_sums(
    values: Array, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, *, stored_half: bool = False
) -> Array: ...
def ring_sums(
    values: Array,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    *,
    stored_half: bool = False,
) -> Array:
    """Sum over each ring of the full transform, given its rfft half: (rings,) float64.

    Args:
        values: one value per component, on the rfft grid of `shape`. Complex values are those of a
            Hermitian-symmetric quantity, such as X·conj(Y) of real images, so the sums are real.
        shape: real-space shape that `values` is the rfft half of.
        spacing: Å per pixel along each axis; all the same where not given.
        stored_half: count what the rfft stores once each, so that the plane x = 0, stored whole, counts twice
            as much as the rest. RELION's correlation curves are sums of this kind.

    Raises:
        ValueError: `values` does not have the shape of the rfft of `shape`.
    """
    half = (*shape[:-1], shape[-1] // 2 + 1)
    if values.shape != half:
        raise ValueError(f"expected values of shape {half}, the rfft of {tuple(shape)}; got {values.shape}")
    device = device_of(values)
    rings = ring_count(shape, spacing)
    weighted = values.real if stored_half else values.real * hermitian_weights(shape, device)
    index = ring_index(shape, spacing, device).ravel()
    sums: Array = device.xp.bincount(index, weights=weighted.ravel(), minlength=rings + 1)[:rings]
    return sums


def ring_sizes(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, device: Device = HOST) -> Array:
    """Count the components of the full transform in each ring: (rings,) float64."""
    half = (*shape[:-1], shape[-1] // 2 + 1)
    key = ("ring sizes", tuple(shape), _spacing(shape, spacing))
    return device.grid(key, lambda: ring_sums(device.xp.ones(half), shape, spacing))


@overload
def ring_means(
    values: NDArray[Any], shape: tuple[int, ...], spacing: tuple[float, ...] | None = None
) -> NDArray[np.float64]: ...
@overload
def ring_means(values: Array, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Array: ...
def ring_means(values: Array, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Array:
    """Mean over each ring of the full transform; see `ring_sums`."""
    means: Array = ring_sums(values, shape, spacing) / ring_sizes(shape, spacing, device_of(values))
    return means


def _spacing(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * len(shape)
    if len(spacing) != len(shape):
        raise ValueError(f"expected a spacing for each of the {len(shape)} axes, got {spacing}")
    return tuple(float(step) for step in spacing)


def _ring_width(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> float:
    return 1.0 / min(n * step for n, step in zip(shape, _spacing(shape, spacing), strict=True))


def _ring_index(shape: tuple[int, ...], spacing: tuple[float, ...], device: Device) -> Array:
    xp = device.xp
    width = _ring_width(shape, spacing)
    squared: Any = 0.0
    last = len(shape) - 1
    for axis, (n, step) in enumerate(zip(shape, spacing, strict=True)):
        frequencies = (xp.fft.rfftfreq if axis == last else xp.fft.fftfreq)(n, step) / width
        squared = squared + (frequencies**2).reshape((-1,) + (1,) * (last - axis))
    index: Array = xp.minimum(xp.rint(xp.sqrt(squared)), ring_count(shape, spacing)).astype(xp.intp)
    return index
