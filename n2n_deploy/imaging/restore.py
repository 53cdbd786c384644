"""From network output to a micrograph again (S2.3, S2.4): grey levels, full size, merging with the noise."""

import math
from dataclasses import dataclass

import numpy

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.device.arrays import Array, array_module, rfft2
from n2n_deploy.imaging import kernels
from n2n_deploy.imaging.ctf import flip_phases
from n2n_deploy.imaging.defects import put_back
from n2n_deploy.imaging.filters import apply_filter, soft_lowpass
from n2n_deploy.imaging.fourier import (
    common_columns,
    nyquist,
    partial_irfft2,
    resize_occupied,
    shared_rows,
)
from n2n_deploy.imaging.preprocess import Prepared

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

    The output is denoised × std + mean, zero-padded in Fourier space behind a soft low-pass whose cosine edge
    ends at the Nyquist frequency of the network's grid (or of the raw image, where that is lower). Constant margins and
    areas that were filled for the network hold their one value again.

    Args:
        denoised: (height, width) float32, the network's output for `prepared.image`.
        prepared: what `preprocess` returned.
        merge: take the high frequencies from the noisy image: F = s·D·L + N·(1 − L), on complex values. s
            makes the standard deviation of the amplitudes |D| in the band 0 < L < 1 equal that of |N|. N is
            phase-flipped where D is. Needs `preprocess(..., keep_spectrum=True)`.
        flip_back: multiply by the sign of the CTF again, so that phases are those of the raw image; without
            effect where the recipe does not flip them.
        lowpass: Å; a further soft low-pass on the result, half-way down its edge at 1/lowpass.

    Returns:
        (ny, nx) float32, pixel size that of the input.

    Raises:
        UsageError: the merge band reaches beyond the network's Nyquist frequency or below the high-pass, the noisy
            spectrum was not kept, or the low-pass is not positive.
        DataError: `denoised` has another shape than `prepared.image`, or is not finite.
    """
    size = tuple(prepared.image.shape)
    if tuple(denoised.shape) != size:
        raise DataError(f"expected a denoised image of {size}, like the network's input, not {tuple(denoised.shape)}")
    if lowpass is not None and not lowpass > 0:
        raise UsageError(f"a low-pass needs a resolution above 0 Å, not {lowpass:g}")
    full = _full(denoised, prepared, merge, flip_back, lowpass)
    put_back(full, prepared.pixels.defects)
    return full


def _full(denoised: Array, prepared: Prepared, merge: Merge | None, flip_back: bool, lowpass: float | None) -> Array:
    """Return the denoised image at full size, before what holds one value gets it back."""
    size = tuple(prepared.image.shape)
    xp = array_module(denoised)
    end = _end(prepared)
    if merge is not None:
        check_merge(merge, prepared)
    spectrum = rfft2(denoised.astype(xp.float32, copy=False))
    if not bool(xp.isfinite(spectrum[0, 0])):
        raise DataError("the network's output is not finite: use the fp32 model, and check the micrograph")
    if xp is not numpy:
        return _with_kernels(spectrum, prepared, merge, flip_back, lowpass)
    spectrum *= numpy.float32(prepared.std)
    if flip_back and prepared.recipe.phase_flip and prepared.ctf is not None:
        flip_phases(spectrum, size, prepared.spacing, prepared.optics, prepared.ctf)
    if merge is not None:
        return _merged(spectrum, prepared.spectrum, prepared, merge, flip_back, lowpass)
    apply_filter(spectrum, soft_lowpass(size, prepared.spacing, (1.0 - EDGE) * end, end))
    if lowpass is not None:
        apply_filter(spectrum, soft_lowpass(size, prepared.spacing, *_edge(lowpass)))
    return partial_irfft2(resize_occupied(spectrum, size, prepared.shape), prepared.shape, prepared.mean)


def check_merge(merge: Merge, prepared: Prepared) -> None:
    """Refuse what cannot be merged with a micrograph; asked before the network has run, it saves the network's time.

    Raises:
        UsageError: as for `restore`.
    """
    end, begin = _end(prepared), 1 / prepared.recipe.highpass
    band = f"cannot merge from {1 / merge.band[0]:.3g} to {1 / merge.band[1]:.3g} Å: the denoised image"
    if merge.band[1] > end:
        raise UsageError(f"{band} ends at {1 / end:.3g} Å; choose a coarser resolution or a smaller width")
    if merge.band[0] < begin:
        raise UsageError(f"{band} begins at {1 / begin:.3g} Å; choose a finer resolution or a smaller width")
    if prepared.spectrum is None:
        raise UsageError("merging needs the noisy spectrum: preprocess with keep_spectrum=True")


def _end(prepared: Prepared) -> float:
    """Where a denoised image ends, in 1/Å."""
    return min(nyquist(prepared.spacing), 0.5 / prepared.pixel_size)


def _edge(resolution: float) -> tuple[float, float]:
    return (1.0 - EDGE / 2) / resolution, (1.0 + EDGE / 2) / resolution


def _with_kernels(
    denoised: Array, prepared: Prepared, merge: Merge | None, flip_back: bool, lowpass: float | None
) -> Array:
    """Filter, flip, pad and merge a spectrum on a GPU, fused."""
    end = _end(prepared)
    flip = None if prepared.ctf is None or not prepared.recipe.phase_flip else (prepared.optics, prepared.ctf)
    padded = kernels.pad(
        denoised,
        tuple(prepared.image.shape),
        prepared.shape,
        prepared.pixel_size,
        prepared.std,
        ((1.0 - EDGE) * end, end) if merge is None else merge.band,
        noisy=None if merge is None else prepared.spectrum,
        denoised_flip=flip if flip_back else None,
        noisy_flip=None if flip_back else flip,
        extra_edge=(0.0, 0.0) if lowpass is None else _edge(lowpass),
    )
    return partial_irfft2(padded, prepared.shape, prepared.mean)


def _merged(
    denoised: Array, noisy: Array, prepared: Prepared, merge: Merge, flip_back: bool, lowpass: float | None
) -> Array:
    """S2.4: the noisy image, phase-flipped like the denoised one, above the band; the denoised one below."""
    xp = array_module(denoised)
    size, shape = tuple(prepared.image.shape), prepared.shape
    pixel = (prepared.pixel_size, prepared.pixel_size)
    merged = noisy.copy()
    if prepared.recipe.phase_flip and prepared.ctf is not None and not flip_back:
        flip_phases(merged, shape, pixel, prepared.optics, prepared.ctf)
    denoised *= numpy.float32(math.prod(shape) / math.prod(size))
    weight = soft_lowpass(size, prepared.spacing, *merge.band, xp)
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
    if lowpass is not None:
        apply_filter(merged, soft_lowpass(shape, pixel, *_edge(lowpass), xp))
    return partial_irfft2(merged, shape, prepared.mean)


def _amplitude_std(components: list[Array]) -> float:
    """Return the standard deviation of the amplitudes of all these components; 0 of none."""
    xp = array_module(components[0])
    amplitudes = xp.abs(xp.concatenate(components))
    return float(amplitudes.std(dtype=xp.float64)) if amplitudes.size else 0.0
