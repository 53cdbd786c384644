"""What is to be seen of an evaluation: the figures of the set, and each micrograph's entry in the report."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy.quality.entries import Curves, MicrographEntry
from n2n_deploy.quality.estimates import from_covariances
from n2n_deploy.quality.evaluate import Evaluation, MicrographEvaluation, SetEvaluation, binned
from n2n_deploy.quality.figures import BLUE, GREY, RED, figure, resolution_axis
from n2n_deploy.quality.halves import Halves
from n2n_deploy.quality.intervals import LEVEL
from n2n_deploy.quality.views import view

_LEAST, _MOST = 1e-4, 1e5
"""SSNR that the figure reaches from and to: below, nothing is seen; beyond, a smooth image, not a clear one."""

_POINTS = 60
"""Of a curve in a figure; single rings scatter too much to be looked at."""


def write_figures(folder: Path, result: Evaluation) -> dict[str, bytes]:
    """Draw SSNR and recovered signal fraction over resolution; returns the PNG files by caption."""
    whole = result.whole(_POINTS)
    if whole is None:
        return {}
    with figure(folder / "ssnr.png") as (axes,):
        for name, colour, label in (("snr_noisy", GREY, "noisy half"), ("snr_denoised", BLUE, "denoised half")):
            _curve(axes, whole, name, colour, label, _LEAST)
        axes.set_yscale("log")
        axes.set_ylim(_LEAST, _MOST)
        axes.set_ylabel("SSNR")
        _finish(axes, whole)
    with figure(folder / "recovered_signal_fraction.png") as (axes,):
        axes.axhline(0, color=GREY, linewidth=0.7)
        axes.axhline(1, color=GREY, linewidth=0.7)
        _curve(axes, whole, "recovered_signal_fraction", BLUE, "recovered signal fraction")
        axes.set_ylim(-0.55, 1.1)
        axes.set_ylabel("1 − error / signal")
        _finish(axes, whole)
    captions = {
        "ssnr.png": f"Spectral signal-to-noise ratio over the set; bands: {LEVEL:.0%} confidence",
        "recovered_signal_fraction.png": "Recovered signal fraction: 1 is the true signal, 0 a blank image, below 0 "
        f"harm; band: {LEVEL:.0%} confidence",
    }
    return {caption: (folder / name).read_bytes() for name, caption in captions.items()}


def entry_of(done: MicrographEvaluation, halves: Halves, limit: int) -> MicrographEntry:
    """What the report shows of a micrograph: its even half before and after, its SNR and SSNR.

    Args:
        done: what was measured.
        halves: its images.
        limit: bytes that the pictures may take.
    """
    micrograph = done.micrograph
    views = view(halves.even, halves.denoised_even, halves.spacing, micrograph.optics, micrograph.ctf, limit)
    found, curves = from_covariances(done.image), binned(done.rings, _POINTS)
    ctf = micrograph.ctf
    ratios = found.snr_noisy, found.snr_denoised
    return MicrographEntry(
        micrograph.name,
        "evaluated",
        seconds=done.seconds,
        pixel_size=micrograph.optics.pixel_size,
        defocus=None if ctf is None else (ctf.defocus_u + ctf.defocus_v) / 2e4,
        snr=ratios if all(map(math.isfinite, ratios)) else None,
        flags=(*done.flags, *views.flags),
        notes=(*done.notes, f"recovered signal fraction {found.recovered_signal_fraction:.3f}"),
        views=views,
        ssnr=Curves(curves.frequency, curves.snr_noisy, curves.snr_denoised, views.spectra.zeros),
    )


def _curve(axes: Any, whole: SetEvaluation, name: str, colour: str, label: str, floor: float = -np.inf) -> None:
    """Draw an estimate with its confidence band; what lies below the floor, as logarithms may, ends there."""
    interval = whole.rings[name]
    value, low, high = (np.maximum(ends, floor) for ends in (interval.value, interval.low, interval.high))
    axes.fill_between(whole.frequency, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(whole.frequency, value, color=colour, label=label)
    if whole.true_rings is not None:
        true = getattr(whole.true_rings, name)
        axes.plot(whole.frequency, true, color=RED, linestyle=":", label=f"{label}, from the truth")


def _finish(axes: Any, whole: SetEvaluation) -> None:
    resolution_axis(axes, float(whole.frequency[-1]))
    axes.legend()
