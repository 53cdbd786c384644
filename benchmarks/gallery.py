"""The pictures of the gallery: micrographs before and after, the residual, and what failures look like.

    python -m benchmarks.gallery -o OUT [--steps 1500]

Trains the preset `small` on simulated proteasomes and on the upper four fifths of the package's real micrograph, then
draws each example of `benchmarks.gallery_examples`: the network's input, its output, the difference, and the noiseless
truth where it is known. Writes OUT/NAME.jpg and OUT/gallery.json with the recovered signal fraction of each, from the
halves and from the truth. A second run with the same OUT reuses micrographs and models.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import IDEAL, describe, warn_if_busy, write_json
from benchmarks.gallery_examples import PIXEL_SIZE, Example, real_examples, simulated_examples
from benchmarks.quality_methods import Image, network
from n2n_deploy import data
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.demonstration import RECIPE, TRAINING_SHARE, write_pair
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.estimates import estimate

SIZE = (768, 768)
PANEL = 2.6
"""Inches of one panel, at 100 pixels an inch."""


@dataclass(frozen=True)
class Model:
    """A network to train.

    Attributes:
        recipe: how micrographs become its input.
        real: whether it learns from the real micrograph.
        share: of the steps of the others.
    """

    recipe: Recipe
    real: bool = False
    share: float = 1.0


MODELS = {
    "proteasome": Model(Recipe(max_resolution=12, patch_size=96)),
    "proteasome, few steps": Model(Recipe(max_resolution=12, patch_size=96), share=0.01),
    "proteasome, 40 Å": Model(Recipe(max_resolution=40, patch_size=64), share=0.3),
    "proteasome, 8 Å": Model(RECIPE),
    "real": Model(RECIPE, real=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of training, for each network")
    options = parser.parse_args()
    folder: Path = options.output
    warn_if_busy()
    report: dict[str, Any] = describe() | {"steps": options.steps}
    for name, count, seed in (("training", 24, 1), ("test", 1, 2)):
        if not (folder / name / "micrographs.star").exists():
            simulate(folder / name, count, SIZE, PIXEL_SIZE, seed, **IDEAL)
    even, odd = data.thin(data.micrograph_counts())
    border = int(TRAINING_SHARE * even.shape[0])
    write_pair(folder / "real", "training_0001", even[:border], odd[:border])
    models = {name: _trained(folder, name, model, options.steps) for name, model in MODELS.items()}
    recipes = {name: model.recipe for name, model in MODELS.items()}
    examples = [
        *simulated_examples(folder / "test", recipes),
        *real_examples(even[border:], odd[border:], recipes),
    ]
    report["examples"] = {}
    shown: dict[str, Image] = {}
    for example in examples:
        with Denoiser(models[example.model]) as denoiser:
            method = network(denoiser)
            halves = [method(example.case, name) for name in ("even", "odd")]
            shown[example.name] = method(example.case, "whole")
        report["examples"][example.name] = _measured(example, halves, shown[example.name])
        window = shown.get(example.window, shown[example.name])
        _draw(folder / f"{example.name}.jpg", example, shown[example.name], window)
        print(example.name, report["examples"][example.name], flush=True)
    write_json(folder / "gallery.json", report)


def _trained(folder: Path, name: str, model: Model, steps: int) -> Path:
    """The bundle of a model, trained unless it exists."""
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train import TrainConfig, train

    bundle = folder / "models" / f"{name}.n2n"
    if bundle.exists():
        return bundle
    print(f"training {name}", flush=True)
    project = folder / ("real" if model.real else "training")
    table = project / ("training_0001.star" if model.real else "micrographs.star")
    config = TrainConfig(
        preset="small",
        recipe=model.recipe,
        batch_size=8,
        epochs=1,
        batches_per_epoch=max(1, round(steps * model.share)),
        patch_overlap=0.5,
    )
    naming = NamingOptions(project=project, suffixes=("DW", "EVN", "ODD"))
    return export_bundle(train(table, folder / "models" / name, config, naming=naming), bundle)


def _measured(example: Example, halves: Sequence[Image], whole: Image) -> dict[str, float]:
    """What the user can measure, from the halves, and what is true, with the spread of the output over the input's."""
    noisy = [example.case.prepared[name].image for name in ("even", "odd")]
    found = {"estimated": float(estimate(*noisy, *halves).recovered_signal_fraction)}
    if example.case.truth is not None:
        errors = [
            float(np.mean((half - example.case.truth[name]) ** 2) / np.var(example.case.truth[name]))
            for name, half in zip(("even", "odd"), halves, strict=True)
        ]
        found["true"] = 1 - float(np.mean(errors))
    found["output_std"] = float(np.std(whole, dtype=np.float64))
    return found


def _draw(path: Path, example: Example, denoised: Image, window: Image) -> None:
    """Panels side by side; input and residual share a grey scale, and so do output and truth."""
    from matplotlib.figure import Figure

    raw = example.case.prepared["whole"].image
    noisy, clean = _window(raw), _window(window)
    panels: list[tuple[str, NDArray[Any], tuple[float, float]]] = [
        ("raw, band-passed", raw, noisy),
        ("denoised", denoised, clean),
        ("residual", raw - denoised, noisy),
    ]
    if example.case.truth is not None:
        panels.append(("truth", example.case.truth["whole"], clean))
    ny, nx = raw[example.part].shape
    figure = Figure(figsize=(PANEL * len(panels), PANEL * ny / nx + 0.25), dpi=100, layout="constrained")
    for axes, (title, image, (low, high)) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(image[example.part], cmap="gray", vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path, pil_kwargs={"quality": 82, "optimize": True})


def _window(image: Image) -> tuple[float, float]:
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
