"""What is to be seen of an evaluation: the figures of the set, and each micrograph's entry in the report."""

from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy.evaluation.evaluate import Evaluation, MicrographEvaluation, SetEvaluation
from n2n_deploy.evaluation.halves import Halves
from n2n_deploy.report.entries import MicrographEntry
from n2n_deploy.report.estimates import CURVE_POINTS, with_estimates
from n2n_deploy.report.figures import BLUE, GREY, RED, figure, resolution_axis
from n2n_deploy.report.views import view
from n2n_deploy.statistics.intervals import LEVEL

_LEAST, _MOST = 1e-4, 1e5
"""SSNR that the figure reaches from and to: below, nothing is seen; beyond, a smooth image, not a clear one."""


def write_figures(folder: Path, result: Evaluation) -> dict[str, bytes]:
    """Draw SSNR and recovered signal fraction over resolution; returns the PNG files by caption."""
    whole = result.whole(CURVE_POINTS)
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
        axes.set_ylabel("recovered signal fraction (1 − error / signal)")
        _finish(axes, whole)
    # One micrograph has no interval, and no band is drawn.
    band = f"; bands: {LEVEL:.0%} confidence" if len(result.done) - len(result.left_out) > 1 else ""
    captions = {
        "ssnr.png": f"Spectral signal-to-noise ratio over the set{band}",
        "recovered_signal_fraction.png": "Recovered signal fraction: 1 is the true signal, 0 a blank image, below 0 "
        f"harm{band}",
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
    entry = MicrographEntry.of(
        micrograph, "evaluated", seconds=done.seconds, flags=done.flags, notes=done.notes, views=views
    )
    return with_estimates(entry, done.image, done.rings)


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
    if len(axes.get_legend_handles_labels()[0]) > 1:  # the axis names a single curve
        axes.legend()
