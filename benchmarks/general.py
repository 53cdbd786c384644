"""The general model on data it never saw: a real micrograph, simulated specimens left out of its training, pure noise.

    python -m benchmarks.general MODEL.n2n -o OUT [--topaz TOPAZ_ENVIRONMENT/bin/python] [--micrographs 3]

Writes OUT/general.json, general.md and general.png. Real: recovered signal on the rows of the package's micrograph that
other benchmarks do not train on, with phases flipped and not, beside Wiener filters, and the gain of each ring that
would make its error least. Simulated: true error as a share of the signal at 4, 8 and 12 Å and at three doses, beside
the Wiener filter from the true spectra and Topaz' models. Pure noise: the variance of the result as a share of that on
micrographs of the same noise.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from benchmarks.common import describe, warn_if_busy, write_json
from benchmarks.general_figure import draw, markdown
from benchmarks.quality_methods import Case, make_case, topaz, wiener_true
from n2n_deploy import data
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.demonstration import TRAINING_SHARE
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.imaging.preprocess import preprocess
from n2n_deploy.io.records import Micrograph
from n2n_deploy.simulate import draw_micrograph
from n2n_deploy.statistics.estimates import estimate, ring_covariances
from n2n_deploy.statistics.wiener import fit_wiener
from n2n_deploy.train.general_examples import LEFT_OUT

Image = NDArray[np.float32]
Denoise = Callable[[Image], Image]

RESOLUTIONS = (4.0, 8.0, 12.0)
THINNED = (1.0, 0.25, 0.05)
"""Part of a micrograph's dose that both halves get together."""

SIDE = 768
"""Pixels of a simulated micrograph."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--topaz", type=Path, metavar="PYTHON", help="of an environment with topaz-em")
    parser.add_argument("--topaz-models", default="unet,unet-small,fcnn,affine")
    parser.add_argument("--micrographs", type=int, default=3, help="simulated for each resolution and dose")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    warn_if_busy()
    report: dict[str, Any] = describe()
    with Denoiser(options.model) as denoiser:
        report["real"] = real(denoiser.network)
        report["simulated"] = simulated(denoiser.network, options)
        report["pure_noise"] = pure_noise(denoiser.network)
    write_json(options.output / "general.json", report)
    (options.output / "general.md").write_text(markdown(report))
    draw(options.output / "general.png", report)
    print(markdown(report))


def real(denoise: Denoise) -> list[dict[str, Any]]:
    """Recovered signal fraction and ring gains on the last fifth of the package's micrograph."""
    halves = [half.astype(np.float32) for half in data.thin(data.micrograph_counts(), 0)]
    border = int(TRAINING_SHARE * halves[0].shape[0])
    rows = []
    for flip, resolution in itertools.product((True, False), (8.0, 6.0)):
        recipe = Recipe(max_resolution=resolution, phase_flip=flip)
        above, below = (
            [preprocess(half[part], data.OPTICS, data.CTF, recipe).image for half in halves]
            for part in (slice(0, border), slice(border, None))
        )
        wiener = fit_wiener(*above)
        row: dict[str, Any] = {"flip": flip, "resolution": resolution}
        for name, method in (("general", denoise), ("wiener", wiener)):
            done = [method(half) for half in below]
            row[name] = float(estimate(*below, *done).recovered_signal_fraction)
            if name == "general":
                row |= _gains(below, done, resolution / 2)
        rows.append(row)
    return rows


def _gains(noisy: Sequence[Image], done: Sequence[Image], pixel_size: float) -> dict[str, list[float]]:
    """For each ring, the factor on the denoised half with the least squared error: 1 where amplitudes are right.

    cov(D1, M2) / var(D1), smoothed over rings; only where the result keeps a hundredth of the noisy power.
    """
    c = ring_covariances(*noisy, *done, (pixel_size, pixel_size))
    across, power, before = (
        gaussian_filter1d(each, 2.0, mode="nearest")
        for each in ((c.d1m2 + c.d2m1) / 2, (c.d1d1 + c.d2d2) / 2, (c.m1m1 + c.m2m2) / 2)
    )
    kept = power > 0.01 * before
    return {"frequency": c.frequency[kept].tolist(), "gain": (across[kept] / power[kept]).tolist()}


def simulated(denoise: Denoise, options: argparse.Namespace) -> list[dict[str, Any]]:
    """True errors, as a share of the signal, on specimens that training left out."""
    rows = []
    for index, (resolution, part, flip) in enumerate(itertools.product(RESOLUTIONS, THINNED, (True, False))):
        recipe = Recipe(max_resolution=resolution, phase_flip=flip)
        rng = np.random.default_rng((2, index // 2))  # the same micrographs flipped and not
        cases = [_case(rng, recipe, part, number) for number in range(options.micrographs)]
        signals = [case.truth["whole"] for case in cases if case.truth is not None]
        power = sum(float(signal.var(dtype=np.float64)) for signal in signals)
        noise = sum(float((case.prepared["whole"].image - s).var()) for case, s in zip(cases, signals, strict=True))
        methods = {"general": lambda case, name: denoise(case.prepared[name].image), "wiener": wiener_true}
        if options.topaz:
            for model in options.topaz_models.split(","):
                folder = options.output / f"topaz-{index}"
                methods[f"Topaz {model}"] = topaz(options.topaz, model, cases, ("whole",), recipe, folder)
        row: dict[str, Any] = {"resolution": resolution, "part": part, "flip": flip, "snr": power / noise}
        for name, method in methods.items():
            wrong = sum(
                float((method(case, "whole") - s).var(dtype=np.float64)) for case, s in zip(cases, signals, strict=True)
            )
            row[name] = wrong / power
        rows.append(row)
    return rows


def _case(rng: np.random.Generator, recipe: Recipe, part: float, number: int) -> Case:
    """A micrograph of one specimen, simulated on the network's grid, with its halves."""
    drawn = draw_micrograph(rng, (SIDE, SIDE), recipe.max_resolution / 2, LEFT_OUT, "single")
    expected = drawn.expected * np.float32(part)
    even, odd = (rng.poisson(expected / 2).astype(np.float32) for _ in range(2))
    path = Path(f"simulated_{number}.mrc")
    micrograph = Micrograph(path.name, path, drawn.optics, drawn.ctf)
    return make_case(micrograph, {"even": even, "odd": odd, "whole": even + odd}, recipe, expected)


def pure_noise(denoise: Denoise) -> list[dict[str, Any]]:
    """Variance of what is found in pure noise as a share of what is found in the real micrograph with that noise."""
    even, _ = (half.astype(np.float32) for half in data.thin(data.micrograph_counts(), 0))
    noise = np.random.default_rng(0).poisson(even.mean(), even.shape).astype(np.float32)
    rows = []
    for flip in (True, False):
        recipe = Recipe(max_resolution=8.0, phase_flip=flip)
        images = [preprocess(each, data.OPTICS, data.CTF, recipe) for each in (noise, even)]
        empty, full = (float(denoise(image.image).var(dtype=np.float64)) * image.std**2 for image in images)
        rows.append({"flip": flip, "share": empty / full})
    return rows


if __name__ == "__main__":
    main()
