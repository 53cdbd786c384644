"""Moving the content of frames: by a phase ramp for a whole frame, and by interpolation for local motion.

RELION's order is kept: the frame is shifted as a whole first, then its local motion, a polynomial in time and position,
is undone by bilinear interpolation in real space. Interpolation dampens the highest frequencies, in both halves alike.
"""

import numpy as np
import numpy.typing as npt

from n2n_deploy.device.arrays import map_row_blocks

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

    map_row_blocks(ramp, spectrum.shape, np)


def local_shift(coefficients: Floats, time: float, x: Floats, y: Floats) -> Floats:
    """Evaluate RELION's third-order motion model (`ThirdOrderPolynomialModel::getShiftAt`).

    Args:
        coefficients: (18,) for one axis: three powers of time for each of 1, x, x², y, y² and xy.
        time: frames since the model's first one.
        x: column / nx − 0.5, any shape.
        y: row / ny − 0.5, of a shape that fits.

    Returns:
        The shift in pixels.
    """
    powers = np.array([time, time**2, time**3])
    c0, c1, c2, c3, c4, c5 = coefficients.reshape(6, 3) @ powers
    shift: Floats = c0 + (c1 + c2 * x) * x + (c3 + c4 * y + c5 * x) * y
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
    columns = np.arange(nx)
    x = columns / nx - 0.5

    def add(block: slice) -> None:
        rows = np.arange(block.start, block.stop)[:, None]
        y = rows / ny - 0.5
        source_x = columns - local_shift(coefficients[0], time, x, y)
        source_y = rows - local_shift(coefficients[1], time, x, y)
        x0, y0 = np.floor(source_x).astype(np.intp), np.floor(source_y).astype(np.intp)
        outside = (x0 < 0) | (y0 < 0) | (x0 >= nx - 1) | (y0 >= ny - 1)
        np.clip(x0, 0, nx - 1, out=x0)
        np.clip(y0, 0, ny - 1, out=y0)
        fraction_x = np.where(outside, 0, source_x - x0).astype(np.float32)
        fraction_y = np.where(outside, 0, source_y - y0).astype(np.float32)
        x1, y1 = np.minimum(x0 + 1, nx - 1), np.minimum(y0 + 1, ny - 1)
        upper = image[y0, x0] * (1 - fraction_x) + image[y0, x1] * fraction_x
        lower = image[y1, x0] * (1 - fraction_x) + image[y1, x1] * fraction_x
        total[block] += upper * (1 - fraction_y) + lower * fraction_y

    map_row_blocks(add, image.shape, np)
