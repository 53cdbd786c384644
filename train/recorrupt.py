"""Recorruption on the training's device: from exposures and noise spectra to noisy pairs, anew for every batch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from n2n_deploy.train.recombine import recombine


def recorrupt(pairs: Tensor, amplitude: Tensor, seed: Sequence[int]) -> Tensor:
    """Add noise z to the first of each pair and subtract it from the second.

    Mean and half difference of the result are the exposure and z, so that `recombine` with a factor α makes y + αz and
    y − z/α of it.

    Args:
        pairs: (n, 2, side, side), the same exposure twice; or two halves, whose amplitude is 0.
        amplitude: (n, 2·side, side + 1), see `exposures.noise_amplitude`, in the patches' units.
        seed: whole numbers that determine the noise, on one kind of device.

    Returns:
        (n, 2, side, side) float32.
    """
    n, _, height, width = pairs.shape
    number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    generator = torch.Generator(pairs.device).manual_seed(number)
    white = torch.randn((n, 2 * height, 2 * width), generator=generator, device=pairs.device)
    coloured = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude.float(), s=white.shape[1:])
    z = coloured[:, None, :height, :width]
    return pairs.float() + torch.cat((z, -z), dim=1)


def validation_pairs(
    pairs: NDArray[np.float16], amplitude: NDArray[np.float16], alpha: float, seed: int
) -> NDArray[np.float32]:
    """Recorrupt held-out exposures once: (n, 2, side, side), both of a pair divided by the input's std."""
    noisy = recorrupt(torch.from_numpy(pairs), torch.from_numpy(amplitude), (seed, 2))
    ratio = torch.full((len(pairs), 1, 1, 1), alpha)
    made = recombine(noisy[:, :1], noisy[:, 1:], ratio)
    return torch.cat(made[:2], dim=1).numpy()
