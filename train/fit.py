"""The training loop (S2.3): Adam on the mean squared error between f(one half) and the other half (eq. 7).

Where a store has full exposures, the two halves are the exposure plus and minus noise, drawn anew for every batch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.core.signals import stop_on_signal
from n2n_deploy.train.checkpoint import load_state
from n2n_deploy.train.config import AUTO, TrainConfig
from n2n_deploy.train.loader import Batches, augment, split
from n2n_deploy.train.model import channels_last
from n2n_deploy.train.recombine import vary
from n2n_deploy.train.recorrupt import recorrupt, validation_pairs
from n2n_deploy.train.run import STATE, start
from n2n_deploy.train.starting_point import load_starting_point
from n2n_deploy.train.store import PatchStore

_VALIDATION_PAIRS = 32
_SAVE_EVERY = 120.0  # seconds of work that a kill may cost


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: steps trained.
        done: fraction of the run that is over.
        seconds: of optimisation so far.
        learning_rate: of the last step.
        loss: mean squared error of the last step.
        validation_loss: the latest on held-out patches; NaN before the first.
    """

    step: int
    done: float
    seconds: float
    learning_rate: float
    loss: float
    validation_loss: float


def fit(
    store: PatchStore,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Train a network on a patch store.

    Ended by SIGINT, SIGTERM or `max_minutes`, a run leaves a usable `model.pt`, and a `state.pt` from which
    `resume` goes on as if nothing had happened: on a CPU to the same bits. A kill costs two minutes of work
    at most.
    A network trained on exposures can overfit, and one that was trained before can forget: its `model.pt` is the one
    that did best on held-out patches, the one that it started from among them.

    Args:
        store: the patches.
        out: folder for `model.pt`, `state.pt`, `curves.csv`, `curves.png` and `validation.png`.
        config: of the run.
        resume: go on with the run in `out`, where there is one.
        progress: called after each step.
        facts: about the data, for the model's summary; plain types.

    Returns:
        The path of `model.pt`, whose summary says how the run ended: "complete", "time" or "interrupted".

    Raises:
        UsageError: `out` holds a run already, a resumed run's configuration is another's, or the network to start from
            has another preset or recipe.
        DataError: too few patches, or the network to start from cannot be read.
        BundleError: the bundle to start from carries no weights, or is damaged.
        HostError: the device is not there, or its memory is too small.
        N2NError: the loss is no longer finite.
    """
    device = find_device(config.device)
    config, weights = settle(config, device, out, resume=resume)
    side = config.recipe.patch_size
    training, held = split(store.corners, side, config.validation_fraction, config.seed)
    if len(training) == 0:
        raise DataError(f"{len(store)} patches are too few to train on; give more micrographs or smaller patches")
    chosen = np.linspace(0, len(held) - 1, min(len(held), _VALIDATION_PAIRS)).astype(int)
    validation = _validation(store, held[chosen], config)

    torch.backends.cudnn.benchmark = True  # all steps have one shape: the search for the fastest kernels pays
    keep_best = store.recorrupted or config.start is not None
    run = start(out, config, device, resume=resume, facts=facts or {}, keep_best=keep_best, weights=weights)
    if config.start is not None and not run.history and len(validation):
        run.report(validation)
    network: Callable[[torch.Tensor], torch.Tensor] = torch.compile(run.network) if config.compile else run.network
    sign = -1 if config.invert else 1
    # Looking at the held-out patches costs about a step; a run of 3 minutes on a CPU has few to spare.
    rows = min(100, max(1, config.steps // 10)) if config.max_minutes is None else 20
    seconds_before = run.seconds
    began = time.monotonic()
    with (
        stop_on_signal() as stopping,
        Batches(store, training, config, run.step, pin=device.type == "cuda") as batches,
        explained_memory_errors(),
    ):
        run.network.train()
        for pairs, ways, amplitudes in batches:
            done = run.done
            if done >= 1 or stopping.event.is_set():
                break
            rate = run.set_rate()
            pairs = sign * pairs.to(device, non_blocking=True)
            if store.recorrupted:
                pairs = recorrupt(pairs, amplitudes.to(device, non_blocking=True), (config.seed, run.step, 2))
            halves = augment(pairs, ways.to(device, non_blocking=True))
            noisy, target, factor = vary(*halves, config, run.step, len(training), fresh=store.recorrupted)
            with run.autocast():
                denoised = network(channels_last(noisy)).float()
            loss = nn.functional.mse_loss(factor * denoised, factor * target)
            run.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            run.update(loss)
            run.step += 1
            run.seconds = seconds_before + time.monotonic() - began

            if int(rows * run.done) > int(rows * done):
                run.report(validation)
            if time.monotonic() - run.saved > _SAVE_EVERY:
                run.save(validation)
            if progress is not None:
                progress(
                    Progress(
                        step=run.step,
                        done=run.done,
                        seconds=run.seconds,
                        learning_rate=rate,
                        loss=run.recent[-1] if run.recent else run.history[-1].loss,
                        validation_loss=run.history[-1].validation_loss if run.history else float("nan"),
                    )
                )
    if run.done < 1:
        return run.save(validation, "interrupted")
    return run.save(validation, "complete" if run.step >= config.steps else "time")


def settle(
    config: TrainConfig, device: torch.device, out: Path, *, resume: bool
) -> tuple[TrainConfig, dict[str, torch.Tensor] | None]:
    """The configuration with the preset that a run in `out` has, and the weights that a new one starts from, if any.

    Raises:
        UsageError, DataError, BundleError: as for `fit`.
    """
    if resume and (out / STATE).exists():  # the network is in the state; what it started from may be gone
        preset = load_state(out / STATE)["config"]["preset"] if config.preset == AUTO else config.preset
        return config.model_copy(update={"preset": preset}), None
    if (point := load_starting_point(config)) is not None:
        return config.model_copy(update={"preset": point.preset}), point.weights
    return config.chosen(device.type), None


def _validation(store: PatchStore, held: NDArray[np.int64], config: TrainConfig) -> NDArray[np.float32]:
    """Held-out pairs (n, 2, side, side), with the same noise in every look at them."""
    if len(held) == 0:
        return np.empty((0, 2, config.recipe.patch_size, config.recipe.patch_size), np.float32)
    pairs = store.read(held) * np.float16(-1 if config.invert else 1)
    if store.recorrupted:
        return validation_pairs(pairs, store.amplitudes(held), config.alpha, config.seed)
    return pairs.astype(np.float32)


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU where there is one.

    Raises:
        HostError: it is not there. A GPU that was asked for is never replaced by the CPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
    except RuntimeError as error:
        raise HostError(f"device {name!r} is unknown; choose auto, cpu, gpu (or cuda) or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise HostError(f"device {name!r} is not supported; choose auto, cpu, gpu (or cuda) or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise HostError(
            f"device {name!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs; "
            "use --device cpu, or install a torch with CUDA"
        )
    return device


@contextmanager
def explained_memory_errors() -> Iterator[None]:
    """Say what helps when the GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HostError(
            "the GPU's memory is too small for this batch; take a smaller --batch-size, or --checkpointing"
        ) from error
