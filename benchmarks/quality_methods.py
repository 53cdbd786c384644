"""The denoisers that `benchmarks.quality` compares, all in the space of the network's input and output.

A case holds three images of one micrograph, "even", "odd" and "whole", each preprocessed by the recipe (cropped,
band-passed, phase-flipped, standard deviation 1). A method maps one of them to a denoised image of the same shape.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.arrays import irfft2, rfft2
from n2n_deploy.imaging.filters import soft_lowpass
from n2n_deploy.imaging.preprocess import Prepared, preprocess
from n2n_deploy.imaging.rings import ring_index, ring_sums
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.wiener import SMOOTHING, WienerFilter, fit_wiener

Image = NDArray[np.float32]
IMAGES = ("even", "odd", "whole")


@dataclass(frozen=True, eq=False)
class Case:
    """One micrograph to denoise.

    Attributes:
        micrograph: its record.
        raw: each image as read.
        prepared: each image as network input.
        truth: the signal in each, if the ground truth is known.
    """

    micrograph: Micrograph
    raw: Mapping[str, Image]
    prepared: Mapping[str, Prepared]
    truth: Mapping[str, Image] | None = None


Method = Callable[[Case, str], Image]


def make_case(micrograph: Micrograph, raw: Mapping[str, Image], recipe: Recipe, truth: Image | None = None) -> Case:
    """Preprocess the images of a micrograph, and its ground truth (expected electrons in the sum) if known."""
    prepared = {name: preprocess(raw[name], micrograph.optics, micrograph.ctf, recipe) for name in IMAGES}
    if truth is None:
        return Case(micrograph, raw, prepared)
    signal = preprocess(truth, micrograph.optics, micrograph.ctf, recipe)
    scaled = {
        name: signal.image * np.float32(image.mean / signal.mean * signal.std / image.std)
        for name, image in prepared.items()
    }
    return Case(micrograph, raw, prepared, scaled)


def raw(case: Case, name: str) -> Image:
    """No denoising: the recipe's band-pass only."""
    return case.prepared[name].image


def lowpass(resolution: float) -> Method:
    """A low-pass filter, the usual way to make particles visible."""

    def method(case: Case, name: str) -> Image:
        image = case.prepared[name].image
        edge = soft_lowpass(image.shape, case.prepared[name].spacing, 0.9 / resolution, 1.1 / resolution)
        filtered: Image = irfft2(rfft2(image) * edge, image.shape)
        return filtered

    return method


def wiener_true(case: Case, name: str) -> Image:
    """The Wiener filter from the true spectra of signal and noise of each micrograph: the best radial linear filter."""
    assert case.truth is not None
    image, signal, spacing = case.prepared[name].image, case.truth[name], case.prepared[name].spacing
    powers = [ring_sums(np.abs(rfft2(part)) ** 2, image.shape, spacing) for part in (signal, image - signal)]
    signal_power, noise_power = (gaussian_filter1d(power, SMOOTHING, mode="nearest") for power in powers)
    total = signal_power + noise_power
    gain = np.divide(signal_power, total, out=np.zeros_like(total), where=total > 0)
    grid = np.append(gain, 0.0)[ring_index(image.shape, spacing)]
    filtered: Image = irfft2(rfft2(image) * grid.astype(np.float32), image.shape)
    return filtered


def wiener_halves(case: Case, name: str) -> Image:
    """The Wiener filter from the correlation of each micrograph's halves; the sum has twice the SNR of a half."""
    fitted = fit_wiener(case.prepared["even"].image, case.prepared["odd"].image)
    if name == "whole":
        fitted = WienerFilter(fitted.frequency, 2 * fitted.gain / (1 + fitted.gain))
    return fitted(case.prepared[name].image)


def network(denoiser: Denoiser) -> Method:
    """One of our networks; each image is denoised once and kept."""
    found: dict[tuple[str, str], Image] = {}

    def method(case: Case, name: str) -> Image:
        key = case.micrograph.name, name
        if key not in found:
            found[key] = denoiser.network(case.prepared[name].image)
        return found[key]

    return method


def topaz(
    python: Path, model: str, cases: Sequence[Case], names: Sequence[str], recipe: Recipe, folder: Path
) -> Method:
    """Denoise images with a pretrained model of Topaz and preprocess them like the others.

    Topaz does not keep the grey scale, so one factor for all micrographs is fitted to the halves by least squares.
    Its images are kept in `folder` and reused.
    """
    wanted = [(case, name, folder / f"{case.micrograph.path.stem}-{name}.npy") for case in cases for name in names]
    missing = [(case.raw[name], path) for case, name, path in wanted if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            lines = ""
            for index, (image, path) in enumerate(missing):
                np.save(f"{scratch}/{index}.npy", image)
                lines += f"{scratch}/{index}.npy {path.resolve()}\n"
            # Isolated (-I), because this folder has a topaz.py, and Topaz' environment lacks this package.
            command = [str(python), "-I", str(Path(__file__).with_name("topaz_images.py")), model]
            done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
        assert len(done.stdout.splitlines()) == len(missing), "Topaz denoised fewer images than it was given"
    found: dict[tuple[str, str], Image] = {}
    for case, name, path in wanted:
        denoised = preprocess(np.load(path), case.micrograph.optics, case.micrograph.ctf, recipe)
        found[case.micrograph.name, name] = denoised.image * np.float32(denoised.std / case.prepared[name].std)
    scale = _fitted([(found[case.micrograph.name, "even"], case.prepared["odd"].image) for case in cases])
    return lambda case, name: found[case.micrograph.name, name] * np.float32(scale)


def _fitted(pairs: Sequence[tuple[Image, Image]]) -> float:
    """The factor that minimises the squared difference between denoised images and the other halves."""
    covariance = sum(float((denoised * other).mean(dtype=np.float64)) for denoised, other in pairs)
    power = sum(float((denoised * denoised).mean(dtype=np.float64)) for denoised, _ in pairs)
    return covariance / power


def versions(python: Path) -> dict[str, Any]:
    """Versions in Topaz' environment."""
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('topaz-em', 'torch')}))"
    done = subprocess.run([str(python), "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
