"""The receptive field of a network: the halo with which a tiled result equals the whole-image result."""

import copy

import torch
from torch import nn


def receptive_field(network: nn.Module, stride: int = 8) -> int:
    """Halo in pixels that a tile needs on each side for an exact result, measured on the network itself.

    Args:
        network: a fully convolutional network (n, 1, h, w) → (n, 1, h, w).
        stride: the network's total stride; tiles start on its multiples.

    Returns:
        The largest distance, along either axis and in either direction, between an output pixel and an input
        pixel that it depends on, rounded up to a multiple of `stride`.
    """
    reach = max(abs(distance) for axis in (0, 1) for distance in extent(network, axis, stride))
    return -(-reach // stride) * stride


def extent(network: nn.Module, axis: int, stride: int = 8) -> tuple[int, int]:
    """Return the range of (output − input) positions at which outputs depend on inputs, along axis 0 (y) or 1 (x).

    A single bright pixel, at each of the `stride` positions relative to the grid of the deepest level, goes through
    a copy of the network with positive weights and zero biases, in float64: an output that is exactly zero does not
    depend on it. A strip as narrow as the stride suffices, as every layer passes on its centre pixel.
    """
    probe = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1 / parameter[0].numel())
    length = 48 * stride
    while True:
        impulses = torch.zeros(stride, 1, length, stride, dtype=torch.float64)
        positions = length // 2 + torch.arange(stride)
        impulses[torch.arange(stride), 0, positions, 0] = 1.0
        with torch.no_grad():
            response = probe(impulses if axis == 0 else impulses.transpose(2, 3))
        seen = (response != 0).any(dim=3 - axis)[:, 0]
        if not seen[:, 0].any() and not seen[:, -1].any():
            distances = torch.nonzero(seen)[:, 1] - positions[torch.nonzero(seen)[:, 0]]
            return int(distances.min()), int(distances.max())
        length *= 2
