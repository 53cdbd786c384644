"""Muon against the singular value decomposition, and against Adam on a problem with loud and quiet directions."""

import pytest
import torch
from torch import nn

from n2n_deploy.train.muon import KERNEL_RATE, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 40, 12)])
def test_singular_vectors_stay_and_singular_values_become_alike(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    made = left.mT @ orthogonalised(matrices) @ right.mT
    sizes = made.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(made, torch.diag_embed(sizes), rtol=0, atol=1e-9)
    assert values.max() / values.min() > 1.5
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3


def test_biases_and_kernels_of_one_output_go_by_adam() -> None:
    torch.manual_seed(0)
    network, reference = (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3)) for _ in range(2))
    reference.load_state_dict(network.state_dict())
    before = network[0].weight.detach().clone()
    optimiser = Muon(network)
    adam = torch.optim.Adam(reference.parameters(), betas=(0.9, 0.99))
    for group in (*optimiser.param_groups, *adam.param_groups):
        group["lr"] = 1e-3
    image = torch.randn(1, 1, 16, 16)
    for net, method in ((network, optimiser), (reference, adam)):
        net(image).square().mean().backward()
        method.step()
    for name, parameter in network.named_parameters():
        if name != "0.weight":
            torch.testing.assert_close(parameter, reference.get_parameter(name))
    step = (network[0].weight.detach() - before).flatten(1)
    # Every direction of the kernel's first step is about as long as the learning rate.
    assert torch.linalg.svdvals(step) / (KERNEL_RATE * 1e-3) == pytest.approx(1, abs=0.4)


def test_quiet_directions_are_learnt_as_fast_as_loud_ones() -> None:
    """Least squares with inputs whose strengths differ by 30: steps of equal length in all directions solve it."""
    torch.manual_seed(1)
    layer = nn.Conv2d(8, 8, 1, bias=False)
    strengths = torch.logspace(0, -1.5, 8).view(1, 8, 1, 1)
    images = strengths * torch.randn(16, 8, 8, 8)
    wanted = nn.functional.conv2d(images / strengths, torch.eye(8).view(8, 8, 1, 1))
    optimiser = Muon(layer)
    first = None
    for number in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * (1 - number / 300)
        loss = nn.functional.mse_loss(layer(images), wanted)
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-3 * first
