"""Training on a GPU: the same batches, bfloat16 learns what the CPU's float32 does, compiled or not; and it resumes."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train import TrainConfig
from n2n_deploy.train.checkpoint import load_model
from n2n_deploy.train.fit import Progress, fit
from n2n_deploy.train.loader import Batches, augment, make_batch
from n2n_deploy.train.model import PRESETS, add_weight_norm, build, channels_last
from n2n_deploy.train.patches import cut_pairs, write_patches
from n2n_deploy.train.store import PatchStore

pytestmark = pytest.mark.real_gpu

RECIPE = Recipe(max_resolution=8.0, phase_flip=False, patch_size=64)
STEPS = 200


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    """Signal and noise of equal power."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} cannot use a GPU here")
    folder = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    signal = ndimage.gaussian_filter(rng.standard_normal((1024, 1024)), 3, mode="wrap")
    signal /= signal.std()
    even, odd = ((signal + rng.standard_normal(signal.shape)).astype(np.float32) for _ in range(2))
    write_patches(folder / "a.h5", *cut_pairs(even, odd, RECIPE.patch_size), "a", RECIPE)
    return PatchStore([folder / "a.h5"])


@pytest.fixture(scope="module")
def losses(store: PatchStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., float]:
    """Train, and give the loss on held-out pairs at the end."""
    folder = tmp_path_factory.mktemp("runs")

    def train(out: str, **options: Any) -> float:
        found: list[Progress] = []
        options |= {"epochs": 1, "batches_per_epoch": STEPS, "learning_rate": 1e-3}
        config = TrainConfig(preset="small", recipe=RECIPE, **options)
        fit(store, folder / out, config, progress=found.append)
        return found[-1].validation_loss

    return train


def test_a_batch_is_the_cpus_to_the_bit(store: PatchStore) -> None:
    config, numbers = TrainConfig(recipe=RECIPE, batch_size=16), np.arange(len(store))
    with Batches(store, numbers, config, 0, pin=True) as batches:
        for step, (pairs, ways) in enumerate(itertools.islice(batches, 20)):
            assert pairs.is_pinned()
            there = augment(pairs.to("cuda", non_blocking=True), ways.to("cuda", non_blocking=True))
            for found, expected in zip(there, augment(*make_batch(store, numbers, config, step)[:2]), strict=True):
                assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_stopped_run_resumes(store: PatchStore, tmp_path: Path, compiled: bool) -> None:
    config = TrainConfig(preset="small", recipe=RECIPE, epochs=1, batches_per_epoch=40, device="cuda", compile=compiled)

    def stop(progress: Progress) -> None:
        if progress.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    seen: list[Progress] = []
    fit(store, tmp_path, config, progress=stop)
    fit(store, tmp_path, config, resume=True, progress=seen.append)
    assert [progress.step for progress in seen] == list(range(21, 41))
    straight = tmp_path / "straight"
    fit(store, straight, config)
    for name, weights in load_model(tmp_path / "model.pt").weights.items():
        # To rounding: on a GPU sums are not always added up in one order.
        expected = load_model(straight / "model.pt").weights[name]
        assert (weights - expected).norm() <= 0.05 * expected.norm() + 1e-3, name


@pytest.mark.parametrize("preset", PRESETS)
def test_the_network_runs_in_channels_last(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor cores want it; one layer that answers in the other layout would take the rest with it."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} cannot use a GPU here")
    strides: list[tuple[torch.Size, tuple[int, ...]]] = []
    forward = torch.nn.Conv2d.forward

    def noted(layer: torch.nn.Conv2d, batch: torch.Tensor) -> torch.Tensor:
        output = forward(layer, batch)
        strides.extend((each.shape, each.stride()) for each in (batch, output))
        return output

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noted)
    network = build(preset)
    add_weight_norm(network)
    network.to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        network(channels_last(torch.randn(2, 1, 64, 96, device="cuda"))).square().mean().backward()
    assert len(strides) == 2 * 96
    for (_, channels, _, width), stride in strides:
        assert channels == 1 or stride[1:] == (1, channels * width, channels)


def test_all_precisions_learn_alike(losses: Callable[..., float]) -> None:
    # Patches have power 1, half of it signal: predicting nothing costs 1, knowing the signal one half.
    reference = losses("cpu", device="cpu")
    assert reference < 0.7
    ways: dict[str, dict[str, bool]] = {"fp32": {"bf16": False}, "bf16": {}, "compiled": {"compile": True}}
    for name, options in ways.items():
        assert losses(name, device="cuda", **options) == pytest.approx(reference, rel=0.05), name
