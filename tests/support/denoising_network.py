"""A preset's network that denoises without a training: random features, of which the last layer is fitted."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.export import export_bundle
from n2n_deploy.train.checkpoint import save_model
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.layers import Network
from n2n_deploy.train.model import build


def noisy_pairs(count: int, side: int, seed: int = 0) -> NDArray[np.float32]:
    """Pairs (count, 2, side, side) of one coarse signal with a variance of 0.2 and white noise with one of 0.8."""
    rng = np.random.default_rng(seed)
    signal = np.stack([gaussian_filter(rng.standard_normal((side, side)), 3, mode="wrap") for _ in range(count)])
    signal *= np.sqrt(0.2) / signal.std()
    noise = rng.normal(scale=np.sqrt(0.8), size=(count, 2, side, side))
    return (signal[:, None] + noise).astype(np.float32)


def denoising_network(pairs: NDArray[np.float32], preset: str = "small") -> Network:
    """Fit the last convolution by least squares from one half of each pair to the other."""
    torch.manual_seed(0)
    network = build(preset).eval()
    (last,) = (layer for layer in network.last if isinstance(layer, nn.Conv2d))
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(pairs[:, :1]))
        hook.remove()
        columns = nn.functional.unfold(seen[0], 3, padding=1).transpose(1, 2).flatten(0, 1)
        columns = torch.cat([columns, torch.ones(len(columns), 1)], dim=1)
        wanted = nn.functional.pixel_unshuffle(torch.from_numpy(pairs[:, 1:]), 2).permute(0, 2, 3, 1).reshape(-1, 4)
        ridge = 1e-2 * len(columns) * torch.eye(columns.shape[1])
        fitted = torch.linalg.solve(columns.T @ columns + ridge, columns.T @ wanted)
        last.weight.copy_(fitted[:-1].T.reshape(last.weight.shape))
        last.bias.copy_(fitted[-1])
    return network


def denoising_bundle(folder: Path) -> Path:
    """Export such a network to a bundle, which offers int8; it flips no phases."""
    pairs = noisy_pairs(16, 96)
    config = TrainConfig(preset="small", recipe=Recipe(max_resolution=8.0, phase_flip=False))
    save_model(folder / "model.pt", denoising_network(pairs), config, 1, {}, noisy_pairs(16, 96, seed=1))
    return export_bundle(folder / "model.pt", folder / "model.n2n")
