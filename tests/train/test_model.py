"""The network against the paper's counts, and its receptive field against what its pixels really do."""

from typing import cast

import pytest
import torch
from torch import nn

from n2n_deploy.core.errors import UsageError
from n2n_deploy.train.layers import shuffled_channels_last
from n2n_deploy.train.model import PRESETS, add_weight_norm, build, fold_weight_norm, plain_weights
from n2n_deploy.train.receptive_field import extent, receptive_field
from n2n_deploy.train.residual import Up
from n2n_deploy.train.wide import Upsampling


def test_counts_are_the_papers() -> None:
    network = build("paper")
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 96
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_383_826


@pytest.mark.parametrize("preset", ["fast", "small"])
def test_presets_are_cheap_and_fill_tensor_cores(preset: str) -> None:
    """At most 60 kFLOP a pixel, counted from the layers' outputs, and inner widths that are multiples of 16."""
    operations, widths = 0, set()

    def count(layer: nn.Module, images: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal operations
        operations += 2 * output.numel() * cast(nn.Conv2d, layer).weight[0].numel()
        widths.update((images[0].shape[1], output.shape[1]))

    network = build(preset)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for layer in convolutions:
        layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 1, 64, 64))
    assert operations / 64**2 <= 60_000
    assert {width for width in widths if width % 16} == {1, 4}  # the image, and the four pixels made of one


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="paper, fast, small"):
        build("large")


@pytest.mark.parametrize("preset", PRESETS)
def test_sides_that_are_odd_multiples_of_8(preset: str) -> None:
    with torch.inference_mode():
        assert build(preset)(torch.randn(2, 1, 24, 40)).shape == (2, 1, 24, 40)


@pytest.mark.parametrize("preset", PRESETS)
def test_first_output_is_near_zero_and_gradients_are_finite(preset: str) -> None:
    torch.manual_seed(0)
    network = build(preset)
    add_weight_norm(network)
    output = network(torch.randn(2, 1, 32, 32))
    output.square().mean().backward()
    assert output.abs().max() < 10
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_upsampling_layers_start_without_a_checkerboard(preset: str) -> None:
    """The four pixels made of one start alike, as in nearest-neighbour interpolation (ICNR)."""
    layers = [module for module in build(preset).modules() if isinstance(module, Upsampling | Up)]
    assert len(layers) >= 3
    for layer in layers:
        channels = next(module.in_channels for module in layer.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            made = layer(torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(2)))
        coarse = made[..., ::2, ::2]
        torch.testing.assert_close(made, coarse.repeat_interleave(2, -1).repeat_interleave(2, -2))
        assert coarse.std() > 1e-3


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_even_kernels_pad_one_more_at_the_end_as_keras_does() -> None:
    torch.manual_seed(0)
    conv = build("paper").up[0].wide[0].conv
    image = torch.randn(1, conv.in_channels, 9, 9)
    # What torch calls "same" is TensorFlow's rule: of an odd total, the larger share comes last.
    expected = nn.functional.conv2d(image, conv.weight, conv.bias, padding="same")
    torch.testing.assert_close(conv(image), expected)


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_weight_norm_changes_parameters_and_not_the_function(preset: str) -> None:
    torch.manual_seed(0)
    network = build(preset).double()
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    with torch.inference_mode(False), torch.no_grad():
        before = network(image)
        add_weight_norm(network)
        names = {name for name, _ in network.named_parameters()}
        during = network(image)
        copied = plain_weights(network)
        fold_weight_norm(network)
        after = network(image)
    assert any("original0" in name for name in names)
    torch.testing.assert_close(during, before)
    torch.testing.assert_close(after, before)
    assert copied.keys() == build(preset).state_dict().keys()
    assert all(torch.equal(copied[name], value) for name, value in network.state_dict().items())


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = build("small")
        network.checkpointing = checkpointing
        network(torch.ones(1, 1, 16, 16)).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_shuffling_in_channels_last_is_pytorchs_and_keeps_the_layout() -> None:
    images = torch.randn(2, 12, 5, 7, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(2, 3, 10, 14, dtype=torch.float64)
    results = []
    for shuffle in (shuffled_channels_last, nn.functional.pixel_shuffle):
        x = images.clone(memory_format=torch.preserve_format).requires_grad_()
        shuffled = shuffle(x, 2)
        shuffled.backward(gradient)
        results.append((shuffled, x.grad))
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)
    assert all(map(torch.equal, *results))


def test_extent_is_that_of_stacked_convolutions() -> None:
    # By hand: outputs 2j and 2j+1 come from column j, which reads 2j-1 to 2j+1 of the first layer, and so 2j-2 to
    # 2j+2 of the input.
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.PixelShuffle(2))
    assert extent(network, axis=0, stride=2) == extent(network, axis=1, stride=2) == (-2, 3)


@pytest.mark.parametrize("preset", ["fast", "small"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_beyond_the_halo_matters_and_something_at_the_edge_does(axis: int, preset: str) -> None:
    torch.manual_seed(0)
    network = build(preset).double()
    first, last = extent(network, axis)
    reach = max(-first, last)
    assert reach <= receptive_field(network) < reach + 8
    size = 2 * receptive_field(network) + 8
    shape = (1, 1, size, 8) if axis == 0 else (1, 1, 8, size)
    image = torch.randn(shape, dtype=torch.float64)

    def changed(pixel: int) -> torch.Tensor:
        """Positions along the axis that see a change of the pixel."""
        other = image.clone()
        other[(..., pixel, slice(None)) if axis == 0 else (..., pixel)] += 1e6
        with torch.no_grad():
            difference = (network(other) != network(image))[0, 0].any(dim=1 - axis)
        return torch.nonzero(difference)[:, 0] - pixel

    distances = torch.cat([changed(size // 2 + offset) for offset in range(8)])
    assert distances.min() == first
    assert distances.max() == last


@pytest.mark.parametrize("preset", PRESETS)
def test_tiles_with_the_halo_equal_the_whole(preset: str) -> None:
    torch.manual_seed(0)
    network = build(preset).double()
    halo = receptive_field(network)
    image = torch.randn(1, 1, 2 * halo + 64, 48, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
        tile = network(image[:, :, 24 : 24 + 2 * halo + 16])
    torch.testing.assert_close(tile[:, :, halo : halo + 16], whole[:, :, 24 + halo : 40 + halo], rtol=1e-12, atol=1e-12)
