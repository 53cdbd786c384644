"""`adapt`: a bundle's network, trained on for minutes on the micrographs that it is about to denoise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2n_deploy.bundle.adaptation import FACT, Adaptation
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.io.star import MicrographTable
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.job import train_on
from n2n_deploy.train.patches import Preparation

_PATCH = 96
_BATCH = 8
_FEW = 8


def adapt(
    table: MicrographTable,
    name: str,
    bundle: Bundle,
    adaptation: Adaptation,
    out: Path,
    *,
    halves: bool,
    device: str = "auto",
    invert: bool = False,
    allow_denoised: bool = False,
    progress: Callable[[Any], None] | None = None,
    prepared: Callable[[Preparation], None] | None = None,
) -> Path:
    """Train a bundle's network on micrographs, from its weights on; go on where an earlier call was interrupted.

    Args:
        table: the micrographs.
        name: of the table, for the model's summary.
        bundle: of the network; it carries its weights.
        adaptation: what the new model says of itself, and for how many minutes to train.
        out: folder of the run.
        halves: train on even and odd halves and not on full exposures.
        device: as in `TrainConfig`.
        invert: as in `TrainConfig`.
        allow_denoised: take micrographs that this program denoised.
        progress: as for `train`.
        prepared: as for `train`.

    Returns:
        `out/model.pt`: the step that did best on held-out patches, which may be the bundle's own network.

    Raises:
        DataError, HostError, N2NError: as for `train`.
        BundleError: the bundle carries no weights.
    """
    recipe = bundle.recipe
    config = TrainConfig(
        # On a processor small patches give more steps, and the network never saw more than their pixels at once.
        recipe=recipe.model_copy(update={"patch_size": min(_PATCH, recipe.patch_size)}),
        start=str(bundle.path.resolve()),
        max_minutes=adaptation.minutes,
        batch_size=_BATCH,
        patch_overlap=0.5 if len(table) < _FEW else 0.0,
        validation_fraction=0.1,
        pairs="halves" if halves else "recorrupted",
        device=device,
        invert=invert,
    )
    return train_on(
        table,
        name,
        out,
        config,
        halves=halves,
        resume=True,
        allow_denoised=allow_denoised,
        progress=progress,
        prepared=prepared,
        facts={FACT: adaptation.model_dump(mode="json")},
    )
