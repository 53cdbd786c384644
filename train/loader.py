"""Random batches of patch pairs, the same for the same (seed, step), read ahead in a thread."""

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.patches import PatchStore

_AHEAD = 8  # batches read before they are needed

Batch = tuple[torch.Tensor, torch.Tensor]


def split(counts: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out patches: whole micrographs where there are at least 20, the last patches of each elsewhere.

    Args:
        counts: patches of each micrograph.
        fraction: of the patches to hold out, about; at least one is, unless it is 0.
        seed: of the choice of micrographs.

    Returns:
        Numbers of the patches for training and of those for validation, disjoint.
    """
    ends = np.cumsum(counts)
    held = np.zeros(int(counts.sum()), bool)
    if fraction > 0 and len(counts) >= 20:
        chosen = np.random.default_rng(seed).permutation(len(counts))[: max(1, round(fraction * len(counts)))]
        for number in chosen:
            held[ends[number] - counts[number] : ends[number]] = True
    elif fraction > 0:
        for count, end in zip(counts, ends, strict=True):
            if count > 1:
                held[end - max(1, round(fraction * count)) : end] = True
    numbers = np.arange(len(held), dtype=np.int64)
    return numbers[~held], numbers[held]


def make_batch(store: PatchStore, numbers: NDArray[np.int64], config: TrainConfig, step: int) -> Batch:
    """Make a step's input and target, (n, 1, side, side) float32, a function of seed and step alone.

    Even and odd change places at random, and each pair is turned and mirrored in one of the eight ways, both
    halves alike.
    """
    rng = np.random.default_rng((config.seed, step))
    pairs = store.read(rng.choice(numbers, config.batch_size, replace=len(numbers) < config.batch_size))
    if config.augment:
        pairs = augment(pairs, rng)
    return torch.from_numpy(pairs[:, :1].copy()), torch.from_numpy(pairs[:, 1:].copy())


def augment(pairs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Swap, turn and mirror pairs (n, 2, side, side) at random, both halves of a pair alike."""
    result = np.empty_like(pairs)
    for index, pair in enumerate(pairs):
        swap, turns, mirror = rng.integers((2, 4, 2))
        pair = np.rot90(pair[::-1] if swap else pair, turns, axes=(1, 2))
        result[index] = pair[:, :, ::-1] if mirror else pair
    return result


class Batches:
    """Iterate over `make_batch` from a step on, reading ahead in a thread; use it as a context manager.

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
                self._queue.put((batch[0].pin_memory(), batch[1].pin_memory()) if pin else batch)
                step += 1
        except BaseException as error:  # handed to the thread that iterates
            self._queue.put(error)
