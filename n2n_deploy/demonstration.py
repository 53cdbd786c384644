"""The whole workflow on the real micrograph in the package: denoise, adapt, train, export, measure, draw.

Each electron count is split at random between the two halves (see `n2n_deploy.data`). The general model is used as it
is, adapted to full exposures alone, and trained on with halves. Adaptation and training see the upper four fifths of
the frame; the numbers and the close-up in the picture come from the rest, which no network ever saw.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy import data
from n2n_deploy.batch.denoise import denoise
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.core.options import NamingOptions, Pairs
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.arrays import to_host
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.mrc import read_mrc, write_mrc
from n2n_deploy.report.micrograph_axes import draw_micrograph
from n2n_deploy.statistics.estimates import Estimates, estimate
from n2n_deploy.statistics.wiener import fit_wiener

TRAINING_SHARE = 0.8
RECIPE = Recipe(max_resolution=8.0, patch_size=96)

_STAR = """# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
opticsGroup1 1 {optics.pixel_size} {optics.voltage} {optics.spherical_aberration} {optics.amplitude_contrast} \
{optics.pixel_size}

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
micrographs/{stem}_DW.mrc 1 {ctf.defocus_u} {ctf.defocus_v} {ctf.defocus_angle}
"""


METHODS = {
    "wiener": "Wiener filter",
    "general": "general model",
    "adapted": "adapted, without halves",
    "fine_tuned": "fine-tuned, with halves",
}
"""What the demonstration compares: names and what to call them."""


@dataclass(frozen=True)
class Demonstration:
    """The result of a run of the demonstration.

    Attributes:
        estimates: from the held-out halves, by what denoised them, a key of `METHODS`. The Wiener filter is fitted to
            the training part of the halves.
        picture: the before/after picture, of the fine-tuned model.
        bundle: the fine-tuned model.
        seconds: wall time by step.
    """

    estimates: dict[str, Estimates]
    picture: Path
    bundle: Path
    seconds: dict[str, float]


def write_pair(folder: Path, stem: str, even: NDArray[Any], odd: NDArray[Any]) -> Path:
    """Write the two halves, their sum and a RELION 3.1 table of them; returns the table."""
    (folder / "micrographs").mkdir(parents=True, exist_ok=True)
    label = "electron counts thinned from mrcfile's test data fei-extended.mrc"
    for suffix, image in (("DW", even + odd), ("EVN", even), ("ODD", odd)):
        path = folder / "micrographs" / f"{stem}_{suffix}.mrc"
        write_mrc(path, image.astype(np.float32), pixel_size=data.OPTICS.pixel_size, label=label)
    table = folder / f"{stem}.star"
    table.write_text(_STAR.format(optics=data.OPTICS, ctf=data.CTF, stem=stem), encoding="utf-8")
    return table


def run_demonstration(
    folder: Path,
    *,
    minutes: float = 1.0,
    seed: int = 0,
    announce: Callable[[str], None] = lambda _: None,
    training_progress: Callable[..., None] | None = None,
) -> Demonstration:
    """Run the whole workflow in `folder` and measure the result.

    Args:
        folder: where everything goes; an earlier demonstration there is replaced.
        minutes: of each of the two trainings.
        seed: of thinning and training.
        announce: told each step as it begins.
        training_progress: passed on to the training.

    Raises:
        HostError: this installation has no general model, or the folder cannot be written to.
    """
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train import TrainConfig, train

    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def step(name: str, text: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()
        announce(text)

    def trained(name: str, pairs: Pairs) -> Path:
        run = folder / name
        if run.exists():
            shutil.rmtree(run)
        config = TrainConfig(
            start="general",
            recipe=RECIPE,
            batch_size=8,
            max_minutes=minutes,
            patch_overlap=0.5,
            pairs=pairs,
            seed=seed,
        )
        naming = NamingOptions(project=folder, suffixes=("DW", "EVN", "ODD"))
        checkpoint = train(table, run, config, naming=naming, progress=training_progress)
        return export_bundle(checkpoint, folder / f"{name}.n2n")

    announce("splitting a real micrograph's electrons into an even and an odd half")
    even, odd = data.thin(data.micrograph_counts(), seed)
    border = int(TRAINING_SHARE * even.shape[0])
    whole = write_pair(folder, "real_0001", even, odd)
    table = write_pair(folder, "training_0001", even[:border], odd[:border])
    step("data", f"adapting the general model to its upper {TRAINING_SHARE:.0%}, without halves, for {minutes:g} min")
    adapted = trained("adapted", "recorrupted")
    step("adapt", f"training the general model on the halves of the same part for {minutes:g} min")
    bundle = trained("model", "halves")
    step("train", "denoising the whole micrograph")
    options = DenoiseOptions(on_exists=OnExists.OVERWRITE)
    denoise(whole, bundle, folder / "denoised", naming=NamingOptions(project=folder), options=options)
    step("denoise", f"measuring on the lower {1 - TRAINING_SHARE:.0%}, which was not used for training")
    models: dict[str, Path | str] = {"general": "general", "adapted": adapted, "fine_tuned": bundle}
    estimates = _measure(models, even, odd, border)
    step("measure", "drawing the picture")
    before = read_mrc(folder / "micrographs" / "real_0001_DW.mrc").data
    after = read_mrc(folder / "denoised" / "micrographs" / "real_0001_DW.mrc").data
    picture = draw_before_after(before, after, border, data.OPTICS.pixel_size, folder / "before_after.png")
    step("picture", "done")
    return Demonstration(estimates, picture, bundle, seconds)


def _measure(
    models: Mapping[str, Path | str], even: NDArray[Any], odd: NDArray[Any], border: int
) -> dict[str, Estimates]:
    """Estimates of a Wiener filter and of networks on the rows below `border`."""

    def prepared(rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        first, second = (to_host(preprocess(half[rows], data.OPTICS, data.CTF, RECIPE).image) for half in (even, odd))
        return first, second

    wiener = fit_wiener(*prepared(slice(0, border)))
    m1, m2 = prepared(slice(border, None))
    found = {"wiener": estimate(m1, m2, wiener(m1), wiener(m2))}
    for name, model in models.items():
        with Denoiser(model) as denoiser:
            found[name] = estimate(m1, m2, denoiser.network(m1), denoiser.network(m2))
    return found


def draw_before_after(before: NDArray[Any], after: NDArray[Any], border: int, pixel_size: float, path: Path) -> Path:
    """Draw the whole frame and a close-up of the part not trained on, before and after; returns the PNG's path."""
    from matplotlib.figure import Figure

    side = min(1000, before.shape[0] - border, before.shape[1])
    top, left = border + (before.shape[0] - border - side) // 2, (before.shape[1] - side) // 2
    close = (slice(top, top + side), slice(left, left + side))
    figure = Figure(figsize=(12, 12.4), layout="constrained")
    for row, (part, pixels) in enumerate(((np.s_[:, :], 1024), (close, 512))):
        for column, (image, name) in enumerate(((before, "raw"), (after, "denoised"))):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            draw_micrograph(axes, image[part], pixel_size, pixels=pixels)
            where = "whole frame" if row == 0 else "close-up, not used for training"
            axes.set_title(f"{name}: {where}")
            if row == 0:
                axes.axhline(border * pixel_size / 10, color="tab:orange", linewidth=0.8)
    figure.savefig(path, dpi=110)
    return path
