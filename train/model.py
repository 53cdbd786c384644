"""The networks by name: what each preset is, how it is built, and its weight normalisation."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from n2n_deploy.core.errors import UsageError
from n2n_deploy.train.layers import Network
from n2n_deploy.train.residual import ResidualNetwork
from n2n_deploy.train.wide import WideNetwork

PRESETS: dict[str, Callable[[], Network]] = {
    "paper": partial(WideNetwork, width=32, decoder_kernel=4),  # 96 convolutions, 2 383 826 parameters
    "fast": partial(ResidualNetwork, widths=(32, 48, 64), blocks=(1, 1, 2)),
    "small": partial(ResidualNetwork, widths=(16, 32, 32), blocks=(1, 1, 1)),
}
"""The networks by name; `benchmarks.front` measures their error against their cost."""


def channels_last(images: Tensor) -> Tensor:
    """Lay images (n, 1, h, w) out so that PyTorch runs the network on them in channels-last.

    With one channel both layouts are the same bytes, and convolutions go by the strides alone: `contiguous` leaves
    those as they are, and the network would run in the other layout.
    """
    _, _, height, width = images.shape
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))


def build(preset: str) -> Network:
    """Build the network of a preset with fresh weights, without weight normalisation.

    Args:
        preset: a key of `PRESETS`.

    Returns:
        A module (n, 1, h, w) float32 → (n, 1, h, w) float32; h and w multiples of 8.

    Raises:
        UsageError: there is no such preset.

    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]()


def add_weight_norm(network: nn.Module) -> None:
    """Reparametrise every convolution's kernel as g·v/‖v‖, per output feature map, in place (S2.3)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight_norm(module, "weight", dim=0)


def fold_weight_norm(network: nn.Module) -> None:
    """Undo `add_weight_norm` in place: the same function, with plain kernels.

    Not for a deep copy: PyTorch lets it share a class with its original, which would lose its kernels.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """Copy the weights to the CPU as the state dict of the network without weight normalisation."""
    weights: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            for part in ("weight", "bias"):
                value = getattr(module, part).detach().to("cpu", copy=True)
                weights[f"{name}.{part}"] = value.contiguous()
    return weights
