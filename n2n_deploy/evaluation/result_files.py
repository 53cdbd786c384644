"""The files with an evaluation's numbers: JSON and CSV, for the set and for each micrograph."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.evaluation.ground_truth import from_moments
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.evaluation.set_evaluation import SetEvaluation
from n2n_deploy.evaluation.table_evaluation import TableEvaluation
from n2n_deploy.files.data_files import write_csv
from n2n_deploy.statistics.estimates import QUANTITIES, Estimates, from_covariances
from n2n_deploy.statistics.intervals import LEVEL, METHOD, Interval

WRITTEN = (
    "evaluation.json",
    "evaluation.csv",
    "rings.csv",
    "ssnr.png",
    "recovered_signal_fraction.png",
    "report.html",
)
"""What an evaluation writes, besides `rings/` with a table for each micrograph."""

UNITS = "variances are fractions of a noisy half's variance within the recipe's band; frequencies are 1/Å"


def evaluation_document(result: TableEvaluation, whole: SetEvaluation | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `evaluation.json` as plain values; a number that is not finite is None."""
    document = {
        "run": run,
        "units": UNITS,
        "confidence": {"level": LEVEL, "method": METHOD},
        "micrographs": len(result.done),
        "excluded_from_the_set": result.excluded,
        "remarks": result.remarks,
        "failed": len(result.failures),
        "failures": result.failures,
        "seconds": round(result.seconds, 3),
        "set": None if whole is None else intervals(whole.image, whole.truth),
        "rings": None if whole is None else {"frequency": whole.frequency, **intervals(whole.rings, whole.true_rings)},
        "each": [_each(done) for done in result.done],
    }
    plain: dict[str, Any] = finite(document)
    return plain


def refuse_batch(folder: Path) -> None:
    """Refuse the output folder of a batch: the evaluation would overwrite its report and configuration.

    Raises:
        UsageError: the folder holds a batch of denoised micrographs.
    """
    for name in ("denoised.star", "summary.json"):
        if (folder / name).exists():
            raise UsageError(f"{folder}: holds denoised micrographs ({name}); give evaluate another output folder")


def clear(folder: Path) -> None:
    """Remove the files of an earlier evaluation, so that the folder never mixes the numbers of two runs.

    Raises:
        HostError: a file cannot be removed.
    """
    for path in [folder / name for name in WRITTEN] + list((folder / "rings").glob(f"{'[0-9]' * 5}*_*.csv")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{path}: cannot remove this file of an earlier evaluation ({error.strerror})") from error


def write_tables(folder: Path, result: TableEvaluation, whole: SetEvaluation | None) -> None:
    """Write `evaluation.csv`, one row per micrograph, and `rings.csv`, one row per Fourier ring of the set."""
    known = any(done.truth is not None for done in result.done)
    names = [*QUANTITIES, *(f"true_{name}" for name in QUANTITIES if known)]
    header = [
        "micrograph",
        *names,
        "shared_noise",
        "shared_noise_error",
        "std_even",
        "std_odd",
        "pairs",
        "flags",
        "failure",
    ]
    rows: list[list[Any]] = []
    for done in result.done:
        measured = [*_named(from_covariances(done.image)).values()]
        if known:
            measured += _named(from_moments(done.truth)).values() if done.truth else [math.nan] * len(QUANTITIES)
        best = min(done.shared_noise, key=lambda noise: noise.error, default=None)
        shared = [best.fraction, best.error] if best else [math.nan, math.nan]
        flags = "; ".join(sorted({flag.kind for flag in done.flags}))
        rows.append([done.micrograph.name, *measured, *shared, *done.grey_levels, _pairs(done), flags, ""])
    rows += [[name, *[""] * (len(header) - 2), reason] for name, reason in result.failures.items()]
    write_csv(folder / "evaluation.csv", header, rows)
    if whole is not None:
        columns = {"frequency": whole.frequency}
        for name, interval in whole.rings.items():
            columns |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            if whole.true_rings is not None:
                columns[f"true_{name}"] = getattr(whole.true_rings, name)
        _write_rings(folder / "rings.csv", columns)


def write_micrograph_rings(path: Path, done: MicrographEvaluation) -> None:
    """Write the estimates of one micrograph, one row per Fourier ring."""
    found = from_covariances(done.rings)
    columns = {"frequency": found.frequency} | _named(found)
    if done.true_rings is not None:
        columns |= {f"true_{name}": values for name, values in _named(from_moments(done.true_rings)).items()}
    _write_rings(path, columns)


def intervals(found: Mapping[str, Interval], truth: Estimates | None) -> dict[str, Any]:
    """Estimates with the ends of their intervals and, where it is known, the truth, for JSON."""
    return {
        name: {
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            **({} if truth is None else {"true": getattr(truth, name)}),
        }
        for name, interval in found.items()
    }


def _each(done: MicrographEvaluation) -> dict[str, Any]:
    truth = {} if done.truth is None else {"true": _named(from_moments(done.truth))}
    return {
        "micrograph": done.micrograph.name,
        **_named(from_covariances(done.image)),
        **truth,
        "shared_noise": [asdict(noise) for noise in done.shared_noise],
        "std": list(done.grey_levels),
        "pairs": _pairs(done),
        "flags": [asdict(flag) for flag in done.flags],
        "notes": list(done.notes),
        "seconds": round(done.seconds, 3),
    }


def _pairs(done: MicrographEvaluation) -> str:
    return "recorrupted" if done.recorrupted else "halves"


def _named(found: Estimates) -> dict[str, Any]:
    return {name: getattr(found, name) for name in QUANTITIES}


def _write_rings(path: Path, columns: Mapping[str, NDArray[np.float64]]) -> None:
    # Ring 0 is the mean, which the estimates ignore.
    rows = zip(*(values[1:].tolist() for values in columns.values()), strict=True)
    write_csv(path, list(columns), rows)


def finite(value: Any) -> Any:
    """Convert to plain JSON values: arrays to lists, numbers to seven digits, and what is not finite to None."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
