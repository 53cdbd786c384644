"""From network output to a micrograph again (S2.3, S2.4): grey levels, full size, merging with the noise."""

from dataclasses import dataclass

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.imaging import operations
from n2n_deploy.imaging.defects import put_back
from n2n_deploy.imaging.fourier import nyquist, partial_irfft2
from n2n_deploy.imaging.preprocess import Prepared
from n2n_deploy.imaging.steps import PadStep

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
    ends at the Nyquist frequency of the network's grid (or of the raw image, where that is lower).

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
    size: tuple[int, int] = tuple(prepared.image.shape)
    if tuple(denoised.shape) != size:
        raise DataError(f"expected a denoised image of {size}, like the network's input, not {tuple(denoised.shape)}")
    if lowpass is not None and not lowpass > 0:
        raise UsageError(f"a low-pass needs a resolution above 0 Å, not {lowpass:g}")
    if merge is not None:
        check_merge(merge, prepared)
    device = device_of(denoised)
    spectrum = device.rfft2(denoised.astype(device.xp.float32, copy=False))
    if not bool(device.xp.isfinite(spectrum[0, 0])):
        raise DataError("the network's output is not finite: use the fp32 model, and check the micrograph")
    end = _end(prepared)
    flip = None if prepared.ctf is None or not prepared.recipe.phase_flip else (prepared.optics, prepared.ctf)
    step = PadStep(
        size,
        prepared.shape,
        prepared.pixel_size,
        gain=prepared.std,
        edge=((1.0 - EDGE) * end, end) if merge is None else merge.band,
        denoised_flip=flip if flip_back else None,
        noisy_flip=None if flip_back else flip,
        extra_edge=None if lowpass is None else _edge(lowpass),
    )
    noisy = None if merge is None else prepared.spectrum
    full = partial_irfft2(operations.pad(spectrum, step, noisy), prepared.shape, prepared.mean)
    put_back(full, prepared.pixels.defects)
    return full


def check_merge(merge: Merge, prepared: Prepared) -> None:
    """Raise where a micrograph cannot be merged like this; called before the network runs, which saves its time.

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
