"""`denoise --adapt`: train the model on for minutes on the micrographs at hand, once for all processes of a run."""

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_deploy.cli.common import err
from n2n_deploy.cli.progress import training_progress
from n2n_deploy.core.errors import HostError, UsageError

if TYPE_CHECKING:
    from n2n_deploy.batch.request import Request
    from n2n_deploy.bundle.adaptation import Adaptation
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.io.star import MicrographTable
    from n2n_deploy.train import Preparation

AdaptOption = Annotated[
    float | None,
    typer.Option(
        "--adapt",
        metavar="MINUTES",
        min=0.01,
        help="First train the model on for this long on up to 32 of these micrographs, with their halves or without; "
        "all shards share the result, adapted.n2n in the output folder. Needs PyTorch.",
        rich_help_panel="Run",
    ),
]


def adapted_request(
    request: "Request", minutes: float, *, watching: bool, idle: float | None, dry_run: bool, quiet: bool
) -> "Request":
    """Return the request with its model adapted to the table, by this process, an earlier one, or another shard.

    Args:
        request: with the model as it is.
        minutes: of training.
        watching: micrographs arrive one after the other; the model is adapted to the first.
        idle: see `first_micrographs`.
        dry_run: adapt nothing; where no adapted model is there, the request stays as it is.
        quiet: show no progress.

    Raises:
        UsageError: the output folder has another adapted bundle, or only signed bundles may be used.
        BundleError: the bundle carries no weights.
        HostError: PyTorch is missing, or shards cannot lock the output folder.
        DataError, N2NError: as for training.
        typer.Exit: the training was interrupted.
    """
    from n2n_deploy.batch.adaptation import FIRST, LOCK, choose, find_adapted, read_table
    from n2n_deploy.batch.denoise import make_folder
    from n2n_deploy.batch.watch import first_micrographs
    from n2n_deploy.bundle.weights import read_weights
    from n2n_deploy.files.locks import locked

    _refuse_unsigned(request)
    table = read_table(request) if watching else request.read()
    bundle = find_adapted(request, table, minutes)
    if bundle is None:
        read_weights(request.bundle)  # an error here comes before anything is written
        if dry_run:
            _say(f"the model is forecast as it is; --adapt would train it for {minutes:g} min before", quiet=quiet)
            return request
        make_folder(request)
        if watching:
            _say(f"waiting for the first {FIRST} micrographs, to adapt the model to them", quiet=quiet)
            table = first_micrographs(request, FIRST, idle=idle)
        assert table is not None
        with locked(request.output / LOCK) as held:  # other shards wait here until the first has made it
            if not held and request.shard is not None:
                raise HostError(
                    f"{request.output}: its file system has no locks, so shards cannot share one adaptation; "
                    "adapt with a run over the whole table, then give adapted.n2n as the model of the shards"
                )
            bundle = find_adapted(request, table, minutes) or _adapt(request, choose(table), minutes, quiet=quiet)
    return replace(request, bundle=bundle)


def _adapt(request: "Request", table: "MicrographTable", minutes: float, *, quiet: bool) -> "Bundle":
    """Train and export; what is left beside the bundle are the pictures and the curves."""
    from n2n_deploy.batch.adaptation import ADAPTED, FOLDER, has_halves, hashes, plan_adaptation
    from n2n_deploy.bundle.archive import Bundle

    try:
        from n2n_deploy.export import export_bundle
        from n2n_deploy.train import load_model
        from n2n_deploy.train.adapt import adapt
    except ModuleNotFoundError as error:
        raise HostError(
            f"--adapt needs the Python library {error.name}, which is not installed here; run: pip install "
            "'n2n-deploy[train,export]', or leave --adapt out"
        ) from error
    adaptation = plan_adaptation(request, minutes, hashes(table.micrographs))
    folder = request.output / FOLDER / adaptation.key
    halves = all(map(has_halves, table.micrographs))
    pairs = "their halves" if halves else "recorrupted pairs of their full exposures"
    _say(f"adapting {request.bundle.path.name} to {len(table)} micrographs, by {pairs}", quiet=quiet)
    with training_progress(quiet=quiet) as progress:
        path = adapt(
            table,
            str(request.source),
            request.bundle,
            adaptation,
            folder,
            halves=halves,
            device=request.options.devices[0],
            invert=request.options.invert,
            allow_denoised=request.options.allow_denoised,
            progress=progress,
            prepared=lambda preparation: _report(preparation, quiet=quiet),
        )
    model = load_model(path)
    if model.summary["ended"] == "interrupted":
        _say(f"interrupted after {model.step} steps of the adaptation; continue with the same command", quiet=quiet)
        raise typer.Exit(130)
    bundle = Bundle.open(export_bundle(path, request.output / ADAPTED))
    _forget_training(folder)
    _say(_outcome(model.step, model.summary, adaptation), quiet=quiet)
    return bundle


def _forget_training(folder: Path) -> None:
    """Remove what is of no use once the bundle is written: patches and states, and PyTorch's memory on a GPU."""
    import torch

    shutil.rmtree(folder / "patches", ignore_errors=True)
    for name in ("state.pt", "model.pt"):
        with suppress(OSError):
            (folder / name).unlink()
    torch.cuda.empty_cache()  # without a GPU it does nothing


def _outcome(steps: int, summary: dict[str, Any], adaptation: "Adaptation") -> str:
    """What the training brought, in one line."""
    best = summary.get("best_step", steps)
    if best == 0:
        return f"{steps} steps of adaptation brought no gain on held-out patches; the model is used as it was"
    return f"adapted {adaptation.text}: {steps} steps, the best on held-out patches was step {best}"


def _refuse_unsigned(request: "Request") -> None:
    from n2n_deploy.bundle.trust import TRUSTED_KEYS

    if request.options.trusted_keys or os.environ.get(TRUSTED_KEYS):
        raise UsageError(
            "--adapt makes a bundle that nobody has signed, and only signed ones are used here; adapt where no trusted "
            "keys are configured, sign adapted.n2n, and denoise with it"
        )


def _report(preparation: "Preparation", *, quiet: bool) -> None:
    for note in preparation.notes:
        _say(note, quiet=quiet)
    for name, reason in preparation.refused.items():
        _say(f"{name} is not adapted to: {reason}", quiet=quiet)


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        err.print(text, markup=False, soft_wrap=True)
