"""Batches: determined by seed and step, halves still registered after augmentation, and suitable for noise2noise."""

import itertools

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.loader import Batches, augment, make_batch, split
from n2n_deploy.train.patches import cut_pairs
from n2n_deploy.train.store import PatchStore


def test_batches_are_swapped_rotated_and_mirrored_in_all_sixteen_ways(store: PatchStore, small_recipe: Recipe) -> None:
    """Against NumPy's quarter turns, with the random numbers of each step drawn again."""
    config, numbers, seen = TrainConfig(recipe=small_recipe, batch_size=8, seed=3), np.arange(len(store)), set()
    for step in range(30):
        inputs, targets = augment(*make_batch(store, numbers, config, step)[:2])
        assert inputs.dtype == targets.dtype == torch.float32
        rng = np.random.default_rng((3, step))
        chosen = store.read(rng.choice(numbers, 8, replace=False))
        for pair, noisy, target in zip(chosen, inputs, targets, strict=True):
            swap, turns, mirror = rng.integers((2, 4, 2))
            turned = np.rot90(pair[::-1] if swap else pair, turns, axes=(1, 2))
            expected = turned[:, :, ::-1] if mirror else turned
            assert np.array_equal(np.concatenate([noisy, target]), expected.astype(np.float32))
            seen.add((int(swap), int(turns), int(mirror)))
    assert len(seen) == 16


def test_without_augmentation_pairs_are_as_stored(store: PatchStore, small_recipe: Recipe) -> None:
    config = TrainConfig(recipe=small_recipe, batch_size=4, augment=False)
    pairs, ways, _ = make_batch(store, np.arange(len(store)), config, 0)
    assert torch.equal(torch.cat(augment(pairs, ways), dim=1), pairs.float())


def test_batches_depend_on_seed_and_step_alone(store: PatchStore, small_recipe: Recipe) -> None:
    numbers = np.arange(len(store))
    config = TrainConfig(recipe=small_recipe, batch_size=4)
    with Batches(store, numbers, config, start=0) as batches:
        first = list(itertools.islice(batches, 6))
    with Batches(store, numbers, config, start=3) as batches:
        later = list(itertools.islice(batches, 3))
    for (pairs, ways, _), (pairs_again, ways_again, _) in zip(first[3:], later, strict=True):
        assert pairs.equal(pairs_again)
        assert ways.equal(ways_again)
    assert not first[0][0].equal(first[1][0])
    assert not make_batch(store, numbers, config.model_copy(update={"seed": 1}), 0)[0].equal(first[0][0])


def test_a_read_error_is_raised_in_the_loop(store: PatchStore, small_recipe: Recipe) -> None:
    store.close()
    store.files[1].write_bytes(b"not HDF5")
    config = TrainConfig(recipe=small_recipe, batch_size=16)
    with Batches(store, np.arange(len(store)), config, start=0) as batches, pytest.raises(DataError, match=r"b\.h5"):
        list(itertools.islice(batches, 20))


@pytest.mark.parametrize("micrographs", [1, 3, 40])
def test_split_holds_out_whole_micrographs_where_there_are_many(micrographs: int) -> None:
    grid = np.stack(np.meshgrid([0, 32, 64, 96], [0, 32, 64, 96, 128], indexing="ij"), axis=-1).reshape(-1, 2)
    corners = [grid] * micrographs
    training, held = split(corners, 32, 0.1, seed=0)
    assert sorted([*training, *held]) == list(range(20 * micrographs))
    assert len(held) == pytest.approx(2 * micrographs, abs=1)
    if micrographs == 40:
        assert len(set(held // 20)) == 4
    assert len(split(corners, 32, 0.0, seed=0)[1]) == 0


def test_training_patches_do_not_overlap_held_out_ones() -> None:
    _, corners = cut_pairs(*np.random.default_rng(0).standard_normal((2, 128, 128)), 32, overlap=0.5)
    training, held = split([corners], 32, 0.05, seed=0)
    shared = np.maximum(0, 32 - np.abs(corners[training][:, None] - corners[held])).prod(axis=2)
    assert len(held) == 2
    assert len(training) > 40
    assert shared.max() == 0


def test_linear_regression_on_batches_is_the_wiener_filter(store: PatchStore, small_recipe: Recipe) -> None:
    """Equation 7's minimiser over 7×7 linear filters must be the Wiener filter of the known signal and noise."""
    side, width, total = 7, 4.0, 2.0
    # A field smoothed by a Gaussian of width w has the autocovariance exp(-d²/4w²); patches are scaled to variance 1.
    offsets = np.stack(np.meshgrid(*2 * [np.arange(side)], indexing="ij"), axis=-1).reshape(-1, 2)
    distance2 = ((offsets[:, None] - offsets[None]) ** 2).sum(axis=-1)
    signal = np.exp(-distance2 / (4 * width**2)) / total
    noise = np.eye(side * side) / total
    wiener = linalg.solve(signal + noise, signal[side * side // 2])

    config = TrainConfig(recipe=small_recipe, batch_size=32)
    normal, right = np.zeros((side**2, side**2)), np.zeros(side**2)
    for step in range(3):
        noisy, target = (
            half.double().numpy()[:, 0] for half in augment(*make_batch(store, np.arange(len(store)), config, step)[:2])
        )
        windows = sliding_window_view(noisy, (side, side), axis=(1, 2)).reshape(-1, side**2)
        normal += windows.T @ windows
        right += windows.T @ target[:, 3:-3, 3:-3].ravel()
    fitted = linalg.solve(normal, right)

    def error(weights: np.ndarray) -> float:
        """Expected squared error against the true signal, in units of the patches' variance."""
        return float(weights @ (signal + noise) @ weights - 2 * weights @ signal[side**2 // 2] + signal[0, 0])

    identity = np.eye(side**2)[side**2 // 2]
    assert error(wiener) < error(fitted) < 1.25 * error(wiener)
    assert error(fitted) < 0.2 * error(identity)
