"""`Run`: the state of a training, its optimiser step, validation, saving and resuming."""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from n2n_deploy.core.errors import N2NError, UsageError
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.train.checkpoint import load_state, load_weights, save_model, save_state
from n2n_deploy.train.config import RESUMABLE, TrainConfig
from n2n_deploy.train.curves import Row, draw_curves, draw_validation, tensorboard_writer, write_csv
from n2n_deploy.train.layers import Network
from n2n_deploy.train.model import add_weight_norm, build, channels_last, plain_weights
from n2n_deploy.train.muon import BETAS, Muon

STATE = "state.pt"
"""The file from which a run resumes."""


@dataclass
class Run:
    """A network in training and the progress of its run.

    Attributes:
        config: of the run.
        out: its folder.
        device: of the network.
        network: weight-normalised where Adam trains it.
        optimiser: Adam, or `Muon`.
        facts: about the data, for the model's summary.
        step: steps trained.
        seconds: of optimisation, in all sessions of the run.
        recent: losses since the last row of the curves.
        history: the rows of the curves.
        saved: monotonic time of the last save.
        keep_best: `model.pt` gets the weights of the lowest loss on held-out patches. A network that remembers an
            exposure can tell the noise that was added from its own, and predict the target by it: from then on the loss
            falls on the training patches alone.
        best: those weights, None before the first look at held-out patches.
        best_step: when they were the network's.
    """

    config: TrainConfig
    out: Path
    device: torch.device
    network: Network
    optimiser: torch.optim.Adam
    facts: dict[str, Any]
    step: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)
    keep_best: bool = False
    best: dict[str, Tensor] | None = None
    best_step: int = 0

    @property
    def model_path(self) -> Path:
        """The file of the network to export."""
        return self.out / "model.pt"

    @property
    def done(self) -> float:
        """Fraction of the run that is done."""
        return self.config.done(self.step, self.seconds)

    def set_rate(self) -> float:
        """Set and return the learning rate of the current step."""
        rate = self.config.rate(self.done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def update(self, loss: Tensor) -> None:
        """Take an optimiser step and record the loss.

        This is the only place that waits for a GPU, after all work of the step was queued.

        Raises:
            N2NError: the loss is not finite. The weights are those of the previous step; saved files stay.
        """
        # As in torch.amp.GradScaler: the fused Adam reads this flag on the device and skips the update if it is set.
        self.optimiser.found_inf = (~loss.detach().isfinite()).float()  # type: ignore[attr-defined]
        self.optimiser.step()
        value = loss.item()
        if not math.isfinite(value):
            kept = f"{self.model_path} holds an earlier state" if self.model_path.exists() else "nothing was saved yet"
            raise N2NError(
                f"the loss became {value} at step {self.step + 1}; {kept}; "
                f"train with a lower --learning-rate than {self.config.rate(0):g}"
            )
        self.recent.append(value)

    def report(self, validation: NDArray[np.float32]) -> None:
        """Add a row to the curves, with the loss on held-out pairs (n, 2, side, side)."""
        loss = float(np.mean(self.recent)) if self.recent else math.nan
        self.recent.clear()
        row = Row(self.step, self.seconds, self.config.rate(self.done), loss, self.validate(validation))
        if self.keep_best and row.validation_loss < min([row.validation_loss for row in self.history] or [math.inf]):
            self.best, self.best_step = plain_weights(self.network), self.step
        self.history.append(row)
        write_csv(self.out / "curves.csv", self.history)
        if (writer := tensorboard_writer(self.out / "tensorboard", self.step)) is not None:
            for name, value in asdict(row).items():
                writer.add_scalar(name, value, self.step)
            writer.close()

    def denoise(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run images (n, side, side) through the current network."""
        self.network.eval()
        with torch.inference_mode(), self.autocast():
            results = []
            for batch in np.array_split(images, -(-len(images) // self.config.batch_size)):
                noisy = channels_last(torch.from_numpy(batch[:, None]).to(self.device))
                results.append(self.network(noisy).float().cpu().numpy()[:, 0])
        self.network.train()
        return np.concatenate(results)

    def validate(self, pairs: NDArray[np.float32]) -> float:
        """Mean squared error on pairs (n, 2, side, side); NaN if there are none."""
        if len(pairs) == 0:
            return math.nan
        return float(np.mean((self.denoise(pairs[:, 0]) - pairs[:, 1]) ** 2, dtype=np.float64))

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 if the config allows it and the hardware multiplies it."""
        fast = self.device.type == "cuda" or multiplies_bfloat16()
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16 and fast)

    def save(self, validation: NDArray[np.float32], ended: str = "running") -> Path:
        """Write model, state and pictures, each atomically; return the path of the model."""
        last = self.history[-1] if self.history and self.history[-1].step else None
        summary = {
            **self.facts,
            "config": self.config.model_dump(),
            "ended": ended,
            "seconds": self.seconds,
            "device": self.device.type,
            "torch": str(torch.__version__),
            "loss": last.loss if last else None,
            "validation_loss": last.validation_loss if last else None,
        }
        if self.best is not None:
            summary["best_step"] = self.best_step
        network = self.network if self.best is None else self.best
        save_model(self.model_path, network, self.config, self.step, summary, validation)
        save_state(
            self.out / STATE,
            {
                "config": self.config.model_dump(),
                "step": self.step,
                "seconds": self.seconds,
                "recent": self.recent,
                "history": [asdict(row) for row in self.history],
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "best": self.best,
                "best_step": self.best_step,
            },
        )
        if self.history:
            draw_curves(self.out / "curves.png", self.history)
        if len(validation):
            draw_validation(self.out / "validation.png", validation, self.denoise(validation[:, 0]))
        self.saved = time.monotonic()
        return self.model_path


def start(
    out: Path,
    config: TrainConfig,
    device: torch.device,
    *,
    resume: bool,
    facts: dict[str, Any],
    keep_best: bool = False,
    weights: dict[str, Tensor] | None = None,
) -> Run:
    """Start a run in `out`, or resume the one that is there; see `Run` for the arguments.

    Args:
        out: see `Run`.
        config: see `Run`.
        device: see `Run`.
        resume: go on with the run in `out`, where there is one.
        facts: see `Run`.
        keep_best: see `Run`.
        weights: what the network of a new run starts with; None for fresh weights.

    Raises:
        UsageError: there is a run and `resume` is off, or its configuration differs.
        DataError: its state cannot be read.
    """
    refuse_taken_folder(out, resume=resume)
    state_path = out / STATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build(config.preset)
    if weights is not None:
        network.load_state_dict(weights)
    network.checkpointing = config.checkpointing
    network.to(device)
    run = Run(config, out, device, network, make_optimiser(network, config), facts, keep_best=keep_best)
    if resume and state_path.exists():
        state = load_state(state_path)
        refuse_other_run(TrainConfig(**state["config"]), config, state_path)
        load_weights(network, state["network"], config.preset, state_path)
        for group in state["optimiser"]["param_groups"]:
            group |= {"fused": True, "foreach": None}  # how a step is computed may change between sessions
        run.optimiser.load_state_dict(state["optimiser"])
        run.step, run.seconds = state["step"], state["seconds"]
        run.best, run.best_step = state["best"], state["best_step"]
        run.recent, run.history = state["recent"], [Row(**row) for row in state["history"]]
    return run


def make_optimiser(network: Network, config: TrainConfig) -> torch.optim.Adam:
    """Adam, for which the network is weight-normalised in place, or Muon."""
    if config.method == "muon":
        return Muon(network)
    add_weight_norm(network)
    return torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)


def refuse_taken_folder(out: Path, *, resume: bool) -> None:
    """Raise UsageError where a new run would replace the one in `out`."""
    if not resume and any((out / name).exists() for name in (STATE, "model.pt")):
        raise UsageError(f"{out}: holds a training already; continue it with --resume or choose another folder")


def refuse_other_run(earlier: TrainConfig, now: TrainConfig, path: Path) -> None:
    """Raise UsageError where the configuration of a resumed run differs in a field that must not change."""
    for name in TrainConfig.model_fields.keys() - RESUMABLE:
        before, after = getattr(earlier, name), getattr(now, name)
        if before != after:
            raise UsageError(
                f"{path}: the run to resume has {name} = {before}, but {after} was given; leave it unchanged "
                "or train in another folder"
            )
