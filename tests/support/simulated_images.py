"""Images with known Thon rings and known signal, for tests of spectra, pictures and flags."""

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf

OPTICS = Optics(0.66, 300.0, 2.7, 0.1)
SPACING = (2.25, 2.25)
SNR = 0.5


def image_with_thon_rings(
    shape: tuple[int, int] = (512, 480), defocus: float = 12000.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Simulate a phase-flipped micrograph, mean 0 and standard deviation 1, and the signal in it.

    Args:
        shape: (ny, nx), with pixels of `SPACING`.
        defocus: Å.
        seed: of signal and noise.
    """
    rng = np.random.default_rng(seed)
    transfer = np.abs(ctf(shape, SPACING, OPTICS, CTFParameters(defocus, defocus)))
    y, x = np.fft.fftfreq(shape[0], SPACING[0])[:, None], np.fft.rfftfreq(shape[1], SPACING[1])
    falloff = np.exp(-15 * np.hypot(y, x))
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * transfer * falloff, shape)
    noise = np.sqrt(signal.var() / SNR) * rng.standard_normal(shape)
    scale = (signal + noise).std()
    return ((signal + noise) / scale).astype(np.float32), (signal / scale).astype(np.float32)
