"""Simulated micrographs beside a real one: signal-to-noise ratio per Fourier ring, and a picture of what is drawn.

    python -m benchmarks.simulation -o docs/images/simulation.png [--draws 60]

The ratio is that of one half, from the covariance of the halves and their difference. Compared are the real micrograph
in the package; `simulate` as it is by default, and with the contrast of free atoms in ice without grain, at the real
one's dose and defocus; and the range over micrographs of `draw_micrograph`, from all kinds of specimen.
"""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import IDEAL, describe
from n2n_deploy import data
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.simulate import SimulatedMicrograph, draw_micrograph, simulate
from n2n_deploy.simulate.specimens import KINDS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EDGES = 1 / np.geomspace(400, 8.2, 24)
"""1/Å; edges of the rings."""

CENTRES = np.sqrt(EDGES[1:] * EDGES[:-1])

SHAPE, PIXEL_SIZE = (512, 512), 4.0
"""Of the micrographs drawn at random."""


def ring_snr(even: NDArray[np.number], odd: NDArray[np.number], pixel_size: float) -> NDArray[np.float64]:
    """Signal over noise of one half in each ring of `EDGES`."""
    window = np.outer(np.hanning(even.shape[0]), np.hanning(even.shape[1]))
    first, second = (np.fft.rfft2((half - half.mean()) * window) for half in (even, odd))
    ring = np.digitize(frequencies((even.shape[0], even.shape[1]), (pixel_size, pixel_size)), EDGES).ravel()

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.bincount(ring, values.ravel(), len(EDGES) + 1)
        return (sums / np.maximum(np.bincount(ring, minlength=len(EDGES) + 1), 1))[1:-1]

    signal = mean((first * second.conj()).real)
    noise = mean(np.abs(first - second) ** 2) / 2
    ratio: NDArray[np.float64] = signal / noise
    return ratio


def of_the_real_one() -> NDArray[np.float64]:
    even, odd = data.thin(data.micrograph_counts())
    return ring_snr(even, odd, data.MICROGRAPH_PIXEL_SIZE)


def of_simulate(**options: object) -> NDArray[np.float64]:
    """Of `simulate` at the real micrograph's dose and defocus, mean over two micrographs."""
    dose = float(data.micrograph_counts().mean()) / data.MICROGRAPH_PIXEL_SIZE**2
    with tempfile.TemporaryDirectory() as folder:
        defocus = (data.CTF.defocus_u, data.CTF.defocus_u)
        exposure: dict[str, object] = {"dose": dose, "defocus": defocus} | options
        simulate(folder, 2, (1024, 1024), 1.7, **exposure)  # type: ignore[arg-type]
        stems = [Path(folder, "micrographs", f"mic_{index:04d}") for index in (1, 2)]
        halves = [
            [read_mrc(stem.with_name(f"{stem.name}_{half}.mrc")).data for half in ("EVN", "ODD")] for stem in stems
        ]
        return np.mean([ring_snr(even, odd, 1.7) for even, odd in halves], axis=0)


def drawn(count: int) -> tuple[list[SimulatedMicrograph], NDArray[np.float64], float]:
    """Micrographs at random, their ratios (count, rings), and CPU seconds for each of the last half."""
    micrographs, ratios, seconds = [], [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        start = time.process_time()
        micrographs.append(draw_micrograph(rng, SHAPE, PIXEL_SIZE))
        seconds.append(time.process_time() - start)
        even, odd = (rng.poisson(micrographs[-1].expected / 2) for _ in range(2))
        ratios.append(ring_snr(even, odd, PIXEL_SIZE))
    return micrographs, np.array(ratios), float(np.mean(seconds[count // 2 :]))


def draw(
    path: Path,
    micrographs: list[SimulatedMicrograph],
    ratios: NDArray[np.float64],
    lines: dict[str, NDArray[np.float64]],
) -> None:
    figure = plt.figure(figsize=(12, 9), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1, 1, 1.5))
    chosen = [next((m for m in micrographs if m.kind == kind and not m.contamination), None) for kind in KINDS]
    chosen += [next((m for m in micrographs if what in m.contamination), None) for what in ("carbon", "crystals")]
    for place, micrograph in enumerate(chosen):
        axes = figure.add_subplot(grid[place // 4, place % 4])
        axes.set_axis_off()
        if micrograph is not None:
            low, high = np.percentile(micrograph.expected, (0.5, 99.5))
            axes.imshow(micrograph.expected, cmap="gray", vmin=low, vmax=high)
            axes.set_title(", ".join((micrograph.kind, *micrograph.contamination)), fontsize=9)
    axes = figure.add_subplot(grid[2, :])
    low, median, high = np.quantile(np.maximum(ratios, 1e-4), (0.1, 0.5, 0.9), axis=0)
    axes.fill_between(CENTRES, low, high, color="0.85", label="draw_micrograph, 80 % of them")
    axes.plot(CENTRES, median, color="0.5", label="draw_micrograph, median")
    for (name, line), style in zip(lines.items(), ("C0", "C0--", "k"), strict=True):
        axes.plot(CENTRES, np.where(line > 0, line, np.nan), style, label=name)
    ticks = [1 / r for r in (300, 100, 50, 30, 20, 15, 10)]
    axes.set(xscale="log", yscale="log", ylim=(3e-3, 100), ylabel="signal / noise of a half", xlabel="resolution in Å")
    axes.set_xticks(ticks, [f"{1 / tick:.0f}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=60)
    options = parser.parse_args()
    print(describe())
    micrographs, ratios, seconds = drawn(options.draws)
    print(f"{seconds:.2f} CPU s for each micrograph of {SHAPE[0]}² pixels of {PIXEL_SIZE:g} Å")
    lines = {
        "simulate": of_simulate(),
        "simulate: free atoms, no grain, perfect detector": of_simulate(**IDEAL),
        "real micrograph": of_the_real_one(),
    }
    draw(options.output, micrographs, ratios, lines)
    band = (CENTRES > 1 / 100) & (CENTRES < 1 / 30)
    quantiles = np.quantile(ratios[:, band].mean(axis=1), (0, 0.1, 0.5, 0.9, 1))
    print("100 to 30 Å, draw_micrograph: least, 10 %, median, 90 %, most", np.round(quantiles, 3))
    for name, line in lines.items():
        print(f"{name}: {line[band].mean():.3f}")


if __name__ == "__main__":
    main()
