"""The two steps in Fourier space, as plain values: from a micrograph's spectrum to the network's, and back.

`host_ops` and `cuda_ops` carry them out; `operations` chooses between these by where a spectrum lives.
"""

from dataclasses import dataclass

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.imaging.fourier import common_columns, grid_spacing

Flip = tuple[Optics, CTFParameters] | None
"""What the CTF's sign is computed from, or None where phases stay as they are."""

Edge = tuple[float, float]
"""Start and end of a soft low-pass, in 1/Å."""


@dataclass(frozen=True, slots=True)
class CropStep:
    """Fourier crop × band-pass × CTF sign (S2.1).

    Attributes:
        shape: (ny, nx) of the raw image.
        pixel_size: Å per pixel of the raw image.
        size: (height, width) of the network's image.
        recipe: gives the band-pass.
        flip: what to flip phases by, or None.
    """

    shape: tuple[int, int]
    pixel_size: float
    size: tuple[int, int]
    recipe: Recipe
    flip: Flip

    @property
    def spacing(self) -> tuple[float, float]:
        """Å per pixel of the network's image along (y, x)."""
        return grid_spacing(self.shape, self.pixel_size, self.size)


@dataclass(frozen=True, slots=True)
class PadStep:
    """Zero-pad (or crop) × low-pass, and merge with the noisy spectrum where there is one (S2.3, S2.4).

    With a noisy spectrum N the result is s·D·L + N·(1 − L), on complex values. s makes the standard deviation of the
    amplitudes in the band 0 < L < 1 equal in both. Without, it is D·L.

    Attributes:
        size: (height, width) of the network's image.
        shape: (ny, nx) of the result: with a noisy spectrum that of the raw image.
        pixel: Å per pixel of the result along (y, x).
        gain: factor on the denoised image: the grey levels that 1 stands for.
        edge: of L.
        denoised_flip: what to flip the denoised spectrum back by, or None.
        noisy_flip: what to flip the noisy one by, or None.
        extra_edge: of a further low-pass on the result, or None.
    """

    size: tuple[int, int]
    shape: tuple[int, int]
    pixel: tuple[float, float]
    gain: float
    edge: Edge
    denoised_flip: Flip = None
    noisy_flip: Flip = None
    extra_edge: Edge | None = None

    @property
    def spacing(self) -> tuple[float, float]:
        """Å per pixel of the network's image along (y, x)."""
        (ny, nx), (y, x), (height, width) = self.shape, self.pixel, self.size
        return ny * y / height, nx * x / width

    def columns(self, merging: bool) -> int:
        """How many columns of the result's spectrum are not zero."""
        return self.shape[1] // 2 + 1 if merging else common_columns(self.shape, self.size)
