"""Moving the content of frames: by a phase ramp for a whole frame, and by interpolation for local motion.

RELION's order is kept: the frame is shifted as a whole first, then its local motion, a polynomial in time and position,
is undone by bilinear interpolation in real space. Interpolation dampens the highest frequencies, in both halves alike.
"""

import numpy as np
import numpy.typing as npt

from n2n_deploy.device.host import HOST

Image = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float64]


def shift_spectrum(spectrum: Spectrum, shape: tuple[int, int], x: float, y: float) -> None:
    """Move an image's content by x and y pixels, in place.

    Args:
        spectrum: (ny, nx//2+1), rfft2 of the image.
        shape: (ny, nx) of the image.
        x: pixels towards higher columns.
        y: pixels towards higher rows.
    """
    fy = np.fft.fftfreq(shape[0])
    # The Nyquist row of an even image stands for both signs of its frequency; RELION takes the positive one.
    rows = np.exp(-2j * np.pi * y * np.where(fy == -0.5, 0.5, fy)).astype(np.complex64)
    columns = np.exp(-2j * np.pi * x * np.fft.rfftfreq(shape[1])).astype(np.complex64)

    def ramp(block: slice) -> None:
        spectrum[block] *= rows[block, None]
        spectrum[block] *= columns

    HOST.map_rows(ramp, spectrum.shape)


def local_shift(coefficients: Floats, time: float, x: Image, y: Image) -> Image:
    """Evaluate RELION's third-order motion model (`ThirdOrderPolynomialModel::getShiftAt`).

    Args:
        coefficients: (18,) for one axis: three powers of time for each of 1, x, x², y, y² and xy.
        time: frames since the model's first one.
        x: column / nx − 0.5, (nx,).
        y: row / ny − 0.5, (rows, 1).

    Returns:
        (rows, nx), the shift in pixels.
    """
    powers = np.array([time, time**2, time**3])
    c0, c1, c2, c3, c4, c5 = (coefficients.reshape(6, 3) @ powers).astype(np.float32)
    shift: Image = c0 + (c1 + c2 * x) * x + (c3 + c4 * y + c5 * x) * y
    return shift


def undo_local_motion(image: Image, coefficients: Floats, time: float, total: Image) -> None:
    """Add a frame, its content moved by the local model's shifts, to a sum.

    Bilinear; where the source lies outside the frame, its nearest pixel is taken, as in RELION.

    Args:
        image: (ny, nx), after the shift of the whole frame.
        coefficients: (2, 18) for x and y, in pixels of this image.
        time: frames since the model's first one.
        total: (ny, nx), added to.
    """
    ny, nx = image.shape
    pixels = image.reshape(-1)
    columns = np.arange(nx)
    x = (columns / nx - 0.5).astype(np.float32)

    def add(block: slice) -> None:
        rows = np.arange(block.start, block.stop)[:, None]
        y = (rows / ny - 0.5).astype(np.float32)
        # The distance to the source alone is rounded to float32, not its place in a frame of many pixels.
        x0, right = _whole_and_fraction(local_shift(coefficients[0], time, x, y))
        y0, above = _whole_and_fraction(local_shift(coefficients[1], time, x, y))
        x0 += columns
        y0 += rows
        outside = (x0 < 0) | (y0 < 0) | (x0 >= nx - 1) | (y0 >= ny - 1)
        if outside.any():
            np.clip(x0, 0, nx - 1, out=x0)
            np.clip(y0, 0, ny - 1, out=y0)
            right[outside] = above[outside] = 0
        y0 *= nx
        y0 += x0
        # Beyond the last pixel the weight is 0, and any value does.
        corners = [np.take(pixels, y0 + step, mode="clip") for step in (0, 1, nx, nx + 1)]
        lower = corners[0] + right * (corners[1] - corners[0])
        upper = corners[2] + right * (corners[3] - corners[2])
        total[block] += lower + above * (upper - lower)

    HOST.map_rows(add, image.shape)


def _whole_and_fraction(shift: Image) -> tuple[npt.NDArray[np.intp], Image]:
    """Where the source of a pixel lies from it: pixels rounded down, and the fraction from there."""
    back = -shift
    whole = np.floor(back)
    back -= whole
    return whole.astype(np.intp), back
