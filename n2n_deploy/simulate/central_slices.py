"""Projections of a structure as central slices of its Fourier transform, for pixels of 2 Å and more.

The transform is made once for each structure, from its atoms and their scattering factors, up to 1/4 Å; a projection
then costs no more than its own pixels, however many atoms there are. Nothing beyond the Nyquist frequency of the image
enters it, so it has no aliasing.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from n2n_deploy.data import Atoms
from n2n_deploy.data.structures import structure
from n2n_deploy.simulate.potential import contrast_factor
from n2n_deploy.simulate.specimen import radius

FINEST_PIXEL = 2.0
"""Å per pixel of the finest projection."""

_GRID = 1.0  # Å, of the grid that atoms are spread on: at 1/4 Å its cubic B-splines alias by 1 %
_EDGE = 6.0  # Å around the structure, for potentials that end softly
_PADDING = 1.6  # side of the box over the structure's; with quadratic B-splines projections are good to 3 %
_CHUNK = 2_000_000  # samples of the transform interpolated at a time


@dataclass(frozen=True, slots=True)
class FourierVolume:
    """The Fourier transform of a structure's scattering relative to ice.

    Attributes:
        values: (n, n, n // 2 + 3) complex64 in Å, by z, y and x frequency; zero frequency is at index n // 2 along z
            and y and at index 2 along x, where two columns of negative frequencies help the interpolation.
        step: 1/Å between samples.
        radius: Å, of the sphere that contains the structure.
    """

    values: NDArray[np.complex64]
    step: float
    radius: float


@cache
def fourier_volume(name: str) -> FourierVolume:
    """Return the transform of a structure of the package, made at the first call."""
    return transform(structure(name))


def transform(atoms: Atoms) -> FourierVolume:
    """Return the Fourier transform of a structure's scattering, to 1/4 Å."""
    extent = radius(atoms)
    coarse = fft.next_fast_len(int(np.ceil(2 * (extent + _EDGE) / FINEST_PIXEL)), real=True)
    coarse += coarse % 2
    fine = round(coarse * FINEST_PIXEL / _GRID)
    elements, classes = np.unique(atoms.elements, return_inverse=True)
    squared = _squared_frequencies(coarse)
    low = np.zeros(squared.shape, np.complex64)
    table = np.linspace(0, np.sqrt(3) / 2 / FINEST_PIXEL * 1.01, 2000)
    for index, element in enumerate(elements):
        grid = _spread(atoms.positions[classes == index] / _GRID + fine // 2, fine)
        factor = np.interp(np.sqrt(squared), table, contrast_factor(int(element), table)).astype(np.float32)
        low += _crop(fft.rfftn(grid, overwrite_x=True), coarse) * factor
    low /= _outer(np.sinc(fft.fftfreq(coarse) * coarse / fine), np.sinc(fft.rfftfreq(coarse) * coarse / fine), 4)
    low[squared > 0.25 / FINEST_PIXEL**2] = 0
    volume = fft.irfftn(low, (coarse,) * 3, overwrite_x=True)
    padded = 2 * round(_PADDING * coarse / 2)
    # Interpolation by quadratic B-splines multiplies the volume by sinc³; that is divided out here.
    ramp = np.sinc((np.arange(coarse) - coarse // 2) / padded)
    volume /= _outer(ramp, ramp, 3)
    box = np.zeros((padded,) * 3, np.float32)
    middle = (np.arange(coarse) - coarse // 2) % padded
    box[np.ix_(middle, middle, middle)] = volume
    half = fft.fftshift(fft.rfftn(box, overwrite_x=True), axes=(0, 1))
    # The values at −x are the conjugates of those at x.
    mirror = np.conj(np.roll(half[::-1, ::-1, 2:0:-1], 1, axis=(0, 1)))
    values = np.concatenate([mirror, half], axis=2).astype(np.complex64)
    return FourierVolume(values, 1 / (padded * FINEST_PIXEL), extent)


def projections(
    volume: FourierVolume, offsets: NDArray[np.floating], rotations: Rotation, pixel_size: float
) -> NDArray[np.float32]:
    """Project a structure along the beam in several orientations.

    Args:
        volume: of the structure.
        offsets: (n, 2) y, x in pixels of the structure's origin from the patch's central pixel, side // 2.
        rotations: n, from the view (x, y, and z along the beam) to the structure's frame.
        pixel_size: Å, at least `FINEST_PIXEL`.

    Returns:
        (n, side, side) float32: scattering in Å per pixel. The patch is wide enough for the structure.
    """
    side = fft.next_fast_len(int(np.ceil(2 * (volume.radius + _EDGE) / pixel_size)) + 6, real=True)
    fy, fx = fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :]
    plane = np.stack([np.broadcast_to(fx, (side, fx.size)), np.broadcast_to(fy, (side, fx.size))], axis=-1)
    plane = (plane / (pixel_size * volume.step)).astype(np.float32)
    axes = rotations.as_matrix().astype(np.float32)[:, :, :2]
    images = np.empty((len(axes), side, side), np.float32)
    step = max(1, _CHUNK // plane[..., 0].size)
    for first in range(0, len(axes), step):
        part = slice(first, first + step)
        slices = _sample(volume, np.einsum("nij,yxj->inyx", axes[part], plane))
        shift = np.asarray(offsets[part], np.float64)[:, :, None, None] + side // 2
        slices *= np.exp(-2j * np.pi * (fy * shift[:, 0] + fx * shift[:, 1])).astype(np.complex64)
        images[part] = fft.irfft2(slices, (side, side), overwrite_x=True)
    return images


def _sample(volume: FourierVolume, points: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Interpolate the transform by quadratic B-splines at (3, …) x, y, z in steps; zero where it was not calculated."""
    mirrored = points[0] < 0
    points = np.where(mirrored, -points, points)
    centre = volume.values.shape[0] // 2
    indices = np.stack([points[2] + centre, points[1] + centre, points[0] + 2])
    values: NDArray[np.complex64] = map_coordinates(
        volume.values, indices, order=2, prefilter=False, mode="constant", output=np.complex64
    )
    np.conjugate(values, out=values, where=mirrored)
    return values


def _spread(positions: NDArray[np.floating], side: int) -> NDArray[np.float32]:
    """Spread atoms at (n, 3) x, y, z grid steps by cubic B-splines on a cube indexed z, y, x."""
    base = np.floor(positions).astype(np.int64)
    t = (positions - base).astype(np.float32)
    weights = np.stack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]) / np.float32(6)
    grid = np.zeros((side,) * 3, np.float32)
    flat = grid.reshape(-1)
    first = ((base[:, 2] - 1) * side + base[:, 1] - 1) * side + base[:, 0] - 1
    for k in range(4):
        for j in range(4):
            weight = weights[k, :, 2] * weights[j, :, 1]
            for i in range(4):
                np.add.at(flat, first + (k * side + j) * side + i, weight * weights[i, :, 0])
    return grid


def _crop(spectrum: NDArray[np.complexfloating], side: int) -> NDArray[np.complexfloating]:
    """Keep the low frequencies of a cube's rfftn: those of a cube of `side` samples over the same length."""
    keep = np.r_[0 : side // 2, -(side // 2) : 0]
    cropped: NDArray[np.complexfloating] = spectrum[np.ix_(keep, keep, np.arange(side // 2 + 1))]
    return cropped


def _squared_frequencies(side: int) -> NDArray[np.float32]:
    full, half = (f(side, FINEST_PIXEL).astype(np.float32) ** 2 for f in (fft.fftfreq, fft.rfftfreq))
    total: NDArray[np.float32] = full[:, None, None] + full[:, None] + half
    return total


def _outer(full: NDArray[np.floating], last: NDArray[np.floating], power: int) -> NDArray[np.float32]:
    product: NDArray[np.float32] = ((full**power)[:, None, None] * (full**power)[:, None] * last**power).astype(
        np.float32
    )
    return product
