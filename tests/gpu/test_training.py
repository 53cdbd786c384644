"""Training on a GPU: bfloat16 learns what the CPU's float32 does, and compiled or not is the same network."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from n2n_deploy.recipe import Recipe
from n2n_deploy.train import TrainConfig
from n2n_deploy.train.fit import Progress, fit
from n2n_deploy.train.patches import PatchStore, cut_pairs, write_patches

RECIPE = Recipe(max_resolution=8.0, phase_flip=False, patch_size=64)
STEPS = 200


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., float]:
    """Train on signal and noise of equal power, and give the loss on held-out pairs at the end."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} cannot use a GPU here")
    folder = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    signal = ndimage.gaussian_filter(rng.standard_normal((1024, 1024)), 3, mode="wrap")
    signal /= signal.std()
    even, odd = ((signal + rng.standard_normal(signal.shape)).astype(np.float32) for _ in range(2))
    write_patches(folder / "a.h5", *cut_pairs(even, odd, RECIPE.patch_size), "a", RECIPE)

    def train(out: str, **options: Any) -> float:
        found: list[Progress] = []
        options |= {"epochs": 1, "batches_per_epoch": STEPS, "learning_rate": 1e-3}
        config = TrainConfig(preset="small", recipe=RECIPE, **options)
        fit(PatchStore([folder / "a.h5"]), folder / out, config, progress=found.append)
        return found[-1].validation_loss

    return train


def test_every_way_learns_alike(losses: Callable[..., float]) -> None:
    # Patches have power 1, half of it signal: predicting nothing costs 1, knowing the signal one half.
    reference = losses("cpu", device="cpu")
    assert reference < 0.7
    ways: dict[str, dict[str, bool]] = {"fp32": {"bf16": False}, "bf16": {}, "compiled": {"compile": True}}
    for name, options in ways.items():
        assert losses(name, device="cuda", **options) == pytest.approx(reference, rel=0.05), name
