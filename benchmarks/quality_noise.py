"""Training and evaluation without halves against those with halves and the truth, for the noise of several detectors.

    python -m benchmarks.quality_noise -o OUT [--steps 400 --seeds 1 --training 12 --test 3 --size 768 --pixel-size 1.5]

Simulated proteasome micrographs get Gaussian noise of a known spectrum, half of it in each half: white, of an
integrating detector, of dose-weighted frames, of frames shifted by linear interpolation. For each, `small` is trained
for the same steps with halves and without, and both are measured on other micrographs: against the truth, from the
halves, and from recorrupted pairs. And on noise without a specimen a network is trained whose output should vanish.
Writes OUT/noise.json and noise.md. A second run with the same OUT reuses micrographs and models.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import IDEAL, describe, warn_if_busy, write_json
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.evaluation_run import run_evaluation
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.imaging.rings import ring_frequencies, ring_means
from n2n_deploy.io.mrc import read_mrc, write_mrc
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.noise import estimate_noise

Image = NDArray[np.floating]
SUFFIXES = NamingOptions(suffixes=("DW", "EVN", "ODD"))
LABEL = "benchmarks.quality_noise"


def white(shape: tuple[int, int], _: float) -> Image:
    y, x = _axes(shape)
    return np.ones(np.broadcast_shapes(y.shape, x.shape))


def integrating(shape: tuple[int, int], _: float) -> Image:
    """A Gaussian noise transfer over a floor."""
    y, x = _axes(shape)
    return np.asarray(0.6 + np.exp(-(y**2 + x**2) / 0.35**2))


def dose_weights(shape: tuple[int, int], pixel_size: float) -> Image:
    """What is left of the signal after frames are weighted by exposure (Grant and Grigorieff, 2015) over √Σw².

    These weights keep white noise white.
    """
    s = np.maximum(frequencies(shape, (pixel_size, pixel_size)).astype(np.float64), 1e-3)
    critical = 0.245 * s**-1.665 + 2.81
    weights = np.array([np.exp(-dose / 2 / critical) for dose in (5.0, 15.0, 25.0, 35.0)])
    return np.asarray(weights.mean(axis=0) / np.sqrt((weights**2).mean(axis=0)))


def interpolated(shape: tuple[int, int], _: float) -> Image:
    """The mean over frames shifted by any parts of a pixel: 1 − ⅔ sin² along each axis."""
    y, x = _axes(shape)
    return np.asarray((1 - 2 / 3 * np.sin(np.pi * y) ** 2) * (1 - 2 / 3 * np.sin(np.pi * x) ** 2))


KINDS: dict[str, Callable[[tuple[int, int], float], Image]] = {
    "white": white,
    "integrating detector": integrating,
    "dose-weighted": white,
    "interpolated": interpolated,
}


def main() -> None:
    """Simulate, train, measure; write JSON and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--training", type=int, default=12, help="micrographs")
    parser.add_argument("--test", type=int, default=3, help="micrographs")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--pixel-size", type=float, default=1.5)
    parser.add_argument("--dose", type=float, default=40.0)
    parser.add_argument("--max-resolution", type=float, default=8.0)
    options = parser.parse_args()
    warn_if_busy()
    report: dict[str, Any] = describe() | {"options": {name: str(value) for name, value in vars(options).items()}}
    report["rows"] = {}
    for kind in options.kinds.split(","):
        report["rows"][kind] = _row(kind, options)
        print(kind, report["rows"][kind], flush=True)
        write_json(options.output / "noise.json", report)
        (options.output / "noise.md").write_text(_table(report["rows"]))
    print(_table(report["rows"]))


def _row(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.output / kind.replace(" ", "_")
    tables = {}
    for name, count, seed in (("training", options.training, 1), ("test", options.test, 2), ("pure", 2, 3)):
        tables[name] = folder / name / "micrographs.star"
        if not tables[name].exists():
            _simulate(tables[name].parent, kind, count, seed, options, specimen=name != "pure")
    found: dict[str, Any] = {"largest error of the spectrum": _spectrum_error(tables["test"], kind, options)}
    for seed in range(options.seeds):
        for pairs in ("halves", "recorrupted"):
            bundle = _trained(tables["training"], folder / f"{pairs}{seed}", pairs, seed, options)
            each = found.setdefault(f"trained on {pairs}", [])
            for measured in ("halves", "recorrupted"):
                run = run_evaluation(
                    tables["test"],
                    bundle,
                    folder / f"evaluation_{pairs}{seed}_{measured}",
                    naming=SUFFIXES,
                    pairs=measured,
                    truth=tables["test"].parent / "truth",
                )
                assert run.whole is not None
                assert run.whole.truth is not None
                names = ("snr_noisy", "recovered_signal_fraction")
                each.append({"from": measured} | {name: float(run.whole.image[name].value) for name in names})
                each[-1] |= {f"true_{name}": float(getattr(run.whole.truth, name)) for name in names}
            with Denoiser(bundle) as denoiser:
                power = _output_power(denoiser, tables["test"])
        empty = _trained(tables["pure"], folder / f"pure{seed}", "recorrupted", seed, options)
        with Denoiser(empty) as denoiser:
            found.setdefault("trained on pure noise", []).append(_output_power(denoiser, tables["pure"]) / power)
    return found


def _simulate(folder: Path, kind: str, count: int, seed: int, options: argparse.Namespace, *, specimen: bool) -> None:
    """Replace the shot noise of a simulated set by noise of this kind and the same variance."""
    shape = (options.size, options.size)
    particles = None if specimen else 0
    simulate(folder, count, shape, options.pixel_size, seed, dose=options.dose, particles=particles, **IDEAL)
    rng = np.random.default_rng(seed)
    amplitude = np.sqrt(KINDS[kind](shape, options.pixel_size))
    amplitude /= np.sqrt((amplitude**2).mean())
    for truth in sorted((folder / "truth").glob("*.mrc")):
        signal = read_mrc(truth).data.astype(np.float64)
        if not specimen:
            signal[:] = signal.mean()
        if kind == "dose-weighted":
            spectrum = np.fft.rfft2(signal)
            signal = np.fft.irfft2(spectrum * dose_weights(shape, options.pixel_size), s=shape)
            write_mrc(truth, signal.astype(np.float32), label=LABEL, pixel_size=options.pixel_size)
        scale = np.sqrt(signal.mean() / 2)
        drawn = (np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, s=shape) for _ in range(2))
        even, odd = (signal / 2 + scale * each for each in drawn)
        for suffix, image in (("DW", even + odd), ("EVN", even), ("ODD", odd)):
            path = folder / "micrographs" / f"{truth.stem}_{suffix}.mrc"
            write_mrc(path, image.astype(np.float32), label=LABEL, pixel_size=options.pixel_size)


def _spectrum_error(table: Path, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Largest relative error on any ring within the band, of all micrographs, with their CTF and without."""
    shape = (options.size, options.size)
    y, x = _axes(shape)
    rings = ring_frequencies(shape)
    band = (rings > options.pixel_size / 200) & (rings < options.pixel_size / options.max_resolution)
    true = KINDS[kind](shape, options.pixel_size)
    errors: dict[str, float] = {"CTF known": 0.0, "CTF unknown": 0.0}
    for micrograph in read_micrographs(table, NamingOptions(project=table.parent)).micrographs:
        image = read_mrc(micrograph.path).data
        for name in errors:
            ctf = micrograph.ctf if name == "CTF known" else None
            model = estimate_noise(image, micrograph.optics, ctf, highpass=200.0, resolution=options.max_resolution)
            expected = true * float(image.mean()) / true.mean()
            ratio = ring_means(model.power(y, x), shape) / ring_means(expected, shape)
            errors[name] = max(errors[name], float(np.abs(ratio[band] - 1).max()))
    return errors


def _trained(table: Path, out: Path, pairs: str, seed: int, options: argparse.Namespace) -> Path:
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train import TrainConfig, train

    bundle = out.with_suffix(".n2n")
    if not bundle.exists():
        config = TrainConfig.model_validate(
            {
                "preset": "small",
                "recipe": Recipe(max_resolution=options.max_resolution, patch_size=96),
                "epochs": 1,
                "batches_per_epoch": options.steps,
                "batch_size": 8,
                "schedule": "linear",
                "seed": seed,
                "patch_overlap": 0.5,
                "pairs": pairs,
            }
        )
        patches = out.with_name(f"patches_{table.parent.name}_{pairs}")
        export_bundle(train(table, out, config, naming=SUFFIXES, patches=patches), bundle)
    return bundle


def _output_power(denoiser: Denoiser, table: Path) -> float:
    """Mean variance of the network's output for a table's micrographs."""
    found = read_micrographs(table, NamingOptions(project=table.parent), need_ctf=True).micrographs
    outputs = [denoiser.denoise(read_mrc(each.path).data, each.optics, each.ctf).network_output for each in found]
    return float(np.mean([output.var(dtype=np.float64) for output in outputs]))


def _axes(shape: tuple[int, int]) -> tuple[Image, Image]:
    return np.abs(np.fft.fftfreq(shape[0]))[:, None], np.fft.rfftfreq(shape[1])[None, :]


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| noise | spectrum off by at most: CTF known, unknown | true error / signal, trained with halves | without | "
        "recovered signal of the latter: truth, from halves, without | output for pure noise |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    name = "recovered_signal_fraction"
    for kind, row in rows.items():
        spectrum = ", ".join(f"{value:.1%}" for value in row["largest error of the spectrum"].values())
        halves, without = row["trained on halves"], row["trained on recorrupted"]
        errors = [np.mean([1 - each[f"true_{name}"] for each in found[::2]]) for found in (halves, without)]
        recovered = (without[0][f"true_{name}"], without[0][name], without[1][name])
        text = ", ".join(f"{value:.3f}" for value in recovered)
        pure = f"{np.mean(row['trained on pure noise']):.2%}"
        lines.append(f"| {kind} | {spectrum} | {errors[0]:.3f} | {errors[1]:.3f} | {text} | {pure} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
