"""The files of a training: `model.pt`, the network to export, and `state.pt`, from which training resumes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.layers import Network
from n2n_deploy.train.model import build, plain_weights

MODEL_FORMAT = 1
STATE_FORMAT = 1

_PAIRS = 16


@dataclass
class Checkpoint:
    """A trained network and its origin.

    Attributes:
        preset: the network's name in `PRESETS`.
        recipe: how its training patches were made.
        weights: the state dict of the plain network (weight normalisation folded), float32 on the CPU.
        step: steps trained.
        summary: losses, duration, data set and versions, for information.
        pairs: a few held-out pairs of patches (n, 2, side, side) float32, from which the export quantises; n may be 0.
        path: the file it was read from.
    """

    preset: str
    recipe: Recipe
    weights: dict[str, torch.Tensor]
    step: int
    summary: dict[str, Any] = field(default_factory=dict)
    pairs: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2, 8, 8), np.float32))
    path: Path = Path("model.pt")

    def network(self) -> Network:
        """Build the network with these weights, in evaluation mode.

        Raises:
            DataError: the weights are those of another network, which the preset was in an earlier version.
        """
        network = build(self.preset)
        load_weights(network, self.weights, self.preset, self.path)
        return network.eval()


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], preset: str, path: Path) -> None:
    """Load a state dict that was read from `path`.

    Raises:
        DataError: it is another network's.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: the weights are not those of this version's preset {preset!r}, which was another network "
            "when they were trained; train again, or export with the version that trained them (its bundles run here)"
        ) from error


def save_model(
    path: Path,
    network: nn.Module | dict[str, torch.Tensor],
    config: TrainConfig,
    step: int,
    summary: dict[str, Any],
    pairs: NDArray[np.float32] | None = None,
) -> None:
    """Write `model.pt` atomically; it holds plain types and tensors, loadable with `weights_only=True`.

    Args:
        path: the file.
        network: the network in training, which is not changed, or weights that `plain_weights` made.
        config: of the run.
        step: steps trained.
        summary: strings, numbers, lists and dicts.
        pairs: held-out pairs (n, 2, side, side), of which a few megabytes are kept for the export.
    """
    content = {
        "format": MODEL_FORMAT,
        "preset": config.preset,
        "recipe": config.recipe.model_dump(),
        "weights": network if isinstance(network, dict) else plain_weights(network),
        "step": step,
        "summary": summary,
    }
    if pairs is not None and len(pairs):
        chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), _PAIRS)).astype(int)
        content["pairs"] = torch.from_numpy(pairs[chosen]).half()
    with atomic_write(path) as stream:
        torch.save(content, stream)


def load_model(path: Path) -> Checkpoint:
    """Read `model.pt`.

    Raises:
        DataError: the file is missing, damaged, of a newer format, or not a model file.
    """
    content = _load(path, "model", MODEL_FORMAT, {"preset", "recipe", "weights", "step"})
    return Checkpoint(
        preset=content["preset"],
        recipe=Recipe(**content["recipe"]),
        weights=content["weights"],
        step=content["step"],
        summary=content.get("summary", {}),
        **({"pairs": content["pairs"].float().numpy()} if "pairs" in content else {}),
        path=path,
    )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state.pt` atomically."""
    with atomic_write(path) as stream:
        torch.save({"format": STATE_FORMAT, **state}, stream)


def load_state(path: Path) -> dict[str, Any]:
    """Read `state.pt`: config, step, seconds, network, optimiser and history.

    Raises:
        DataError: the file is missing, damaged, of a newer format, or not a training state.
    """
    return _load(path, "training state", STATE_FORMAT, {"config", "step", "seconds", "network", "optimiser", "best"})


def _load(path: Path, what: str, newest: int, needed: set[str]) -> dict[str, Any]:
    """Read a dict that `torch.save` wrote, without running code from the file."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such {what} file; make one with `n2n-deploy train`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files torch raises many kinds of error
        raise DataError(
            f"{path}: cannot be read as a {what} file ({type(error).__name__}); give a file that `n2n-deploy train` "
            "wrote, or train again if it is damaged"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int) or not needed <= content.keys():
        raise DataError(f"{path}: not a {what} file of n2n-deploy; give a file that `n2n-deploy train` wrote")
    if found > newest:
        raise DataError(f"{path}: {what} format {found}, newer than this version's {newest}; update n2n-deploy")
    return dict(content)
