"""The paper's network: a wide-activation U-Net (S2.2, figure S1)."""
# ruff: noqa: D102 (what a block's forward does is said by its class)

from typing import cast

import torch
from torch import Tensor, nn

from n2n_deploy.train.layers import DepthToSpace, Network, SameConv2d, draw_weights


class WideActivation(nn.Module):
    """x + conv_k(1×1(ReLU(1×1(x)))): width → 4·width → ⌊0.8·width⌋ → width (WDSR; 32 → 128 → 25 → 32)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.reduce = nn.Conv2d(4 * width, width * 4 // 5, 1)
        self.conv = SameConv2d(width * 4 // 5, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.conv(self.reduce(torch.relu(self.expand(x)))))


class Upsampling(nn.Module):
    """1×1 width → 4·width, ReLU, a wide-activation convolution of that width, depth to space."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(width, 4 * width, 1)
        self.wide = WideActivation(4 * width, kernel)
        self.shuffle = DepthToSpace(2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.shuffle(self.wide(torch.relu(self.widen(x)))))


class DownBlock(nn.Module):
    """Four wide-activation convolutions and one of stride 2, ReLU; plus the input, max-pooled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(*(WideActivation(width, 3) for _ in range(4)))
        self.stride = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.stride(self.wide(x))) + nn.functional.max_pool2d(x, 2)


class UpBlock(nn.Module):
    """The input upsampled; plus input and skip merged: 1×1, ReLU, three wide activations, upsampled."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.shortcut = Upsampling(width, kernel)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.wide = nn.Sequential(*(WideActivation(width, kernel) for _ in range(3)))
        self.upsampling = Upsampling(width, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        merged = self.wide(torch.relu(self.merge(torch.cat((x, skip), dim=1))))
        return cast(Tensor, self.shortcut(x) + self.upsampling(merged))


class WideNetwork(Network):
    """Three levels down and up with wide activations, skips concatenated.

    Args:
        width: feature maps between the blocks; a wide-activation convolution expands them fourfold inside.
        decoder_kernel: side of the decoder's convolution kernels (the encoder's are 3).
    """

    def __init__(self, width: int, decoder_kernel: int) -> None:
        super().__init__()
        self.first = SameConv2d(1, width, 3)
        self.down = nn.ModuleList(DownBlock(width) for _ in range(3))
        self.up = nn.ModuleList(UpBlock(width, decoder_kernel) for _ in range(3))
        self.last = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for block in self.down:
            x = self.run_block(block, x)
            skips.append(x)
        for block in self.up:
            x = self.run_block(block, x, skips.pop())
        return cast(Tensor, self.last(x))


def initialise(network: WideNetwork) -> None:
    """Draw weights with which training starts stably.

    Each residual branch and the output start small, so that the first output is close to 0, the best guess before
    anything is known of the signal.
    """
    before_relu = {id(network.last[0])}
    residual = {}
    for module in network.modules():
        if isinstance(module, WideActivation):
            before_relu.add(id(module.expand))
            residual[id(module.conv)] = 0.25
        elif isinstance(module, Upsampling):
            before_relu.add(id(module.widen))
        elif isinstance(module, DownBlock):
            before_relu.add(id(module.stride))
        elif isinstance(module, UpBlock):
            before_relu.add(id(module.merge))
    residual[id(network.last[-1])] = 0.01
    alike: dict[int, int] = {}
    for module in network.modules():
        if isinstance(module, Upsampling):
            alike |= {id(layer): 4 for layer in (module.widen, module.wide.conv)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            number = id(module)
            draw_weights(
                module, residual.get(number, 1.0), before_relu=number in before_relu, alike=alike.get(number, 1)
            )
