"""The figures of a set: SSNR and recovered signal fraction over resolution, with confidence bands."""

from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy.evaluation.set_evaluation import SetEvaluation
from n2n_deploy.evaluation.table_evaluation import TableEvaluation
from n2n_deploy.report.estimates import CURVE_POINTS
from n2n_deploy.report.figures import BLUE, GREY, RED, figure, resolution_axis
from n2n_deploy.statistics.intervals import LEVEL

LEAST, MOST = 1e-4, 1e5
"""Limits of the SSNR axis: below is noise alone; above, the noise estimate of an over-smoothed image is meaningless."""


def write_figures(folder: Path, result: TableEvaluation) -> dict[str, bytes]:
    """Draw SSNR and recovered signal fraction over resolution; return the PNG files by caption."""
    whole = result.whole(CURVE_POINTS)
    if whole is None:
        return {}
    with figure(folder / "ssnr.png") as (axes,):
        for name, colour, label in (("snr_noisy", GREY, "noisy half"), ("snr_denoised", BLUE, "denoised half")):
            _curve(axes, whole, name, colour, label, LEAST)
        axes.set_yscale("log")
        axes.set_ylim(LEAST, MOST)
        axes.set_ylabel("SSNR")
        _finish(axes, whole)
    with figure(folder / "recovered_signal_fraction.png") as (axes,):
        axes.axhline(0, color=GREY, linewidth=0.7)
        axes.axhline(1, color=GREY, linewidth=0.7)
        _curve(axes, whole, "recovered_signal_fraction", BLUE, "recovered signal fraction")
        axes.set_ylim(-0.55, 1.1)
        axes.set_ylabel("recovered signal fraction (1 − error / signal)")
        _finish(axes, whole)
    # A single micrograph has no confidence interval.
    band = f"; bands: {LEVEL:.0%} confidence" if len(result.included) > 1 else ""
    captions = {
        "ssnr.png": f"Spectral signal-to-noise ratio over the set{band}",
        "recovered_signal_fraction.png": "Recovered signal fraction: 1 is the true signal, 0 a blank image, below 0 "
        f"worse than blank{band}",
    }
    return {caption: (folder / name).read_bytes() for name, caption in captions.items()}


def _curve(axes: Any, whole: SetEvaluation, name: str, colour: str, label: str, floor: float = -np.inf) -> None:
    """Draw an estimate with its confidence band; values below `floor` are drawn at it, for logarithmic axes."""
    interval = whole.rings[name]
    value, low, high = (np.maximum(ends, floor) for ends in (interval.value, interval.low, interval.high))
    axes.fill_between(whole.frequency, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(whole.frequency, value, color=colour, label=label)
    if whole.true_rings is not None:
        true = getattr(whole.true_rings, name)
        axes.plot(whole.frequency, true, color=RED, linestyle=":", label=f"{label}, ground truth")


def _finish(axes: Any, whole: SetEvaluation) -> None:
    resolution_axis(axes, float(whole.frequency[-1]))
    if len(axes.get_legend_handles_labels()[0]) > 1:  # the axis names a single curve
        axes.legend()
