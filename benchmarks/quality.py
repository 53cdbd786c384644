"""This package compared with others on micrographs with known ground truth: error per ring, recovered signal, picking.

    python -m benchmarks.quality -o OUT [--train small=7,fast=30,paper=30] [--real small=4] [--max-resolution 12]
        [--training 48 --test 4 --size 768 --pixel-size 2] [--topaz TOPAZ_ENVIRONMENT/bin/python]

Trains presets on simulated proteasome micrographs close to focus, each for the given minutes, then compares on other
micrographs: no denoising, the best low-pass, the Wiener filter from true spectra and from the halves, Topaz' pretrained
models (with fitted grey scale), our networks with and without averaging over eight views; and our networks on the sum
of all frames against the average of denoised halves. Writes OUT/quality.json, rings.csv, quality.png and quality.md.
`--real` adds the real micrograph in the package, without ground truth: training on its upper four fifths, measuring on
the rest; the Wiener filter from the halves is fitted to that rest itself. A second run with the same OUT reuses
micrographs, models and Topaz' images. Topaz needs an environment of its own; see `python -m benchmarks.topaz`.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import IDEAL, describe, warn_if_busy, write_json
from benchmarks.quality_figure import draw
from benchmarks.quality_methods import (
    IMAGES,
    Case,
    Method,
    lowpass,
    make_case,
    network,
    raw,
    topaz,
    versions,
    wiener_halves,
    wiener_true,
)
from benchmarks.quality_picks import available, best, pick, true_positions, write_denoised
from benchmarks.quality_tables import Result, error, markdown, measure, numbers, write_rings
from n2n_deploy import data
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.demonstration import TRAINING_SHARE, write_pair
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable, read_micrographs
from n2n_deploy.simulate import simulate

LOWPASSES = (8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0)


def main() -> None:
    options = _options()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = describe() | {"options": {name: str(value) for name, value in vars(options).items()}}
    if options.topaz:
        report["topaz"] = versions(options.topaz)
    warn_if_busy()
    recipe = Recipe(max_resolution=options.max_resolution, patch_size=options.patch_size)
    for name, count, seed in (("training", options.training, 1), ("test", options.test, 2)):
        if not (folder / name / "micrographs.star").exists():
            say(f"simulating {count} micrographs: {name}")
            size, particles = (options.size, options.size), options.particles
            defocus, dose = tuple(options.defocus), options.dose
            simulate(
                *(folder / name, count, size, options.pixel_size, seed),
                **{"particles": particles, "dose": dose, "defocus": defocus} | IDEAL,
            )
    table = read_micrographs(
        folder / "test" / "micrographs.star", NamingOptions(project=folder / "test"), need_halves=True
    )
    cases = [_simulated(micrograph, folder / "test" / "truth", recipe) for micrograph in table.micrographs]
    star = folder / "training" / "micrographs.star"
    models = _train(star, folder / "models", options.train, recipe, options, folder / "training")
    methods = _methods(cases, IMAGES, models, recipe, options, folder / "topaz")
    results: dict[str, Result] = {}
    for name, method in methods.items():
        say(f"measuring: {name}")
        results[name] = measure(method, cases)
    report["simulated"] = {name: numbers(result) for name, result in results.items()}
    report["sums"] = {name: _sums(method, cases) for name, method in methods.items() if name.startswith("ours")}
    if available() and not options.no_picks:
        picked = _pick({**methods, "truth": _truth}, table, cases, folder / "test", options.pixel_size)
        report["picks_of_the_truth"] = picked.pop("truth")
        for name, picks in picked.items():
            report["simulated"][name]["picks"] = picks
    write_rings(folder / "rings.csv", results)
    draw(folder / "quality.png", results, methods, cases[0], report["simulated"])
    if options.real:
        report["real"] = _real(folder / "real", options)
    write_json(folder / "quality.json", report)
    (folder / "quality.md").write_text(markdown(report))
    print((folder / "quality.md").read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    minutes: dict[str, Any] = {"type": _minutes, "metavar": "PRESET=MINUTES,…", "help": "of training"}
    parser.add_argument("--train", default="small=7,fast=30,paper=30", **minutes)
    parser.add_argument("--real", default="", **minutes)
    parser.add_argument("--max-resolution", type=float, default=12.0)
    parser.add_argument("--patch-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, help="as of n2n-deploy train")
    parser.add_argument("--training", type=int, default=48, help="micrographs")
    parser.add_argument("--test", type=int, default=4, help="micrographs")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--pixel-size", type=float, default=2.0)
    parser.add_argument("--dose", type=float, default=40.0)
    parser.add_argument("--defocus", type=float, nargs=2, default=(1000.0, 4000.0), metavar="Å")
    parser.add_argument("--particles", type=int, help="on a micrograph; by default they cover three tenths of it")
    parser.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment with topaz-em")
    parser.add_argument("--topaz-models", default="unet,unet-small,fcnn,affine")
    parser.add_argument("--real-topaz-models", default="unet")
    parser.add_argument("--no-picks", action="store_true")
    return parser.parse_args()


def _minutes(text: str) -> dict[str, float]:
    pairs = (each.split("=") for each in text.split(",") if each)
    return {preset: float(minutes) for preset, minutes in pairs}


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def _simulated(micrograph: Micrograph, truth: Path, recipe: Recipe) -> Case:
    assert micrograph.even is not None
    assert micrograph.odd is not None
    paths = {"even": micrograph.even, "odd": micrograph.odd, "whole": micrograph.path}
    images = {name: read_mrc(path).data for name, path in paths.items()}
    expected = read_mrc(truth / f"{micrograph.path.stem.removesuffix('_DW')}.mrc").data
    return make_case(micrograph, images, recipe, expected)


def _train(
    star: Path,
    folder: Path,
    presets: Mapping[str, float],
    recipe: Recipe,
    options: argparse.Namespace,
    project: Path,
) -> dict[str, Path]:
    """Bundles by preset, trained for the given minutes unless they exist."""
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train import TrainConfig, train

    bundles = {}
    for preset, minutes in presets.items():
        bundles[preset] = folder / f"{preset}.n2n"
        if bundles[preset].exists():
            continue
        say(f"training {preset} for {minutes:g} minutes")
        config = TrainConfig(
            preset=preset,
            recipe=recipe,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            max_minutes=minutes,
            patch_overlap=0.5,
        )
        naming = NamingOptions(project=project, suffixes=("DW", "EVN", "ODD"))
        checkpoint = train(
            star, folder / preset, config, naming=naming, patches=folder / "patches", progress=_progress()
        )
        export_bundle(checkpoint, bundles[preset])
    return bundles


def _progress() -> Callable[[Any], None]:
    """Print the progress of a training once a minute."""
    last = time.monotonic()

    def progress(stand: Any) -> None:
        nonlocal last
        if hasattr(stand, "step") and time.monotonic() - last > 60:
            last = time.monotonic()
            losses = f"loss {stand.loss:.4f}, held out {stand.validation_loss:.4f}"
            say(f"  step {stand.step}, {stand.done:.0%}: {losses}")

    return progress


def _methods(
    cases: Sequence[Case],
    images: Sequence[str],
    models: Mapping[str, Path],
    recipe: Recipe,
    options: argparse.Namespace,
    folder: Path,
) -> dict[str, Method]:
    known = cases[0].truth is not None
    methods: dict[str, Method] = {"raw": raw}
    recovered = {each: measure(lowpass(each), cases).recovered for each in LOWPASSES}
    cutoff = max(recovered, key=recovered.__getitem__)
    methods[f"low-pass {cutoff:g} Å"] = lowpass(cutoff)
    methods["Wiener, halves"] = wiener_halves
    if known:
        methods["Wiener, true spectra"] = wiener_true
    if options.topaz:
        for model in (options.topaz_models if known else options.real_topaz_models).split(","):
            say(f"denoising with Topaz {model}")
            methods[f"Topaz {model}"] = topaz(options.topaz, model, cases, images, recipe, folder / model)
    for preset, path in models.items():
        for views in (False, True):
            methods[f"ours, {preset}, 8 views" if views else f"ours, {preset}"] = network(Denoiser(path, tta=views))
    return methods


def _sums(method: Method, cases: Sequence[Case]) -> dict[str, float]:
    """True error, as a fraction of the signal, of denoising the sum and of averaging the denoised halves."""
    signal = whole = halves = 0.0
    for case in cases:
        assert case.truth is not None
        true, scale = case.truth["whole"], case.prepared["whole"].std
        parts = [method(case, name) * np.float32(case.prepared[name].std / scale) for name in ("even", "odd")]
        signal += float(true.var(dtype=np.float64))
        whole += error(method(case, "whole"), true)
        halves += error(parts[0] + parts[1], true)
    return {"sum": whole / signal, "halves averaged": halves / signal}


def _truth(case: Case, name: str) -> NDArray[np.float32]:
    assert case.truth is not None
    return case.truth[name]


def _pick(
    methods: Mapping[str, Method], table: MicrographTable, cases: Sequence[Case], project: Path, pixel_size: float
) -> dict[str, Any]:
    """RELION's picks on each method's denoised sums, at the method's best threshold and at all thresholds."""
    truth, found = true_positions(project / "truth" / "particles.star"), {}
    for name, method in methods.items():
        say(f"picking: {name}")
        below = project / "picks" / name.replace(" ", "_").replace("/", "_")
        star = write_denoised(below, table, cases, method)
        picks = pick(star, project, pixel_size, truth, below / "LoG")
        mean = sum(one.f1 for one in picks) / len(picks)
        found[name] = best(picks).as_dict() | {"mean_f1": mean, "all": [one.as_dict() for one in picks]}
    return found


def _real(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The real micrograph: trained above the border, measured below it, from its halves alone."""
    recipe = Recipe(max_resolution=8.0, patch_size=96)
    even, odd = (half.astype(np.float32) for half in data.thin(data.micrograph_counts(), 0))
    border = int(TRAINING_SHARE * even.shape[0])
    star = write_pair(folder, "training_0001", even[:border], odd[:border])
    models = _train(star, folder / "models", options.real, recipe, options, folder)
    parts = {"even": even[border:], "odd": odd[border:], "whole": even[border:] + odd[border:]}
    micrograph = Micrograph("real", folder / "real.mrc", data.OPTICS, data.CTF)
    cases = [make_case(micrograph, parts, recipe)]
    methods = _methods(cases, ("even", "odd"), models, recipe, options, folder / "topaz")
    found: dict[str, Result] = {}
    for name, method in methods.items():
        say(f"real: {name}")
        found[name] = measure(method, cases)
    return {name: numbers(result) for name, result in found.items()}


if __name__ == "__main__":
    main()
