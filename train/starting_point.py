"""What a training starts from: the network of an earlier one, and what the two must have in common."""

import zipfile
from contextlib import suppress
from pathlib import Path

import torch

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.general import locate
from n2n_deploy.bundle.members import MANIFEST
from n2n_deploy.bundle.weights import read_weights
from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.recipe import RecipeRange, choose_recipe
from n2n_deploy.train.checkpoint import Checkpoint, load_model
from n2n_deploy.train.config import AUTO, TrainConfig


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a trained network, from a checkpoint or from a bundle that carries its weights.

    Args:
        path: `model.pt`, `model.n2n`, or "general" for the package's own.

    Raises:
        DataError: it is missing, damaged, of a newer format, or neither of the two.
        BundleError: the bundle is damaged, or carries no trainable weights.
        HostError: the general model is not installed.
    """
    path = locate(path)
    if not _is_bundle(path):
        return load_model(path)
    bundle = Bundle.open(path)
    facts = dict(bundle.manifest.training)
    step = facts.pop("step", 0)
    if bundle.manifest.accepts is not None:
        facts["accepts"] = bundle.manifest.accepts.model_dump(mode="json")
    return Checkpoint(
        preset=bundle.manifest.preset,
        recipe=bundle.recipe,
        weights={name: torch.from_numpy(values) for name, values in read_weights(bundle).items()},
        step=step if isinstance(step, int) else 0,
        summary=facts,
        path=path,
    )


def load_starting_point(config: TrainConfig) -> Checkpoint | None:
    """Read the network that a run starts from; None for a run from fresh weights.

    Raises:
        UsageError: the run's preset is not that of the network, or its recipe none that the network takes.
        DataError, BundleError, HostError: as for `load_checkpoint`.
    """
    if config.start is None:
        return None
    start = load_checkpoint(config.start)
    if config.preset not in (AUTO, start.preset):
        raise UsageError(
            f"--preset {config.preset}: {start.path}, which the training starts from, is {start.preset}; leave "
            "--preset out, or --from"
        )
    accepts = start.summary.get("accepts")
    choose_recipe(
        start.recipe,
        None if accepts is None else RecipeRange.model_validate(accepts),
        f"{start.path}, which the training starts from,",
        max_resolution=config.recipe.max_resolution,
        phase_flip=config.recipe.phase_flip,
    )
    if config.recipe.highpass != start.recipe.highpass:
        raise UsageError(
            f"--highpass {config.recipe.highpass:g}: {start.path}, which the training starts from, was trained with "
            f"{start.recipe.highpass:g} Å; leave --highpass out"
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
