"""Muon (Jordan 2024, Liu et al. 2025): momentum whose directions all count the same, for the kernels of convolutions.

The momentum of a kernel, as a matrix (out, in·k·k), is replaced by the nearest matrix with orthogonal rows, by five
Newton-Schulz iterations: what the gradient says weakly is learnt as fast as what it says loudly. `benchmarks.front`
measures what that buys. Biases and the layer that makes the image go by Adam: an orthogonal step is long beside the
last kernel, which is small, and would shake the grey scale.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.99)
"""Of Adam; β₂ is the published program's: the usual 0.999 remembers for longer than a short run lasts."""

KERNEL_RATE = 20.0
"""Learning rate of the kernels over Adam's: an orthogonal step is about as long as the kernel is large."""

_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Adam):
    """Adam, but for kernels with more than one output.

    Args:
        network: without weight normalisation, for which a kernel is no parameter.

    """

    def __init__(self, network: nn.Module) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            matrix = parameter.ndim == 4 and parameter.shape[0] > 1 and not name.startswith("last.")
            (kernels if matrix else others).append(parameter)
        super().__init__([{"params": others}, {"params": kernels}], betas=BETAS, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update the kernels here and what is left in Adam; where `found_inf` is set, nothing is learnt.

        The kernels' group may have a `weight_decay`, which is decoupled from the gradient.
        """
        del closure
        group = self.param_groups[1]
        directions: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for kernel in group["params"]:
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
                state["step"] = torch.zeros(())  # of no use here; Adam looks for it when a state is loaded
            momentum = state["momentum"].lerp_(kernel.grad, 1 - _MOMENTUM)
            directions[kernel.shape].append((kernel, kernel.grad.lerp(momentum, _MOMENTUM).flatten(1)))
            kernel.grad = None  # Adam leaves alone what has no gradient
        stopped = getattr(self, "found_inf", None)
        for shape, pairs in directions.items():
            updates = orthogonalised(torch.stack([direction for _, direction in pairs]))
            if stopped is not None:
                updates = torch.where(stopped > 0, torch.zeros_like(updates), updates)
            length = max(1.0, shape[0] / updates[0].shape[1]) ** 0.5
            for (kernel, _), update in zip(pairs, updates, strict=True):
                kernel.mul_(1 - KERNEL_RATE * group["lr"] * group["weight_decay"])
                kernel.add_(update.view_as(kernel), alpha=-KERNEL_RATE * group["lr"] * length)
        super().step()


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with about the same singular vectors and singular values of about 1 (0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
