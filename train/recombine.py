"""Many pairs from one: random windows, and halves recombined so that their noise never comes twice.

A network cheap enough to see the same few patches many times would learn their noise by heart. With m the mean of two
halves and d half their difference, m + a·d and m − d/a have the same signal and, where the halves' noise is Gaussian
and of equal strength, independent noise for every a: the halves themselves are a = 1, and other a give a noise2noise
pair of which the input has less noise and the target more, or the reverse. It is recorruption (Pang et al.,
Recorrupted-to-Recorrupted, CVPR 2021) with real noise, d, in place of simulated noise.
"""

import math

import numpy as np
import torch
from torch import Tensor

from n2n_deploy.train.config import TrainConfig

Example = tuple[Tensor, Tensor, Tensor]
"""Input (n, 1, h, w), target (n, 1, h, w), and the factor (n, 1, 1, 1) on their difference in the loss."""

RECOMBINED_FROM = 20
"""Times that each patch was seen when the factor's spread is at its full width; in proportion before. What is new needs
no variation, which costs speed: with 400 steps on 1 200 patches a network's error was 8 % larger at full width."""


def vary(
    noisy: Tensor, target: Tensor, config: TrainConfig, step: int, patches: int, *, fresh: bool = False
) -> Example:
    """Cut a step's pairs to a random window and recombine them, as a function of seed and step alone.

    Args:
        noisy: (n, 1, side, side) float32, standard deviation about 1.
        target: the same, of the other half.
        config: `augment` asks for the windows, `recombine` says how far the factor a goes.
        step: of the run.
        patches: how many the run has: the factors spread as it sees them again.
        fresh: the pairs' noise is new in every step (`recorrupt`): the factor is `config.alpha` in all of them.

    Returns:
        Inputs of standard deviation 1, targets on the same grey scale, and factors that give each target the weight
        of its noise: all have the same after the factor.
    """
    rng = np.random.default_rng((config.seed, step, 1))
    if config.augment:
        y, x = rng.integers(noisy.shape[-1] - config.window + 1, size=2)
        noisy, target = (half[..., y : y + config.window, x : x + config.window] for half in (noisy, target))
    if fresh:
        return recombine(noisy, target, torch.full((len(noisy), 1, 1, 1), config.alpha, device=noisy.device))
    if config.recombine == 1:
        return noisy, target, torch.ones((), device=noisy.device)
    seen = step * config.batch_size / patches
    reach = math.log(config.recombine) * min(1.0, seen / RECOMBINED_FROM)
    ratios = np.exp(rng.uniform(-reach, reach, (len(noisy), 1, 1, 1))).astype(np.float32)
    return recombine(noisy, target, torch.from_numpy(ratios).to(noisy.device, non_blocking=True))


def recombine(noisy: Tensor, target: Tensor, ratio: Tensor) -> Example:
    """Return m + a·d and m − d/a in units of the first one's standard deviation, and the factor a."""
    mean, difference = (noisy + target) / 2, (noisy - target) / 2
    noisy, target = mean + ratio * difference, mean - difference / ratio
    scale = noisy.std(dim=(2, 3), keepdim=True)
    return noisy / scale, target / scale, ratio
