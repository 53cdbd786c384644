"""From network output to a micrograph again (S2.3, S2.4): grey levels, full size, merging with the noisy image."""

from dataclasses import dataclass

import numpy

from n2n_deploy.errors import DataError, UsageError
from n2n_deploy.imaging.arrays import Array, array_module, rfft2
from n2n_deploy.imaging.ctf import flip_phases
from n2n_deploy.imaging.filters import soft_lowpass
from n2n_deploy.imaging.fourier import network_shape, nyquist, pad_rows, partial_irfft2
from n2n_deploy.imaging.preprocess import Prepared
from n2n_deploy.recipe import Recipe

EDGE = 0.1
"""Width of the low-passes' cosine edges as a fraction of their frequency."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Where the denoised image gives way to the noisy one (S2.4).

    The low-pass L falls along a cosine from 1 at resolution + width/2 to 0 at resolution − width/2.

    Attributes:
        resolution: Å, the frequency of the low-pass: the middle of the merge band.
        width: Å, the width of the merge band.
    """

    resolution: float
    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < 2 * self.resolution < float("inf"):
            raise UsageError(
                f"a merge needs a resolution above 0 Å and a width between 0 and twice that, "
                f"not {self.resolution:g} and {self.width:g}"
            )

    @property
    def band(self) -> tuple[float, float]:
        """The frequencies in 1/Å between which the two images are mixed."""
        return 1.0 / (self.resolution + self.width / 2), 1.0 / (self.resolution - self.width / 2)


def restore(
    denoised: Array,
    prepared: Prepared,
    *,
    merge: Merge | None = None,
    flip_back: bool = False,
    lowpass: float | None = None,
) -> Array:
    """Return the denoised micrograph at the input's size and grey levels (S2.3).

    The output is denoised × std + mean, zero-padded in Fourier space behind a soft low-pass whose cosine edge ends at
    the Nyquist frequency of the network's grid.

    Args:
        denoised: (height, width) float32, the network's output for `prepared.image`.
        prepared: what `preprocess` returned.
        merge: replace the high frequencies by the noisy image's: F = s·D·L + N·(1 − L), on complex values. s makes
            the standard deviation of the amplitudes |D| in the band 0 < L < 1 equal that of |N|. N is phase-flipped
            where D is. Needs `preprocess(..., keep_spectrum=True)`.
        flip_back: multiply by the sign of the CTF again, so that phases are those of the raw image; without effect
            where the recipe does not flip them.
        lowpass: Å; a further soft low-pass on the result, half-way down its edge at 1/lowpass.

    Returns:
        (ny, nx) float32, pixel size that of the input.

    Raises:
        UsageError: the merge band reaches beyond the network's Nyquist frequency, or the low-pass is not positive.
        DataError: `denoised` has another shape than `prepared.image`, or is not finite.
    """
    size = tuple(prepared.image.shape)
    if tuple(denoised.shape) != size:
        raise DataError(
            f"expected a denoised image of {size}, the network's input, found {tuple(denoised.shape)}"
        )
    if lowpass is not None and not lowpass > 0:
        raise UsageError(f"a low-pass needs a resolution above 0 Å, not {lowpass:g}")
    xp = array_module(denoised)
    end = nyquist(prepared.spacing)
    if merge is not None and (prepared.spectrum is None or merge.band[1] > end):
        raise UsageError(
            f"cannot merge at {merge.resolution:g} ± {merge.width / 2:g} Å: the denoised image ends at {1 / end:.3g} Å, "
            "and preprocess must keep the spectrum"
        )
    spectrum = rfft2(denoised.astype(xp.float32, copy=False))
    if not bool(xp.isfinite(spectrum[0, 0])):
        raise DataError("the network's output is not finite: use the fp32 model, and check the micrograph")
    spectrum *= numpy.float32(prepared.std)
    if flip_back and prepared.recipe.phase_flip and prepared.ctf is not None:
        flip_phases(spectrum, size, prepared.spacing, prepared.optics, prepared.ctf)
    if merge is not None:
        return _merged(spectrum, prepared, merge, flip_back, lowpass)
    spectrum *= soft_lowpass(size, prepared.spacing, (1.0 - EDGE) * end, end, xp)
    if lowpass is not None:
        spectrum *= soft_lowpass(size, prepared.spacing, *_edge(lowpass), xp)
    return partial_irfft2(pad_rows(spectrum, size, prepared.shape), prepared.shape, prepared.mean)


def _edge(resolution: float) -> tuple[float, float]:
    return (1.0 - EDGE / 2) / resolution, (1.0 + EDGE / 2) / resolution


def _merged(
    denoised: Array, prepared: Prepared, merge: Merge, flip_back: bool, lowpass: float | None
) -> Array:
    """S2.4: the noisy image, phase-flipped like the denoised one, above the band; the denoised one below it."""
    xp = array_module(denoised)
    size, shape, pixel = (
        tuple(prepared.image.shape),
        prepared.shape,
        (prepared.pixel_size, prepared.pixel_size),
    )
    assert prepared.spectrum is not None
    merged = prepared.spectrum.copy()
    if prepared.recipe.phase_flip and prepared.ctf is not None and not flip_back:
        flip_phases(merged, shape, pixel, prepared.optics, prepared.ctf)
    padded = pad_rows(denoised, size, shape)
    columns = padded.shape[1]
    weight = soft_lowpass(shape, pixel, *merge.band, xp)[:, :columns]
    noisy = merged[:, :columns]
    band = (weight > 0) & (weight < 1)
    padded *= numpy.float32(_amplitude_std(noisy[band]) / _amplitude_std(padded[band]))
    padded -= noisy
    padded *= weight
    noisy += padded
    if lowpass is not None:
        merged *= soft_lowpass(shape, pixel, *_edge(lowpass), xp)
    return partial_irfft2(merged, shape, prepared.mean)


def _amplitude_std(band: Array) -> float:
    xp = array_module(band)
    return float(xp.abs(band).std(dtype=xp.float64))


def working_memory(shape: tuple[int, int], pixel_size: float, recipe: Recipe, merge: bool = False) -> int:
    """Return the peak bytes that `preprocess` and `restore` need for one micrograph beyond its own pixels.

    Counts the float32 copy of an image of another type, the result of `restore`, the spectra and the filters
    that the cache keeps; not the network.
    """
    height, width = network_shape(shape, pixel_size, recipe.max_resolution)
    raw, full = 4 * shape[0] * shape[1], 8 * shape[0] * (shape[1] // 2 + 1)
    partial = 8 * shape[0] * (min(shape[1], width) // 2 + 1)
    small = 4 * height * width
    filters = 4 * small // 2
    if merge:
        return raw + 3 * full + partial + full // 2 + 2 * small + filters
    return 2 * raw + 2 * partial + 3 * small + filters
