"""`train`: a whole training, from a micrograph table to `model.pt`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import NamingOptions, OpticsOptions
from n2n_deploy.files.atomic import make_writable_folder
from n2n_deploy.io.pairs import read_pairs
from n2n_deploy.io.star import MicrographTable, read_micrographs
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.fit import Progress, find_device, fit, settle
from n2n_deploy.train.noise_figure import draw_noise
from n2n_deploy.train.patches import Preparation, prepare_patches
from n2n_deploy.train.run import refuse_taken_folder
from n2n_deploy.train.store import PatchStore

_MINIMUM_PATCHES = 8


@dataclass(frozen=True, slots=True)
class Preparing:
    """Progress of cutting patches, in micrographs."""

    finished: int
    total: int


def train(
    table_path: Path | str,
    out: Path | str,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    patches: Path | str | None = None,
    naming: NamingOptions | None = None,
    optics: OpticsOptions | None = None,
    allow_denoised: bool = False,
    workers: int | None = None,
    progress: Callable[[Preparing | Progress], None] | None = None,
    prepared: Callable[[Preparation], None] | None = None,
) -> Path:
    """Train a denoiser on a table's micrographs: on their even and odd halves, or on full exposures alone.

    Args:
        table_path: a micrograph STAR file, or another source that `read_micrographs` accepts.
        out: folder of the run: `model.pt`, `state.pt`, the curves and the validation image.
        config: how to train; None for the paper's settings.
        resume: continue the run in `out` if there is one; existing patches are used either way.
        patches: folder of the patch store; None for `out/patches`.
        naming: how files and their halves are found.
        optics: for tables and files that lack them.
        allow_denoised: learn from halves that this program denoised; they are refused by default.
        workers: micrographs prepared concurrently; None for one per processor, but at most 4 to limit memory.
        progress: called with a `Preparing` after each micrograph and a `Progress` after each step.
        prepared: called with the outcome for each micrograph, before the training starts.

    Returns:
        The path of `out/model.pt`.

    Raises:
        UsageError: options that contradict each other or the network to start from, or `out` holds a run and `resume`
            is off.
        DataError: the table or the network to start from cannot be read, or too few micrographs can be used.
        BundleError: the bundle to start from carries no weights, or is damaged.
        HostError: the device, memory, disk space or permission is missing.
        N2NError: the training diverged.
    """
    config = config or TrainConfig()
    known = (optics or OpticsOptions()).model_dump()
    read = partial(read_micrographs, Path(table_path), naming, need_ctf=config.recipe.phase_flip, **known)
    _check(Path(out), config, resume=resume)
    table, halves = read_pairs(lambda need: read(need_halves=need), config.pairs)
    if not halves and config.pairs == "auto":
        table.notes.append(
            "neither the table nor the options name even and odd halves: training on recorrupted pairs, full exposures "
            "with noise of their own spectrum added; name halves with --suffixes"
        )
    return train_on(
        table,
        str(table_path),
        out,
        config,
        halves=halves,
        resume=resume,
        patches=patches,
        allow_denoised=allow_denoised,
        workers=workers,
        progress=progress,
        prepared=prepared,
    )


def train_on(
    table: MicrographTable,
    name: str,
    out: Path | str,
    config: TrainConfig,
    *,
    halves: bool,
    resume: bool = False,
    patches: Path | str | None = None,
    allow_denoised: bool = False,
    workers: int | None = None,
    progress: Callable[[Preparing | Progress], None] | None = None,
    prepared: Callable[[Preparation], None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Train on a table that was read; for the other arguments, the result and the errors see `train`.

    Args:
        table: the micrographs, or those of them to train on.
        name: of the table, for the model's summary.
        out: as for `train`.
        config: how to train.
        halves: train on even and odd halves, which all have, and not on full exposures.
        resume: as for `train`.
        patches: as for `train`.
        allow_denoised: as for `train`.
        workers: as for `train`.
        progress: as for `train`.
        prepared: as for `train`.
        facts: for the model's summary, beside those on the data; plain types.
    """
    out = Path(out)
    _check(out, config, resume=resume)
    make_writable_folder(out)
    usable = [micrograph for micrograph in table.micrographs if micrograph.row not in table.problems]
    result = prepare_patches(
        usable,
        config.recipe,
        Path(patches) if patches is not None else out / "patches",
        overlap=config.patch_overlap,
        allow_denoised=allow_denoised,
        recorrupted=not halves,
        workers=workers or min(4, os.cpu_count() or 1),
        progress=None if progress is None else lambda finished, total: progress(Preparing(finished, total)),
    )
    names = {micrograph.row: micrograph.name for micrograph in table.micrographs}
    result.refused = {names[row]: reason for row, reason in table.problems.items()} | result.refused
    result.notes += table.notes
    ends = [2 * micrograph.optics.pixel_size for micrograph in table.micrographs]
    if short := [end for end in ends if end > config.recipe.max_resolution]:
        result.notes.append(
            f"{len(short)} of {len(ends)} micrographs end at {min(short):.3g} to {max(short):.3g} Å, their Nyquist "
            f"frequency, short of {config.recipe.max_resolution:g} Å; the network learns nothing finer from them"
        )
    if prepared is not None:
        prepared(result)
    store = PatchStore(result.files)
    try:
        if len(store) < _MINIMUM_PATCHES:
            raise DataError(_too_few(name, len(store), result))
        known = {
            **(facts or {}),
            "data_set": name.encode(errors="replace").decode(),
            "micrographs": len(result.files),
            "micrographs_refused": len(result.refused),
            "patches": len(store),
            "pairs": "halves" if halves else "recorrupted",
        }
        draw_noise(out / "noise.png", result.files)
        return fit(store, out, config, resume=resume, progress=progress, facts=known)
    finally:
        store.close()


def _check(out: Path, config: TrainConfig, *, resume: bool) -> None:
    """Raise what would stop the training: cutting the patches of a large data set takes long."""
    refuse_taken_folder(out, resume=resume)
    settle(config, find_device(config.device), out, resume=resume)


def _too_few(name: str, patches: int, result: Preparation) -> str:
    """Say why the training cannot start, with the first refusal as the likely cause."""
    refused = f"{len(result.refused)} of {len(result.refused) + len(result.files)} micrographs were refused"
    first = next(iter(result.refused.values()), None)
    return f"{name}: {patches} patches are too few to train on, at least {_MINIMUM_PATCHES} are needed; " + (
        f"{refused}, the first because {first}" if first else "give more micrographs or a smaller --patch-size"
    )
