"""The files of a comparison of models: JSON, CSV and the figures with a curve for each model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2n_deploy.core.errors import HostError
from n2n_deploy.evaluation.figures import LEAST, MOST
from n2n_deploy.evaluation.result_files import UNITS, finite, intervals
from n2n_deploy.files.data_files import write_csv, write_json
from n2n_deploy.report.figures import GREY, figure, resolution_axis
from n2n_deploy.statistics.estimates import QUANTITIES
from n2n_deploy.statistics.intervals import LEVEL, METHOD

if TYPE_CHECKING:
    from n2n_deploy.evaluation.comparison import ModelResult

COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#e08214", "#762a83")
"""Of the models' curves; further models take them again, with another line style."""

FIGURES = {
    "compared_ssnr.png": f"Spectral signal-to-noise ratio of a denoised half, by model; bands: {LEVEL:.0%} confidence",
    "compared_recovered_signal_fraction.png": "Recovered signal fraction by model: 1 is the true signal, 0 a blank "
    f"image, below 0 worse than blank; bands: {LEVEL:.0%} confidence",
}
"""Caption by file."""

_WRITTEN = ("comparison.json", "comparison.csv", *FIGURES)


def clear_comparison(folder: Path) -> None:
    """Remove the files of an earlier comparison; the folders of its models are cleared by their evaluations.

    Raises:
        HostError: a file cannot be removed.
    """
    for name in _WRITTEN:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(
                f"{folder / name}: cannot remove this file of an earlier comparison ({error.strerror})"
            ) from error


def write_comparison(folder: Path, results: Sequence["ModelResult"], remarks: Sequence[str]) -> Mapping[str, Any]:
    """Write `comparison.json` and `comparison.csv`, with a group of rows for each model; return the document."""
    models = []
    for result in results:
        gain = result.gain
        models.append(
            {
                "model": result.name,
                "hash": result.bundle.short_hash,
                "recipe": result.bundle.recipe.model_dump(),
                "failed": len(result.run.result.failures),
                "set": None if result.whole is None else intervals(result.whole.image, result.whole.truth),
                "gain": None if gain is None else {"value": gain.value, "low": gain.low, "high": gain.high},
            }
        )
    document: dict[str, Any] = finite(
        {
            "units": UNITS,
            "confidence": {"level": LEVEL, "method": METHOD},
            "gain": f"recovered signal fraction less that of {results[0].name}, from the same micrographs",
            "remarks": list(remarks),
            "models": models,
        }
    )
    write_json(folder / "comparison.json", document)
    rows: list[list[Any]] = []
    for result in results:
        if result.whole is not None:
            found = result.whole.image
            rows += [[result.name, name, *map(float, _ends(found[name]))] for name in QUANTITIES]
        if result.gain is not None:
            rows.append([result.name, "gain", *map(float, _ends(result.gain))])
    write_csv(folder / "comparison.csv", ["model", "quantity", "value", "low", "high"], rows)
    return document


def draw_comparison(folder: Path, results: Sequence["ModelResult"]) -> list[str]:
    """Draw SSNR and recovered signal fraction over resolution, a curve for each model; return the files' names."""
    drawn = [result for result in results if result.curves is not None]
    if not drawn:
        return []
    ssnr, fraction = FIGURES
    with figure(folder / ssnr) as (axes,):
        noisy = drawn[0].curves
        assert noisy is not None
        values = np.maximum(noisy.rings["snr_noisy"].value, LEAST)
        axes.plot(noisy.frequency, values, color=GREY, label="noisy half")
        _curves(axes, drawn, "snr_denoised", LEAST)
        axes.set_yscale("log")
        axes.set_ylim(LEAST, MOST)
        axes.set_ylabel("SSNR")
    with figure(folder / fraction) as (axes,):
        axes.axhline(0, color=GREY, linewidth=0.7)
        axes.axhline(1, color=GREY, linewidth=0.7)
        _curves(axes, drawn, "recovered_signal_fraction")
        axes.set_ylim(-0.55, 1.1)
        axes.set_ylabel("recovered signal fraction (1 − error / signal)")
    return list(FIGURES)


def _curves(axes: Any, results: Sequence["ModelResult"], quantity: str, floor: float = -np.inf) -> None:
    """Draw one estimate of every model; values below `floor` are drawn at it, for logarithmic axes."""
    end = 0.0
    for number, result in enumerate(results):
        assert result.curves is not None
        frequency, interval = result.curves.frequency, result.curves.rings[quantity]
        value, low, high = (np.maximum(each, floor) for each in _ends(interval))
        colour, style = COLOURS[number % len(COLOURS)], ("-", "--", ":")[number // len(COLOURS) % 3]
        axes.fill_between(frequency, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(frequency, value, color=colour, linestyle=style, label=result.name)
        end = max(end, float(frequency[-1]))
    resolution_axis(axes, end)
    axes.legend()


def _ends(interval: Any) -> tuple[Any, Any, Any]:
    return interval.value, interval.low, interval.high
