"""The networks of the presets beside the paper's: a plain residual U-Net from half the image's size downwards.

`benchmarks.front` compares them with wide activations at equal time and at equal steps; see `docs/front.png`. A step
of training costs an eighth (`small`) and a tenth (`fast`) of what it cost with the wide networks of those names: there
are few layers, none of them at full size.
"""
# ruff: noqa: D102 (what a block's forward does is said by its class)

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from n2n_deploy.train.layers import DepthToSpace, Network, SameConv2d, draw_weights


class Residual(nn.Module):
    """x + conv3(ReLU(conv3(x))), all of one width; starts close to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = SameConv2d(width, width, 3)
        self.after = SameConv2d(width, width, 3)
        draw_weights(self.before, before_relu=True)
        draw_weights(self.after, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.after(torch.relu(self.before(x))))


class Down(nn.Sequential):
    """A 3×3 convolution of stride 2 to the next level's width, and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU())
        draw_weights(cast(nn.Conv2d, self[0]))


class Up(nn.Sequential):
    """One 3×3 convolution to four times the finer level's width, and depth to space; weights start times `scale`."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__(SameConv2d(inputs, 4 * outputs, 3), DepthToSpace(2))
        draw_weights(cast(nn.Conv2d, self[0]), scale, alike=4)


class ResidualNetwork(Network):
    """A U-Net of residual blocks from half the image's size downwards, whose skips are added.

    The first layer makes feature maps of half the size (a 6×6 convolution of stride 2, which is pixel unshuffling and
    a 3×3 convolution); the last makes the four pixels of each of theirs (a 3×3 convolution and depth to space).

    Args:
        widths: feature maps of each level, from half size to the coarsest; at most three, as sides are multiples of 8.
        blocks: residual blocks of each level: on the way down and again on the way up; of the last level, altogether.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, widths[0], 6, stride=2, padding=2)
        self.down = nn.ModuleList(map(Down, widths[:-1], widths[1:]))
        self.up = nn.ModuleList(map(Up, widths[1:], widths[:-1]))
        self.encoder = nn.ModuleList(map(_residuals, widths, blocks))
        self.decoder = nn.ModuleList(map(_residuals, widths[:-1], blocks[:-1]))
        self.last = Up(widths[0], 1, scale=0.01)
        draw_weights(self.first)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for encoder, down in zip(self.encoder[:-1], self.down, strict=True):
            x = self.run_block(encoder, x)
            skips.append(x)
            x = down(x)
        x = self.run_block(self.encoder[-1], x)
        for decoder, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = self.run_block(decoder, up(x) + skips.pop())
        return cast(Tensor, self.last(x))


def _residuals(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width) for _ in range(count)))
