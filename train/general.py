"""Train the general model, which ships with the package, on simulated micrographs alone.

    python -m n2n_deploy.train.general OUT --hours 8 [--preset fast] [--from general] [--workers 1] [--seed 0]

Ended at any time it goes on where it stood when it is started again, with the same or more `--hours`; the learning
rate falls to zero as these run out. The data is made on the fly and never stored: see `general_examples`. `model.pt` in
OUT is exported with `n2n-deploy export`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from n2n_deploy.core.errors import N2NError
from n2n_deploy.core.recipe import Recipe, RecipeRange
from n2n_deploy.core.signals import stop_on_signal
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.fit import find_device, settle
from n2n_deploy.train.general_examples import PATCH, PER_MICROGRAPH, RESOLUTIONS, THINNING, Examples, stream
from n2n_deploy.train.loader import augment
from n2n_deploy.train.model import channels_last, plain_weights
from n2n_deploy.train.run import Run, start

BUFFER = 48
"""Micrographs whose examples are drawn from at a time; each leaves after `STEPS_PER_MICROGRAPH` × BUFFER steps."""

STEPS_PER_MICROGRAPH = 12
"""Steps for each simulated micrograph: with batches of 8 each of its examples is seen 1.5 times."""

DECAY = 0.2
"""Weight decay of the kernels: without it they grow in a long run, until the loss does."""

AVERAGED = 500
"""Steps over which the weights in `model.pt` are averaged, exponentially: a snapshot is good at any learning rate."""

_VALIDATION_SEED = 2**31
_VALIDATION_MICROGRAPHS = 8
_SAVE_EVERY = 300.0
_ROW_EVERY = 200


class Buffer:
    """The examples of the latest `BUFFER` micrographs, in a ring.

    Args:
        source: the examples of one micrograph after the other.
        first: number of its first micrograph, which gives each its place in the ring, also in a run that is resumed.
    """

    def __init__(self, source: Iterator[Examples], first: int) -> None:
        self._source = source
        self._images = np.zeros((BUFFER * PER_MICROGRAPH, 2, PATCH, PATCH), np.float16)
        self._weights = np.zeros(BUFFER * PER_MICROGRAPH, np.float32)
        self._place = first % BUFFER * PER_MICROGRAPH
        for _ in range(BUFFER):
            self.replace()

    def replace(self) -> None:
        """Put the next micrograph's examples in the place of the oldest ones."""
        examples = next(self._source)
        rows = slice(self._place, self._place + PER_MICROGRAPH)
        self._images[rows], self._weights[rows] = examples.images, examples.weights
        self._place = rows.stop % len(self._images)

    def batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw examples: images (n, 2, side, side) float16, weights (n,), and how `augment` transforms them, (n, 4)."""
        chosen = rng.choice(len(self._images), size, replace=False)
        ways = rng.integers(0, 2, (size, 4)).astype(bool)
        ways[:, 0] = False  # the target stays the expected image
        return tuple(map(torch.from_numpy, (self._images[chosen], self._weights[chosen], ways)))  # type: ignore[return-value]


def train_general(out: Path, config: TrainConfig, workers: int) -> Path:
    """Train until `config.max_minutes` are over or a signal comes; return the path of `model.pt`.

    Args:
        out: folder of the run; one that is there is continued.
        config: preset or starting point, batch size, seed and minutes.
        workers: processes that simulate.

    Raises:
        DataError, UsageError: the model to start from cannot be used.
        N2NError: the loss is no longer finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = find_device(config.device)
    facts = {
        "data_set": "simulated micrographs",
        "resolutions": list(RESOLUTIONS),
        "thinning": list(THINNING),
        "pairs": "simulated",
        "accepts": RecipeRange(max_resolution=RESOLUTIONS, either_phase=True).model_dump(),
    }
    config, weights = settle(config, device, out, resume=True)
    run = start(out, config, device, resume=True, facts=facts, weights=weights)
    run.optimiser.param_groups[1]["weight_decay"] = DECAY
    validation = _validation()
    began, before = time.monotonic(), run.seconds
    with stop_on_signal() as stopping:
        first = run.step // STEPS_PER_MICROGRAPH  # the ring is filled again as it was when the run stopped
        source = stream(config.seed, first, workers)
        buffer = Buffer(source, first)
        run.network.train()
        try:
            while run.done < 1 and not stopping.event.is_set():
                _step(run, buffer)
                run.seconds = before + time.monotonic() - began
                if run.step % STEPS_PER_MICROGRAPH == 0:
                    buffer.replace()
                if run.step % _ROW_EVERY == 0:
                    run.report(validation)
                if time.monotonic() - run.saved > _SAVE_EVERY:
                    run.save(validation)
        finally:
            source.close()
    return run.save(validation, "time" if run.done >= 1 else "interrupted")


def _step(run: Run, buffer: Buffer) -> None:
    """One step; its examples are a function of the seed and the step alone."""
    rng = np.random.default_rng((run.config.seed, run.step, 1))
    images, weights, ways = (each.to(run.device) for each in buffer.batch(rng, run.config.batch_size))
    noisy, clean = augment(images, ways)
    run.set_rate()
    with run.autocast():
        denoised = run.network(channels_last(noisy)).float()
    loss = (weights * ((denoised - clean) ** 2).mean(dim=(1, 2, 3))).mean()
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    run.update(loss)
    run.step += 1
    _average(run)


def _average(run: Run) -> None:
    """Move the averaged weights, which `model.pt` gets in place of the latest, towards the latest."""
    if run.best is None:
        run.best = plain_weights(run.network)
    run.best_step = run.step
    rate = max(1 / AVERAGED, 1 / run.step)
    weights = dict(run.network.named_parameters())
    with torch.no_grad():
        for name, average in run.best.items():
            average.lerp_(weights[name].to(average), rate)


def _validation() -> NDArray[np.float32]:
    """A few examples of micrographs that training never sees."""
    source = stream(_VALIDATION_SEED, 0, 1)
    try:
        examples = [next(source).images[:: PER_MICROGRAPH // 8] for _ in range(_VALIDATION_MICROGRAPHS)]
    finally:
        source.close()
    return np.concatenate(examples).astype(np.float32)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, required=True, help="of training, all sittings together")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--from", dest="start", metavar="MODEL", help="a checkpoint, a bundle, or general")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = TrainConfig(
        preset=options.preset,
        start=options.start,
        recipe=Recipe(max_resolution=8.0, patch_size=PATCH),
        epochs=1_000_000,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        schedule="linear",
        optimiser="muon",
        max_minutes=60 * options.hours,
        seed=options.seed,
    )
    try:
        print(train_general(options.out, config, options.workers))
    except N2NError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
