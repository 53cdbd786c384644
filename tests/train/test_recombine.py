"""Recombined halves against known signal and noise: the same signal, independent noise, evenly weighted targets."""

import math

import pytest
import torch

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.recombine import RECOMBINED_FROM, recombine, vary

SIDE = 512


def halves(noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The signal, a sum of waves, and two halves of it with white noise of this standard deviation."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    signal = (torch.sin(0.1 * x) + torch.sin(0.07 * y)).double()[None, None]
    draw = torch.Generator().manual_seed(seed)
    even, odd = (signal + noise * torch.randn(signal.shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return signal, even, odd


@pytest.mark.parametrize("ratio", [0.4, 1.0, 2.5])
def test_noise_is_independent_and_what_the_ratio_makes_of_it(ratio: float) -> None:
    sigma = 1.5
    signal, even, odd = halves(sigma)
    noisy, target, factor = recombine(even, odd, torch.tensor(ratio).view(1, 1, 1, 1))
    assert float(noisy.std()) == pytest.approx(1)
    # m carries half the variance of a half's noise, d the other half, times the ratio squared.
    expected = 0.5 * sigma**2 * (1 + ratio**2)
    scale = float((expected + signal.var()) ** 0.5)
    assert float((noisy * scale - signal).var()) == pytest.approx(expected, rel=0.02)
    rest, missed = noisy * scale - signal, target * scale - signal
    correlation = float((rest * missed).mean() / (rest.std() * missed.std()))
    assert abs(correlation) < 4 / SIDE  # four standard errors
    # In units of the noisy image every target's noise counts the same: as the input's own does.
    assert float((factor * missed).std()) == pytest.approx(float(rest.std()), rel=0.02)


def test_a_ratio_of_one_leaves_the_halves_as_they_are() -> None:
    _, even, odd = halves(1.0)
    noisy, target, factor = recombine(even, odd, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(noisy * even.std(), even)
    torch.testing.assert_close(target * even.std(), odd)
    assert factor.item() == 1


def test_windows_follow_from_seed_and_step_and_reach_every_edge() -> None:
    config = TrainConfig(recipe=Recipe(patch_size=96), recombine=1, seed=5)
    places = torch.arange(96 * 96, dtype=torch.float32).view(1, 1, 96, 96)
    corners = set()
    for step in range(200):
        noisy, target, _ = vary(places, -places, config, step, 100)
        assert torch.equal(noisy, -target)
        y, x = divmod(int(noisy[0, 0, 0, 0]), 96)
        assert torch.equal(noisy, places[..., y : y + 80, x : x + 80])
        assert torch.equal(noisy, vary(places, -places, config, step, 100)[0])
        corners.add((y, x))
    for side in zip(*corners, strict=True):
        assert set(side) == set(range(17))


def test_ratios_spread_as_the_patches_are_seen_again() -> None:
    config = TrainConfig(recipe=Recipe(patch_size=64), batch_size=5, augment=False)
    even, odd = torch.randn(2, 5, 1, 64, 64)

    def spread(steps: range) -> float:
        """Largest |log a| over some steps; each patch of 50 is seen once in 10."""
        factors = torch.stack([vary(even, odd, config, step, 50)[2] for step in steps])
        assert abs(float(factors.log().mean())) <= 4 * float(factors.log().std()) / factors.numel() ** 0.5
        return float(factors.log().abs().max())

    assert spread(range(1)) == 0
    full = math.log(config.recombine)
    halfway = range(5 * RECOMBINED_FROM, 5 * RECOMBINED_FROM + 40)
    assert 0.4 * full < spread(halfway) < 0.75 * full
    assert 0.9 * full < spread(range(20 * RECOMBINED_FROM, 20 * RECOMBINED_FROM + 40)) <= full


def test_switched_off_nothing_changes() -> None:
    config = TrainConfig(recipe=Recipe(patch_size=96), augment=False, recombine=1)
    even, odd = torch.randn(2, 3, 1, 96, 96)
    noisy, target, factor = vary(even, odd, config, 7, 100)
    assert torch.equal(noisy, even)
    assert torch.equal(target, odd)
    assert factor.item() == 1


@pytest.mark.parametrize(("side", "window"), [(32, 32), (64, 56), (96, 80), (192, 160)])
def test_windows_are_multiples_of_the_networks_stride(side: int, window: int) -> None:
    assert TrainConfig(recipe=Recipe(patch_size=side)).window == window
    assert TrainConfig(recipe=Recipe(patch_size=side), augment=False).window == side
