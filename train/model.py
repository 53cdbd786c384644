"""The network: a wide-activation U-Net (S2.2, figure S1), its presets, and its weight normalisation."""
# ruff: noqa: D102 (what a block's forward does is said by its class)

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from n2n_deploy.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """What tells one network from another.

    Attributes:
        width: feature maps between the blocks; a wide-activation convolution expands them fourfold inside.
        decoder_kernel: side of the decoder's convolution kernels (the encoder's are 3).
    """

    width: int
    decoder_kernel: int


PRESETS: dict[str, Preset] = {
    "paper": Preset(32, 4),  # 96 convolutions, 2 383 826 parameters
    "fast": Preset(32, 3),  # odd kernels suit GPUs better
    "small": Preset(16, 3),  # about a quarter of the work: for CPUs, short trainings and demos
}


class WideActivation(nn.Module):
    """x + conv_k(1×1(ReLU(1×1(x)))): width → 4·width → ⌊0.8·width⌋ → width (WDSR; 32 → 128 → 25 → 32)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.reduce = nn.Conv2d(4 * width, width * 4 // 5, 1)
        self.conv = SameConv2d(width * 4 // 5, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.conv(self.reduce(torch.relu(self.expand(x)))))


class SameConv2d(nn.Conv2d):
    """A convolution that keeps the size; an even kernel pads one pixel more at the end, as in Keras."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        before, after = (kernel - 1) // 2, kernel // 2
        super().__init__(inputs, outputs, kernel, padding=before if before == after else 0)
        self.margins = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.margins is None else nn.functional.pad(x, self.margins))


class DepthToSpace(nn.PixelShuffle):
    """`nn.PixelShuffle`, which keeps channels-last on a GPU as well: PyTorch's own does so on CPUs alone.

    What leaves it in the other layout would take the rest of the network with it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cuda and x.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(x)
        return shuffled_channels_last(x, self.upscale_factor)


def shuffled_channels_last(x: Tensor, factor: int) -> Tensor:
    """Depth to space of (n, c·factor², h, w) in channels-last layout, which the result has too; one copy."""
    n, channels, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, channels // factor**2, factor, factor)
    x = x.permute(0, 1, 4, 2, 5, 3).reshape(n, factor * h, factor * w, channels // factor**2)
    return x.permute(0, 3, 1, 2)


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


class Network(nn.Module):
    """The denoiser f of eq. 7: (n, 1, h, w) → (n, 1, h, w), h and w multiples of 8, mean 0, std 1 per image.

    Attributes:
        checkpointing: recompute each block's activations in the backward pass instead of keeping them (S2.3):
            less memory, about a third more time, the same gradients.

    """

    def __init__(self, width: int, decoder_kernel: int) -> None:
        super().__init__()
        self.first = SameConv2d(1, width, 3)
        self.down = nn.ModuleList(DownBlock(width) for _ in range(3))
        self.up = nn.ModuleList(UpBlock(width, decoder_kernel) for _ in range(3))
        self.last = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1))
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for block in self.down:
            x = self._run(block, x)
            skips.append(x)
        for block in self.up:
            x = self._run(block, x, skips.pop())
        return cast(Tensor, self.last(x))

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """One block, checkpointed where asked for."""
        if self.checkpointing and self.training:
            return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False))
        return cast(Tensor, block(*inputs))


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
    network = Network(PRESETS[preset].width, PRESETS[preset].decoder_kernel)
    initialise(network)
    return network


def initialise(network: Network) -> None:
    """Draw weights with which training starts stably.

    He's scale before a ReLU, unit gain elsewhere; each residual branch and the output start small, so that
    the first output is close to 0, the best guess before anything is known of the signal. The four pixels that
    an upsampling layer makes of one start alike: no checkerboard that training would have to undo (ICNR,
    Aitken et al. 2017).
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
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if id(module) in before_relu else "linear")
            nn.init.zeros_(cast(Tensor, module.bias))
            with torch.no_grad():
                module.weight.mul_(residual.get(id(module), 1.0))
    for module in network.modules():
        if isinstance(module, Upsampling):
            for layer in (module.widen, module.wide.conv):
                with torch.no_grad():
                    layer.weight.copy_(layer.weight[::4].repeat_interleave(4, dim=0))


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
