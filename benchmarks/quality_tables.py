"""The numbers of `benchmarks.quality` for each method, from the halves and from the ground truth, and their tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_methods import Case, Method
from n2n_deploy.evaluation.denoised_halves import DenoisedHalves
from n2n_deploy.evaluation.ground_truth import true_moments, true_ring_moments
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.evaluation.set_evaluation import SetEvaluation, evaluate_set
from n2n_deploy.files.data_files import write_csv
from n2n_deploy.statistics.estimates import Covariances, covariances, mean_covariances, ring_covariances

BINS = 40
"""Frequency bins of the figure and of `rings.csv`."""

BANDS = ((200.0, 40.0), (40.0, 20.0), (20.0, 12.0), (12.0, 8.0))
"""Å; resolution bands of the errors in the table."""

LEAST_SSNR = 0.01
"""Smallest SSNR of the noisy half at which a ring counts for the gain; below, the gain is a ratio of noise."""

LEAST_POWER = 1e-6
"""Smallest power of a denoised ring, as a fraction of the noisy ring's; below, it is float32 rounding."""


@dataclass(frozen=True)
class Result:
    """Measurements of one method.

    Attributes:
        whole: estimates and true values of the set.
        rings: mean covariances over the micrographs' Fourier rings.
        errors: true error over signal of each micrograph, if the ground truth is known.
    """

    whole: SetEvaluation
    rings: Covariances
    errors: tuple[float, ...]

    @property
    def recovered(self) -> float:
        """Recovered signal fraction, from the halves."""
        return float(self.whole.image["recovered_signal_fraction"].value)


def measure(method: Method, cases: Sequence[Case]) -> Result:
    """Estimate from the halves, and measure against the ground truth if there is one."""
    done, errors = [], []
    for case in cases:
        even, odd = case.prepared["even"], case.prepared["odd"]
        levels = (even.mean, even.std), (odd.mean, odd.std)
        images = even.image, odd.image, method(case, "even"), method(case, "odd")
        halves = DenoisedHalves(*images, even.spacing, (case.raw["even"], case.raw["odd"]), levels)
        signal = (case.truth["even"], case.truth["odd"]) if case.truth else None
        if signal:
            pairs = list(zip(images[2:], signal, strict=True))
            power = sum(float(true.var(dtype=np.float64)) for _, true in pairs)
            errors.append(sum(error(*pair) for pair in pairs) / power)
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
    return Result(evaluate_set(done, BINS), mean_covariances([each.rings for each in done]), tuple(errors))


def error(denoised: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Mean squared error, ignoring the mean grey level."""
    return float((denoised - true).var(dtype=np.float64))


def numbers(result: Result) -> dict[str, Any]:
    """The set's numbers as plain values."""
    whole = result.whole
    found: dict[str, Any] = {name: float(interval.value) for name, interval in whole.image.items()}
    interval = whole.image["recovered_signal_fraction"]
    found["recovered_signal_fraction_interval"] = [float(interval.low), float(interval.high)]
    found["ssnr_gain"] = ssnr_gain(result.rings)
    if whole.truth is not None and whole.true_rings is not None:
        found["true_relative_error"] = 1 - whole.truth.recovered_signal_fraction
        found["true_relative_error_each"] = list(result.errors)
        signal = whole.true_rings.var_signal
        wrong = signal * (1 - whole.true_rings.recovered_signal_fraction)
        for low, high in BANDS:
            band = (whole.frequency >= 1 / low) & (whole.frequency < 1 / high)
            if band.any():
                found[f"true_relative_error_{low:g}_{high:g}"] = float(wrong[band].sum() / signal[band].sum())
    return found


def ssnr_gain(rings: Covariances) -> float | None:
    """Ratio of SSNR after and before denoising, the median over the rings with signal.

    The SSNR after denoising is ρ²/(1 − ρ²), where ρ is the correlation of the denoised half with the signal, estimated
    from the other half: ρ² = cov(D1,M2)² / (var(D1) cov(M1,M2)). Bias therefore counts as noise, and the grey scale has
    no effect: a linear filter has a gain of 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        noisy = rings.m1m2 / (np.sqrt(rings.m1m1 * rings.m2m2) - rings.m1m2)
        seen = (rings.d1m2 + rings.d2m1) / 2
        square = seen**2 / (np.sqrt(rings.d1d1 * rings.d2d2) * rings.m1m2)
        gain = square / (1 - square) / noisy
        kept = np.sqrt(rings.d1d1 * rings.d2d2 / (rings.m1m1 * rings.m2m2)) > LEAST_POWER
    counted = (noisy > LEAST_SSNR) & kept & np.isfinite(gain) & (square < 1)
    return float(np.median(gain[counted])) if counted.any() else None


def write_rings(path: Path, results: Mapping[str, Result]) -> None:
    """Write the true error per ring as a fraction of the signal, one column per method."""
    errors = {name: true_errors(result) for name, result in results.items()}
    frequency = next(iter(results.values())).whole.frequency
    rows = zip(frequency.tolist(), *(each.tolist() for each in errors.values()), strict=True)
    write_csv(path, ["frequency", *errors], rows)


def true_errors(result: Result) -> NDArray[np.float64]:
    """True error per ring as a fraction of the signal."""
    assert result.whole.true_rings is not None
    errors: NDArray[np.float64] = 1 - result.whole.true_rings.recovered_signal_fraction
    return errors


def markdown(report: Mapping[str, Any]) -> str:
    """Tables for the README."""
    shared: list[_Column] = [
        ("recovered signal, from the halves", _fraction),
        ("SSNR gain", lambda row: f"{row['ssnr_gain']:.2f}×" if row["ssnr_gain"] else "–"),
    ]
    columns: list[_Column] = [("true error / signal", lambda row: f"{row['true_relative_error']:.3f}")]
    for low, high in BANDS:
        key = f"true_relative_error_{low:g}_{high:g}"
        if all(key in row for row in report["simulated"].values()):
            columns.append((f"{low:g}–{high:g} Å", partial(_number, key)))
    columns += shared
    if any("picks" in row for row in report["simulated"].values()):
        columns.append(
            ("LoG picks: precision, recall, F1 at the best threshold; mean F1 of all", lambda row: _picks(row["picks"]))
        )
    text = _table("method", columns, report["simulated"])
    if "picks_of_the_truth" in report:
        text += f"\nLoG picks of the truth itself, as far as this picker goes: {_picks(report['picks_of_the_truth'])}\n"
    sums: list[_Column] = [
        ("error / signal, the sum denoised", lambda row: f"{row['sum']:.4f}"),
        ("the denoised halves averaged", lambda row: f"{row['halves averaged']:.4f}"),
    ]
    text += "\n" + _table("network", sums, report["sums"])
    if "real" in report:
        text += "\nOn the real micrograph, rows not trained on, from the halves alone:\n\n"
        text += _table("method", shared, report["real"])
    hardware = report["hardware"]
    return text + f"\nMeasured on {hardware['processor']}, {hardware['cores']} cores; {report['options']}\n"


_Column = tuple[str, Callable[[dict[str, Any]], str]]


def _table(head: str, columns: Sequence[_Column], rows: Mapping[str, dict[str, Any]]) -> str:
    lines = [f"| {head} | {' | '.join(name for name, _ in columns)} |", "| --- " * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(row) for _, cell in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def _number(key: str, row: dict[str, Any]) -> str:
    return f"{row[key]:.3f}"


def _fraction(row: dict[str, Any]) -> str:
    low, high = row["recovered_signal_fraction_interval"]
    interval = f" ({low:.3f} … {high:.3f})" if np.isfinite(low) else ""
    return f"{row['recovered_signal_fraction']:.3f}{interval}"


def _picks(picks: dict[str, Any]) -> str:
    at_best = ", ".join(f"{picks[name]:.2f}" for name in ("precision", "recall", "f1"))
    return f"{at_best}; {picks['mean_f1']:.2f}"
