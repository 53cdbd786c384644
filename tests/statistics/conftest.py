"""Signals and noise of known variance."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SHAPE = (600, 511)
N_VAR = 4.0

Image = NDArray[np.float64]


def smooth_signal(seed: int, variance: float = 1.0, width: float = 3.0) -> Image:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), width, mode="wrap")
    return (field - field.mean()) * np.sqrt(variance) / field.std()


def noise(seed: int, variance: float = N_VAR) -> Image:
    return np.random.default_rng(seed).normal(scale=np.sqrt(variance), size=SHAPE)


def halves(signal: Image, variance: float = N_VAR) -> tuple[Image, Image]:
    return signal + noise(11, variance), signal + noise(12, variance)
