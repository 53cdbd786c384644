"""Random batches of patch pairs, determined by seed and step, read ahead in a thread."""

import math
import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.store import PatchStore

_AHEAD = 8  # batches read before they are needed

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Pairs (n, 2, side, side) float16 as stored, how `augment` transforms each, (n, 4) bool, and the amplitudes of
the noise to recorrupt them with, float16, as `PatchStore.amplitudes` gives them."""


def split(
    corners: Sequence[NDArray[np.int64]], side: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out patches for validation: whole micrographs if there are at least 20, else the last patches of each.

    Args:
        corners: (y, x) of the patches, an array (n, 2) for each micrograph, row by row.
        side: of the patches, in pixels.
        fraction: approximate fraction of the patches to hold out; at least one is held out unless it is 0.
        seed: of the choice of micrographs.

    Returns:
        Indices of the patches for training and for validation. Patches that overlap much with a held-out patch are
        in neither.
    """
    training: list[NDArray[np.int64]] = []
    held: list[NDArray[np.int64]] = []
    whole = len(corners) >= 20
    chosen = np.random.default_rng(seed).permutation(len(corners))[: math.ceil(fraction * len(corners))]
    start = 0
    for number, grid in enumerate(corners):
        numbers = start + np.arange(len(grid))
        start += len(grid)
        if whole or fraction == 0 or len(grid) == 1:
            (held if whole and number in chosen else training).append(numbers)
            continue
        last = max(1, round(fraction * len(grid)))
        # Without requested overlap, neighbours share at most a quarter of the side to fit the grid to the image.
        apart = (np.abs(grid[:, None] - grid[-last:]) >= 0.75 * side).any(axis=2).all(axis=1)
        training.append(numbers[:-last][apart[:-last]])
        held.append(numbers[-last:])
    return (
        np.concatenate(training) if training else np.empty(0, np.int64),
        np.concatenate(held) if held else np.empty(0, np.int64),
    )


def make_batch(store: PatchStore, numbers: NDArray[np.int64], config: TrainConfig, step: int) -> Batch:
    """Choose a step's pairs and their augmentation, as a function of seed and step alone.

    Even and odd are swapped at random, and each pair is rotated and mirrored in one of the eight ways.
    """
    rng = np.random.default_rng((config.seed, step))
    chosen = rng.choice(numbers, config.batch_size, replace=len(numbers) < config.batch_size)
    pairs, amplitudes = store.read(chosen), store.amplitudes(chosen)
    ways = np.zeros((len(pairs), 4), dtype=bool)
    if config.augment:
        for way in ways:
            swap, turns, mirror = rng.integers((2, 4, 2))
            # A quarter turn is a transposition followed by a reflection.
            way[:] = swap, turns % 2, turns in (1, 2), (turns in (2, 3)) != mirror
    return torch.from_numpy(pairs), torch.from_numpy(ways), torch.from_numpy(amplitudes)


def augment(pairs: torch.Tensor, ways: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Swap, transpose and mirror pairs on their device, both halves of a pair alike.

    Args:
        pairs: (n, 2, side, side).
        ways: (n, 4) bool, for each pair whether to swap even and odd, transpose, mirror y, mirror x, in this order.

    Returns:
        The input and the target of a step, (n, 1, side, side) float32 each.
    """
    swap, transpose, mirror_y, mirror_x = ways.T[..., None, None, None]
    pairs = torch.where(swap, pairs.flip(1), pairs)
    pairs = torch.where(transpose, pairs.transpose(2, 3), pairs)
    pairs = torch.where(mirror_y, pairs.flip(2), pairs)
    pairs = torch.where(mirror_x, pairs.flip(3), pairs).float()
    return pairs[:, :1], pairs[:, 1:]


class Batches:
    """Iterates over the batches from a step on, reading ahead in a thread; a context manager.

    An error in the thread is raised in the iteration.
    """

    def __init__(
        self,
        store: PatchStore,
        numbers: NDArray[np.int64],
        config: TrainConfig,
        start: int,
        *,
        pin: bool = False,
    ) -> None:
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(store, numbers, config, start, pin), name="n2n-batches", daemon=True
        )

    def __enter__(self) -> "Batches":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self, store: PatchStore, numbers: NDArray[np.int64], config: TrainConfig, step: int, pin: bool) -> None:
        try:
            while not self._stopped.is_set():
                batch = make_batch(store, numbers, config, step)
                self._queue.put((batch[0].pin_memory(), batch[1].pin_memory(), batch[2].pin_memory()) if pin else batch)
                step += 1
        except BaseException as error:  # raised in the thread that iterates
            self._queue.put(error)
