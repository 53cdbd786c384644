"""What a training starts from: the network of an earlier one, and what the two must have in common."""

import zipfile
from contextlib import suppress
from pathlib import Path

import torch

from n2n_deploy import data
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import MANIFEST
from n2n_deploy.bundle.weights import read_weights
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.train.checkpoint import Checkpoint, load_model
from n2n_deploy.train.config import AUTO, TrainConfig

GENERAL = "general"
"""The name of the model that ships with the package."""

_OPTIONS = {"max_resolution": "--max-resolution", "highpass": "--highpass", "phase_flip": "--phase-flip"}
"""What of a recipe a network has learned, and how the command line calls it; patches may have any size."""


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a trained network, from a checkpoint or from a bundle that carries its weights.

    Args:
        path: `model.pt`, `model.n2n`, or "general" for the package's own.

    Raises:
        DataError: it is missing, damaged, of a newer format, or neither of the two.
        BundleError: the bundle is damaged, or carries no trainable weights.
    """
    if str(path) == GENERAL:
        path = Path(data.__file__).with_name("general.n2n")
        if not path.is_file():
            raise DataError("this installation has no general model; name a bundle or checkpoint to start from")
    path = Path(path)
    if not _is_bundle(path):
        return load_model(path)
    bundle = Bundle.open(path)
    weights = {name: torch.from_numpy(values) for name, values in read_weights(bundle).items()}
    facts = dict(bundle.manifest.training)
    step = facts.pop("step", 0)
    return Checkpoint(
        preset=bundle.manifest.preset,
        recipe=bundle.recipe,
        weights=weights,
        step=step if isinstance(step, int) else 0,
        summary=facts,
        path=path,
    )


def load_starting_point(config: TrainConfig) -> Checkpoint | None:
    """Read the network that a run starts from; None for a run from fresh weights.

    Raises:
        UsageError: the run's preset or recipe is not that of the network.
        DataError, BundleError: as for `load_checkpoint`.
    """
    if config.start is None:
        return None
    start = load_checkpoint(config.start)
    if config.preset not in (AUTO, start.preset):
        raise UsageError(
            f"--preset {config.preset}: {start.path}, which the training starts from, is {start.preset}; leave "
            "--preset out, or --from"
        )
    for field, option in _OPTIONS.items():
        given, learned = getattr(config.recipe, field), getattr(start.recipe, field)
        if given != learned:
            raise UsageError(
                f"{option} {given}: {start.path}, which the training starts from, was trained with {learned}; leave "
                f"{option} out, or --from"
            )
    start.network()  # an error in the weights comes before anything is written
    return start


def _is_bundle(path: Path) -> bool:
    """Whether a file is meant as a bundle; checkpoints are zips, too."""
    if path.suffix == ".n2n":
        return True
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as file:
        return MANIFEST in file.namelist()
    return False
