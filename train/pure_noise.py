"""How a network answers to noise without a specimen: a check that comes with every training."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


def pure_noise(pairs: Images, alpha: float = 1.0) -> Images:
    """The noise of the first of each pair without its signal, from the difference of the two.

    With y + αz and y − z/α the difference is (α + 1/α) z, and the first one's noise has √(1 + α²) times the strength of
    z. Halves are α = 1: a difference divided by √2 has the noise of one of them.

    Args:
        pairs: (n, 2, side, side).
        alpha: of recorrupted pairs.

    Returns:
        (n, side, side).
    """
    return np.asarray((pairs[:, 0] - pairs[:, 1]) * np.float32(alpha / np.sqrt(1 + alpha**2)))


def noise_response(pairs: Images, denoised: Images, denoise: Callable[[Images], Images], alpha: float = 1.0) -> float:
    """Variance of a network's output for pure noise over that for held-out patches with this noise.

    Args:
        pairs: (n, 2, side, side), held out.
        denoised: (n, side, side), the network's output for the first of each.
        denoise: the network.
        alpha: of recorrupted pairs.
    """
    output = denoise(pure_noise(pairs, alpha))
    return float(output.var(dtype=np.float64)) / max(float(denoised.var(dtype=np.float64)), 1e-30)
