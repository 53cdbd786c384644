"""Ours beside its peers on micrographs whose truth is known: error per ring, recovered signal, and picking.

    python -m benchmarks.quality -o OUT [--presets small,fast,paper] [--minutes 20] [--max-resolution 8]
        [--training 24 --test 4 --size 1024 --pixel-size 2] [--topaz TOPAZ_ENVIRONMENT/bin/python] [--real]

Trains each preset on simulated proteasome micrographs, then denoises others: raw, the best low-pass, Wiener's filter
with the true spectra, Topaz' pretrained models (with the grey scale fitted), Wiener's filter from the halves, ours,
ours averaged over eight views; and ours on the sum of all frames against its average over the two halves. Writes
OUT/quality.json, rings.csv, quality.png and quality.md. `--real` adds the real micrograph in the package: trained on
its upper four fifths, measured on the rest, without truth; the Wiener filter from the halves is fitted to that rest
itself. A second run with the same OUT uses the models and micrographs that are there. Topaz needs an environment of
its own; `python -m benchmarks.topaz` says how to make it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import describe, warn_if_busy, write_json
from benchmarks.quality_methods import (
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
from n2n_deploy import data
from n2n_deploy.demonstration import TRAINING_SHARE, write_pair
from n2n_deploy.denoiser import Denoiser
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.quality.estimates import covariances, ring_covariances
from n2n_deploy.quality.evaluate import MicrographEvaluation, SetEvaluation, summarise
from n2n_deploy.quality.figures import figure, resolution_axis, write_csv
from n2n_deploy.quality.halves import Halves
from n2n_deploy.quality.truth import true_moments, true_ring_moments
from n2n_deploy.recipe import Recipe
from n2n_deploy.simulate import simulate

LOWPASSES = (8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0)
BINS = 40


def main() -> None:
    options = _options()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = describe() | {"options": {name: str(value) for name, value in vars(options).items()}}
    if options.topaz:
        report["topaz"] = versions(options.topaz)
    warn_if_busy()
    recipe = Recipe(max_resolution=options.max_resolution, patch_size=options.patch_size)
    size = (options.size, options.size)
    for name, count, seed in (("training", options.training, 1), ("test", options.test, 2)):
        if not (folder / name / "micrographs.star").exists():
            say(f"simulating {count} micrographs: {name}")
            simulate(folder / name, count, size, options.pixel_size, seed, dose=options.dose)
    table = read_micrographs(folder / "test" / "micrographs.star", project=folder / "test", need_halves=True)
    cases = [_simulated(micrograph, folder / "test" / "truth", recipe) for micrograph in table.micrographs]
    models = _train(folder / "training" / "micrographs.star", folder / "models", recipe, options, folder / "training")
    methods = _methods(cases, models, recipe, options, truth=True)
    results = {name: _measure(name, method, cases) for name, method in methods.items()}
    report["simulated"] = {name: _numbers(whole) for name, whole in results.items()}
    report["sums"] = {}
    for preset, path in models.items():
        for views in (False, True):
            with Denoiser(path, augment=views) as denoiser:
                report["sums"][f"{preset}, 8 views" if views else preset] = _sums(network(denoiser), cases)
    if available() and not options.no_picks:
        truth = true_positions(folder / "test" / "truth" / "particles.star")
        for name, method in methods.items():
            say(f"picking: {name}")
            below = folder / "test" / "picks" / name.replace(" ", "_").replace("/", "_")
            star = write_denoised(below, table, cases, method)
            picks = pick(star, folder / "test", options.pixel_size, truth, below / "LoG")
            report["simulated"][name]["picks"] = best(picks).as_dict() | {"all": [one.as_dict() for one in picks]}
    _write_rings(folder, results)
    if options.real:
        report["real"] = _real(folder / "real", options)
    write_json(folder / "quality.json", report)
    (folder / "quality.md").write_text(_markdown(report))
    print((folder / "quality.md").read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--presets", default="small")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, for each preset")
    parser.add_argument("--max-resolution", type=float, default=8.0)
    parser.add_argument("--patch-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--training", type=int, default=24, help="micrographs")
    parser.add_argument("--test", type=int, default=4, help="micrographs")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--pixel-size", type=float, default=2.0)
    parser.add_argument("--dose", type=float, default=40.0)
    parser.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment with topaz-em")
    parser.add_argument("--topaz-models", default="unet,unet-small,fcnn,affine")
    parser.add_argument("--no-picks", action="store_true")
    parser.add_argument("--real", action="store_true", help="also the real micrograph in the package")
    return parser.parse_args()


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def _simulated(micrograph: Micrograph, truth: Path, recipe: Recipe) -> Case:
    assert micrograph.even is not None
    assert micrograph.odd is not None
    paths = {"even": micrograph.even, "odd": micrograph.odd, "whole": micrograph.path}
    images = {name: read_mrc(path).data for name, path in paths.items()}
    expected = read_mrc(truth / f"{micrograph.path.stem.removesuffix('_DW')}.mrc").data
    return make_case(micrograph, images, recipe, expected)


def _train(star: Path, folder: Path, recipe: Recipe, options: argparse.Namespace, project: Path) -> dict[str, Path]:
    """Bundles by preset, trained where they are not there yet."""
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train import TrainConfig, train

    bundles = {}
    for preset in options.presets.split(","):
        bundles[preset] = folder / f"{preset}.n2n"
        if bundles[preset].exists():
            continue
        say(f"training {preset} for {options.minutes:g} minutes")
        config = TrainConfig(
            preset=preset,
            recipe=recipe,
            batch_size=options.batch_size,
            max_minutes=options.minutes,
            patch_overlap=0.5,
        )
        names = ("DW", "EVN", "ODD")
        checkpoint = train(star, folder / preset, config, project=project, suffixes=names)
        export_bundle(checkpoint, bundles[preset])
    return bundles


def _methods(
    cases: Sequence[Case], models: dict[str, Path], recipe: Recipe, options: argparse.Namespace, *, truth: bool
) -> dict[str, Method]:
    methods: dict[str, Method] = {"raw": raw}
    cutoff = max(LOWPASSES, key=lambda each: _recovered(lowpass(each), cases))
    methods[f"low-pass {cutoff:g} Å"] = lowpass(cutoff)
    if truth:
        methods["Wiener, true spectra"] = wiener_true
    methods["Wiener, halves"] = wiener_halves
    if options.topaz:
        for model in options.topaz_models.split(","):
            say(f"denoising with Topaz {model}")
            methods[f"Topaz {model}"] = topaz(options.topaz, model, cases, recipe)
    for preset, path in models.items():
        methods[f"ours, {preset}"] = network(Denoiser(path))
        methods[f"ours, {preset}, 8 views"] = network(Denoiser(path, augment=True))
    return methods


def _recovered(method: Method, cases: Sequence[Case]) -> float:
    return float(_measure("", method, cases).image["recovered_signal_fraction"].value)


def _measure(name: str, method: Method, cases: Sequence[Case]) -> SetEvaluation:
    """Estimate from the halves, and from the truth where there is one."""
    if name:
        say(f"measuring: {name}")
    done = []
    for case in cases:
        even, odd = case.prepared["even"], case.prepared["odd"]
        levels = (even.mean, even.std), (odd.mean, odd.std)
        images = even.image, odd.image, method(case, "even"), method(case, "odd")
        halves = Halves(*images, even.spacing, (case.raw["even"], case.raw["odd"]), levels)
        signal = (case.truth["even"], case.truth["odd"]) if case.truth else None
        done.append(
            MicrographEvaluation(
                case.micrograph,
                covariances(*halves.images),
                ring_covariances(*halves.images, halves.spacing),
                true_moments(halves, signal) if signal else None,
                true_ring_moments(halves, signal) if signal else None,
                (),
                (even.std, odd.std),
                (),
                (),
                0.0,
            )
        )
    return summarise(done, BINS)


def _sums(method: Method, cases: Sequence[Case]) -> dict[str, float]:
    """True error, as a share of the signal, of denoising the sum and of averaging the denoised halves."""
    signal = whole = halves = 0.0
    for case in cases:
        assert case.truth is not None
        true, scale = case.truth["whole"], case.prepared["whole"].std
        parts = [method(case, name) * np.float32(case.prepared[name].std / scale) for name in ("even", "odd")]
        signal += float(true.var(dtype=np.float64))
        whole += float((method(case, "whole") - true).var(dtype=np.float64))
        halves += float((parts[0] + parts[1] - true).var(dtype=np.float64))
    return {"sum": whole / signal, "halves averaged": halves / signal}


def _numbers(whole: SetEvaluation) -> dict[str, Any]:
    """The set's numbers, and the gain in SSNR: the median over rings with signal that the method left something of."""
    found: dict[str, Any] = {name: float(interval.value) for name, interval in whole.image.items()}
    interval = whole.image["recovered_signal_fraction"]
    found["recovered_signal_fraction_interval"] = [float(interval.low), float(interval.high)]
    noisy, denoised = (whole.rings[name].value for name in ("snr_noisy", "snr_denoised"))
    rings = (noisy > 0.01) & np.isfinite(denoised) & (whole.rings["recovered_signal_fraction"].value > 0)
    found["ssnr_gain"] = float(np.median(denoised[rings] / noisy[rings])) if rings.any() else None
    if whole.truth is not None:
        found["true_recovered_signal_fraction"] = whole.truth.recovered_signal_fraction
        found["true_relative_error"] = 1 - whole.truth.recovered_signal_fraction
    return found


def _write_rings(folder: Path, results: dict[str, SetEvaluation]) -> None:
    """The true error per ring as a share of the signal, in a table and a figure."""
    first = next(iter(results.values()))
    errors = {}
    for name, whole in results.items():
        assert whole.true_rings is not None
        errors[name] = 1 - whole.true_rings.recovered_signal_fraction
    rows = zip(first.frequency.tolist(), *(error.tolist() for error in errors.values()), strict=True)
    write_csv(folder / "rings.csv", ["frequency", *errors], rows)
    with figure(folder / "quality.png", panels=2) as (error_axes, bar_axes):
        for name, error in errors.items():
            ours = name.startswith("ours")
            error_axes.plot(first.frequency, error, label=name, linewidth=2.0 if ours else 1.0)
        error_axes.set_ylim(0, 1.5)
        error_axes.set_ylabel("true error / signal")
        resolution_axis(error_axes, float(first.frequency[-1]))
        error_axes.legend(fontsize=7)
        values = [whole.truth.recovered_signal_fraction if whole.truth else 0.0 for whole in results.values()]
        bar_axes.barh(list(results), np.maximum(values, -0.2), color="#2166ac")
        bar_axes.invert_yaxis()
        bar_axes.set_xlabel("recovered signal fraction, true")


def _real(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The real micrograph: trained above the border, measured below it, from its halves alone."""
    recipe = Recipe(max_resolution=8.0, patch_size=96)
    even, odd = (half.astype(np.float32) for half in data.thin(data.micrograph_counts(), 0))
    border = int(TRAINING_SHARE * even.shape[0])
    star = write_pair(folder, "training_0001", even[:border], odd[:border])
    models = _train(star, folder / "models", recipe, options, folder)
    parts = {"even": even[border:], "odd": odd[border:], "whole": even[border:] + odd[border:]}
    micrograph = Micrograph("real", folder / "real.mrc", data.OPTICS, data.CTF)
    cases = [make_case(micrograph, parts, recipe)]
    methods = _methods(cases, models, recipe, options, truth=False)
    return {name: _numbers(_measure(f"real: {name}", method, cases)) for name, method in methods.items()}


def _markdown(report: dict[str, Any]) -> str:
    """Tables for the README."""
    picks = any("picks" in row for row in report["simulated"].values())
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("true error / signal", lambda row: f"{row['true_relative_error']:.3f}"),
        ("recovered signal, from the halves", _fraction),
        ("SNR of a half", lambda row: f"{row['snr_denoised']:.3g}"),
        ("SSNR gain", lambda row: f"{row['ssnr_gain']:.1f}×" if row["ssnr_gain"] else "–"),
    ]
    if picks:
        columns.append(("LoG picks: precision, recall", lambda row: _picks(row["picks"])))
    text = _table("method", columns, report["simulated"])
    errors: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("error / signal, the sum denoised", lambda row: f"{row['sum']:.3f}"),
        ("the denoised halves averaged", lambda row: f"{row['halves averaged']:.3f}"),
    ]
    text += "\n" + _table("network", errors, report["sums"])
    if "real" in report:
        text += "\nOn the real micrograph, rows not trained on, from the halves alone:\n\n"
        text += _table("method", columns[1:4], report["real"])
    hardware = report["hardware"]
    return text + f"\nMeasured on {hardware['processor']}, {hardware['cores']} cores; {report['options']}\n"


def _table(
    head: str, columns: Sequence[tuple[str, Callable[[dict[str, Any]], str]]], rows: dict[str, dict[str, Any]]
) -> str:
    lines = [f"| {head} | {' | '.join(name for name, _ in columns)} |", "| --- " * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(row) for _, cell in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def _fraction(row: dict[str, Any]) -> str:
    low, high = row["recovered_signal_fraction_interval"]
    interval = f" ({low:.3f} … {high:.3f})" if np.isfinite(low) else ""
    return f"{row['recovered_signal_fraction']:.3f}{interval}"


def _picks(picks: dict[str, Any]) -> str:
    return f"{picks['precision']:.2f}, {picks['recall']:.2f}"


if __name__ == "__main__":
    main()
