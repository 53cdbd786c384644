"""What the networks are made of: convolutions that keep the size, depth to space, and a base that can recompute."""
# ruff: noqa: D102 (what a layer's forward does is said by its class)

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    """A denoiser f of eq. 7: (n, 1, h, w) → (n, 1, h, w), h and w multiples of 8, mean 0, std 1 per image.

    Attributes:
        checkpointing: recompute each block's activations in the backward pass instead of keeping them (S2.3):
            less memory, about a third more time, the same gradients.

    """

    checkpointing = False

    def run_block(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """One block, checkpointed where asked for."""
        if self.checkpointing and self.training:
            return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False))
        return cast(Tensor, block(*inputs))


class SameConv2d(nn.Conv2d):
    """A convolution that keeps the size; an even kernel pads one pixel more at the end, as in Keras."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        before, after = (kernel - 1) // 2, kernel // 2
        super().__init__(inputs, outputs, kernel, padding=before if before == after else 0)
        self.margins = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.margins is None else nn.functional.pad(x, self.margins))


class DepthToSpace(nn.PixelShuffle):
    """`nn.PixelShuffle`, which keeps channels-last on a GPU as well, and backward from one channel, without a layout.

    PyTorch's own keeps it on CPUs alone. What leaves it in the other layout would take the rest of the network with it.
    """

    def forward(self, x: Tensor) -> Tensor:
        factor = self.upscale_factor
        if x.is_contiguous(memory_format=torch.channels_last) and (x.is_cuda or x.shape[1] == factor**2):
            return shuffled_channels_last(x, factor)
        return super().forward(x)


def shuffled_channels_last(x: Tensor, factor: int) -> Tensor:
    """Depth to space of (n, c·factor², h, w) in channels-last layout, which the result has too; one copy."""
    n, channels, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, channels // factor**2, factor, factor)
    x = x.permute(0, 1, 4, 2, 5, 3).reshape(n, factor * h, factor * w, channels // factor**2)
    return x.permute(0, 3, 1, 2)


def draw_weights(layer: nn.Conv2d, scale: float = 1.0, *, before_relu: bool = False, alike: int = 1) -> None:
    """Draw a convolution's weights: unit gain, or He's before a ReLU, times `scale`; the bias is zero.

    Args:
        layer: changed in place.
        scale: below 1 for what shall start small.
        before_relu: whether a ReLU follows.
        alike: feature maps in a row that start with the same weights. 4 before depth to space by 2: the four pixels
            that are made of one start alike, so there is no checkerboard that training would have to undo (ICNR,
            Aitken et al. 2017).
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if before_relu else "linear")
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.weight.copy_(layer.weight[::alike].repeat_interleave(alike, dim=0))
        if layer.bias is not None:
            layer.bias.zero_()
