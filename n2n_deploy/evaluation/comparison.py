"""Several models evaluated on the same halves, side by side: numbers, curves and a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.options import ComputeOptions, NamingOptions
from n2n_deploy.denoiser.model_choice import Model, Source, open_alike
from n2n_deploy.evaluation.comparison_files import FIGURES, clear_comparison, draw_comparison, write_comparison
from n2n_deploy.evaluation.evaluation_run import EvaluationRun, run_evaluation
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.evaluation.result_files import clear, refuse_batch
from n2n_deploy.evaluation.set_evaluation import LABELS, SetEvaluation, evaluate_set
from n2n_deploy.files.atomic import make_writable_folder
from n2n_deploy.report.entries import MicrographEntry
from n2n_deploy.report.estimates import CURVE_POINTS, with_estimates
from n2n_deploy.report.page import write_report
from n2n_deploy.report.run_info import run_info
from n2n_deploy.statistics.estimates import COVARIANCE_NAMES, Covariances, from_covariances
from n2n_deploy.statistics.intervals import LEVEL, Interval, jackknife


@dataclass(frozen=True, slots=True, eq=False)
class ModelResult:
    """One model of a comparison.

    Attributes:
        name: what it is called in the comparison.
        bundle: the model, with the recipe that was followed.
        run: its own evaluation, in a folder of its own.
        whole: the set, of the micrographs that all models could evaluate; None if there are none.
        curves: the same at the points of a curve.
        gain: recovered signal fraction less that of the first model; None for the first, and without a set.
    """

    name: str
    bundle: Bundle
    run: EvaluationRun
    whole: SetEvaluation | None
    curves: SetEvaluation | None
    gain: Interval | None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Results of a comparison.

    Attributes:
        results: one for each model, in the order given.
        remarks: caveats to the numbers, one line each.
        document: the content of `comparison.json`.
        report: path of `report.html`, or the reason why it was not written.
    """

    results: Sequence[ModelResult]
    remarks: Sequence[str]
    document: Mapping[str, Any]
    report: Path | str

    @property
    def exit_code(self) -> int:
        """0 if every micrograph was evaluated by every model, otherwise 1."""
        return max(result.run.exit_code for result in self.results)


def compare_models(
    micrographs: Source,
    models: Sequence[Model],
    output: Path | str,
    *,
    max_resolution: float | None = None,
    naming: NamingOptions | None = None,
    compute: ComputeOptions | None = None,
    say: Callable[[str], None] = lambda _note: None,
    **evaluation: Any,
) -> Comparison:
    """Evaluate several models on the halves of the same micrographs; see `run_evaluation`.

    A model that takes a range of recipes, such as the general one, follows the first that takes one alone: only within
    the same band are the numbers comparable.

    Writes `comparison.json`, `comparison.csv` (a group of rows for each model), `compared_ssnr.png`,
    `compared_recovered_signal_fraction.png` and `report.html`; and the evaluation of each model in a folder of its own.

    Args:
        micrographs: as for `run_evaluation`.
        models: two or more.
        output: the folder to write to.
        max_resolution: Å; None for that of the models.
        naming: how files and their halves are found.
        compute: where and how the networks run.
        say: told what the user should know of the table, once.
        evaluation: further arguments of `run_evaluation`.

    Raises:
        As for `run_evaluation`.
    """
    output = Path(output)
    bundles = open_alike(models, micrographs, naming, max_resolution)
    names = _names([model.path if isinstance(model, Bundle) else model for model in models])
    refuse_batch(output)
    make_writable_folder(output)
    clear(output)
    clear_comparison(output)
    told: set[str] = set()

    def say_once(note: str) -> None:
        if note not in told:
            told.add(note)
            say(note)

    runs = [
        run_evaluation(micrographs, bundle, output / folder, naming=naming, compute=compute, say=say_once, **evaluation)
        for bundle, folder in zip(bundles, _folders(names), strict=True)
    ]
    results = _results(names, bundles, runs)
    remarks = _remarks(results)
    document = write_comparison(output, results, remarks)
    return Comparison(results, remarks, document, _report(output, results, remarks))


def _names(models: Sequence[Path | str]) -> list[str]:
    """Call models by their file names, or by their paths where two have one name."""
    names = [Path(model).name for model in models]
    return [str(model) if names.count(name) > 1 else name for model, name in zip(models, names, strict=True)]


def _folders(names: Sequence[str]) -> list[str]:
    """A folder for each model; numbers keep those of two models with one file name apart."""
    return [f"{number}-{Path(name).stem}" for number, name in enumerate(names, start=1)]


def _results(names: Sequence[str], bundles: Sequence[Bundle], runs: Sequence[EvaluationRun]) -> list[ModelResult]:
    """Evaluate the micrographs that every model has in its set."""
    sets = [{each.micrograph.name: each for each in run.result.included} for run in runs]
    common = [name for name in sets[0] if all(name in each for each in sets)]
    chosen = [[each[name] for name in common] for each in sets]
    return [
        ModelResult(
            name,
            bundle,
            run,
            evaluate_set(each) if common else None,
            evaluate_set(each, CURVE_POINTS) if common else None,
            _gain(each, chosen[0]) if common and each is not chosen[0] else None,
        )
        for name, bundle, run, each in zip(names, bundles, runs, chosen, strict=True)
    ]


def _gain(evaluations: Sequence[MicrographEvaluation], first: Sequence[MicrographEvaluation]) -> Interval:
    """How much more signal one model recovers than another, with its confidence interval.

    Micrographs differ by more than models, so the difference is far better known than either value.
    """
    pairs = np.array(
        [[_covariances(one), _covariances(other)] for one, other in zip(evaluations, first, strict=True)]
    )  # (micrographs, 2, quantities)

    def gain(means: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        one, other = (
            np.asarray(from_covariances(Covariances(*each)).recovered_signal_fraction)
            for each in (means[: len(COVARIANCE_NAMES)], means[len(COVARIANCE_NAMES) :])
        )
        return {"gain": one - other}

    return jackknife(pairs.reshape(len(pairs), -1), gain)["gain"]


def _covariances(evaluation: MicrographEvaluation) -> list[float]:
    return [float(getattr(evaluation.image, name)) for name in COVARIANCE_NAMES]


def _remarks(results: Sequence[ModelResult]) -> list[str]:
    remarks = list(dict.fromkeys(remark for result in results for remark in result.run.result.remarks))
    first = results[0].bundle.recipe
    for result in results[1:]:
        recipe = result.bundle.recipe
        fields = {
            "max_resolution": (f"{first.max_resolution:g} Å", f"{recipe.max_resolution:g} Å"),
            "highpass": (f"{first.highpass:g} Å", f"{recipe.highpass:g} Å"),
            "phase flip": tuple("yes" if each.phase_flip else "no" for each in (first, recipe)),
        }
        if unlike := [f"{name} {own} and {other}" for name, (own, other) in fields.items() if own != other]:
            remarks.append(
                f"{results[0].name} and {result.name} see different images ({', '.join(unlike)}): compare their "
                "curves, not the numbers over the whole band"
            )
    return remarks


def _report(output: Path, results: Sequence[ModelResult], remarks: Sequence[str]) -> Path | str:
    """Write `report.html`, unless the models' own reports could not be written either."""
    missing = next((result.run.report for result in results if isinstance(result.run.report, str)), None)
    if missing is not None:
        return missing
    figures = draw_comparison(output, results)
    first = results[0]
    info = run_info(
        f"Comparison of {' and '.join(result.name for result in results)}",
        first.bundle,
        first.run.document["run"]["hardware"]["network runs on"],
        first.run.document["run"]["options"],
        throughput={f"wall time, {result.name}": f"{result.run.result.seconds:.1f} s" for result in results},
        results=_table(results),
        figures={caption: (output / name).read_bytes() for name, caption in FIGURES.items() if name in figures},
    )
    facts = {result.name: f"{result.bundle.short_hash}, preset {result.bundle.manifest.preset}" for result in results}
    alike = len({result.bundle.recipe for result in results}) == 1
    info = replace(info, model=facts, recipe=info.recipe if alike else {}, remarks=tuple(remarks))
    write_report(output / "report.html", info, _entries(results))
    return output / "report.html"


def _table(results: Sequence[ModelResult]) -> dict[str, dict[str, str]]:
    """The sets' numbers as texts, by quantity, with two columns for each model."""
    rows: dict[str, dict[str, str]] = {}
    for name, label in LABELS.items():
        row = rows[label] = {}
        for result in results:
            if result.whole is None:
                return {}
            interval = result.whole.image[name]
            row[result.name] = f"{interval.value:.3g}"
            row[f"{LEVEL:.0%} confidence, {result.name}"] = interval.text()
    gains = [
        (result.name, "–" if result.gain is None else f"{result.gain.value:+.3g}", result.gain) for result in results
    ]
    rows[f"recovered signal fraction less that of {results[0].name}"] = {
        column: text
        for name, value, gain in gains
        for column, text in ((name, value), (f"{LEVEL:.0%} confidence, {name}", gain.text() if gain else "–"))
    }
    return rows


def _entries(results: Sequence[ModelResult]) -> list[MicrographEntry]:
    """A row of the report for each micrograph and model; pictures are in the report of each model."""
    entries = []
    for result in results:
        for name, reason in result.run.result.failures.items():
            entries.append(MicrographEntry(f"{name} · {result.name}", "failed", reason))
        for done in result.run.result.done:
            entry = MicrographEntry.of(
                done.micrograph, "evaluated", seconds=done.seconds, flags=done.flags, notes=done.notes
            )
            entry = replace(entry, name=f"{done.micrograph.name} · {result.name}")
            entries.append(with_estimates(entry, done.image, done.rings))
    return sorted(entries, key=lambda entry: entry.name)
