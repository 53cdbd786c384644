"""The candidates of `benchmarks.front`: the presets, earlier presets as the yardstick, and what else was tried."""
# ruff: noqa: D102 (what a block's forward does is said by its class)

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from n2n_deploy.train.layers import Network, SameConv2d, draw_weights
from n2n_deploy.train.model import PRESETS
from n2n_deploy.train.residual import ResidualNetwork, Up
from n2n_deploy.train.wide import WideNetwork


class GatedBlock(nn.Module):
    """NAFNet's block (Chen et al. 2022) without what looks at the whole image: depthwise 3×3 and two simple gates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.mix, self.last = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        for layer in (self.widen, self.depthwise, self.mix):
            draw_weights(layer)
        for layer in (self.narrow, self.last):
            draw_weights(layer, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.depthwise(self.widen(x)).chunk(2, dim=1)
        x = x + self.narrow(one * other)
        one, other = self.mix(x).chunk(2, dim=1)
        return x + cast(Tensor, self.last(one * other))


class DepthwiseBlock(nn.Module):
    """x + 1×1(ReLU(1×1(depthwise 7×7(x)))), as in ConvNeXt (Liu et al. 2022) without its normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.widen, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        draw_weights(self.depthwise)
        draw_weights(self.widen, before_relu=True)
        draw_weights(self.narrow, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.narrow(torch.relu(self.widen(self.depthwise(x)))))


class FullSize(ResidualNetwork):
    """The residual U-Net from the image's own size downwards: up to four levels."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__(widths, blocks)
        self.first: nn.Conv2d = SameConv2d(1, widths[0], 3)
        self.last: nn.Module = SameConv2d(widths[0], 1, 3)
        draw_weights(self.first)
        draw_weights(cast(nn.Conv2d, self.last), 0.01)


def light(width: int) -> Network:
    """The wide-activation U-Net with one 3×3 convolution and depth to space in place of each upsampling layer."""
    network = WideNetwork(width, 3)
    for block in network.up:
        block.shortcut, block.upsampling = Up(width, width), Up(width, width)
    return network


def other_blocks(block: Callable[[int], nn.Module], widths: tuple[int, ...], blocks: tuple[int, ...]) -> Network:
    """The residual U-Net with blocks of another kind."""
    network = ResidualNetwork(widths, blocks)
    for level in (*network.encoder, *network.decoder):
        for index, each in enumerate(level):
            level[index] = block(each.before.in_channels)
    return network


CANDIDATES: dict[str, Callable[[], Network]] = {
    **PRESETS,
    "wide 16 (small until 0.1)": partial(WideNetwork, 16, 3),
    "wide 32 (fast until 0.1)": partial(WideNetwork, 32, 3),
    "wide 16 light": partial(light, 16),
    "wide 32 light": partial(light, 32),
    "residual 32-32-32": partial(ResidualNetwork, (32, 32, 32), (1, 1, 1)),
    "residual 48-64-64": partial(ResidualNetwork, (48, 64, 64), (1, 1, 2)),
    "residual 32-64-96": partial(ResidualNetwork, (32, 64, 96), (1, 1, 2)),
    "residual 32-48-64 deeper": partial(ResidualNetwork, (32, 48, 64), (1, 2, 3)),
    "gated 32-48-64": partial(other_blocks, GatedBlock, (32, 48, 64), (1, 1, 2)),
    "depthwise 32-48-64": partial(other_blocks, DepthwiseBlock, (32, 48, 64), (1, 1, 2)),
    "full size 16-32-32-32": partial(FullSize, (16, 32, 32, 32), (1, 1, 1, 1)),
    "full size 16-32-48-64": partial(FullSize, (16, 32, 48, 64), (1, 1, 1, 2)),
}
"""By name; a network of `paper`'s kind is "wide", of `fast`'s and `small`'s "residual"."""


def kflop_per_pixel(network: nn.Module, side: int = 64) -> float:
    """Thousands of floating-point operations (a multiplication or an addition) of all convolutions, per input pixel."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * cast(nn.Conv2d, layer).weight[0].numel()

    hooks = [each.register_forward_hook(count) for each in network.modules() if isinstance(each, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 1, side, side))
    for hook in hooks:
        hook.remove()
    return total / side**2 / 1e3
