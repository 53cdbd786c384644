"""Fourier rings (shells in 3-D): which one a component of an rfft belongs to, and sums over each.

Ring k holds the components whose spatial frequency rounds to k ring widths, RELION's definition. One ring
width is 1/extent, where extent is the length (Å) of the shortest side, so that no ring is empty; on a square
image or a cubic map that is the step of the transform itself. Rings end at the Nyquist frequency of the
coarsest axis; the corners beyond belong to none.
"""

from typing import Any

import numpy as np

from n2n_deploy.device.arrays import Array, array_module, grid_cache


def ring_count(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> int:
    """Count the rings, from the zero frequency to the last whole ring up to Nyquist.

    Args:
        shape: real-space shape.
        spacing: Å per pixel along each axis; one pixel where not given.
    """
    width = _ring_width(shape, spacing)
    nyquist = min((n // 2) / (n * step) for n, step in zip(shape, _spacing(shape, spacing), strict=True))
    return int(nyquist / width + 1e-6) + 1


def ring_frequencies(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> np.ndarray:
    """Spatial frequency of each ring's middle: (rings,) float64, in 1/Å (or cycles per pixel)."""
    return np.arange(ring_count(shape, spacing)) * _ring_width(shape, spacing)


def ring_index(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, xp: Any = np) -> Array:
    """Ring of every component of `rfftn` of a real array: integers of shape (…, n//2 + 1), read-only.

    Args:
        shape: real-space shape, of any number of axes and any sizes.
        spacing: Å per pixel along each axis; all the same where not given.
        xp: the array module, NumPy or CuPy.

    Returns:
        0 … `ring_count` - 1, and `ring_count` for the corners beyond Nyquist.
    """
    spacing = _spacing(shape, spacing)
    return grid_cache.get(("ring index", shape, spacing), xp, lambda: _ring_index(shape, spacing, xp))


def hermitian_weights(shape: tuple[int, ...], xp: Any = np) -> Array:
    """Say how many components of the full transform each rfft column stands for: (n//2 + 1,), 1 or 2."""
    columns = shape[-1] // 2 + 1
    weights = xp.full(columns, 2.0)
    weights[0] = 1.0
    if shape[-1] % 2 == 0:
        weights[-1] = 1.0
    return weights


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
    xp = array_module(values)
    rings = ring_count(shape, spacing)
    weighted = values.real if stored_half else values.real * hermitian_weights(shape, xp)
    sums = xp.bincount(ring_index(shape, spacing, xp).ravel(), weights=weighted.ravel(), minlength=rings + 1)
    return sums[:rings]


def ring_sizes(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, xp: Any = np) -> Array:
    """Count the components of the full transform in each ring: (rings,) float64."""
    half = (*shape[:-1], shape[-1] // 2 + 1)
    key = ("ring sizes", tuple(shape), _spacing(shape, spacing))
    return grid_cache.get(key, xp, lambda: ring_sums(xp.ones(half), shape, spacing))


def ring_means(values: Array, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Array:
    """Mean over each ring of the full transform; see `ring_sums`."""
    return ring_sums(values, shape, spacing) / ring_sizes(shape, spacing, array_module(values))


def _spacing(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * len(shape)
    if len(spacing) != len(shape):
        raise ValueError(f"expected a spacing for each of the {len(shape)} axes, got {spacing}")
    return tuple(float(step) for step in spacing)


def _ring_width(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> float:
    return 1.0 / min(n * step for n, step in zip(shape, _spacing(shape, spacing), strict=True))


def _ring_index(shape: tuple[int, ...], spacing: tuple[float, ...], xp: Any) -> Array:
    width = _ring_width(shape, spacing)
    squared: Array = 0.0
    last = len(shape) - 1
    for axis, (n, step) in enumerate(zip(shape, spacing, strict=True)):
        frequencies = (xp.fft.rfftfreq if axis == last else xp.fft.fftfreq)(n, step) / width
        squared = squared + (frequencies**2).reshape((-1,) + (1,) * (last - axis))
    return xp.minimum(xp.rint(xp.sqrt(squared)), ring_count(shape, spacing)).astype(xp.intp)
