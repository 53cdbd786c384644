"""An evaluation from a table of micrographs and a bundle to a folder with numbers, figures and a report."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import ComputeOptions, NamingOptions, OpticsOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.denoiser.model_choice import Model, open_model
from n2n_deploy.engines.session import Session
from n2n_deploy.evaluation.denoised_halves import DenoisedHalves
from n2n_deploy.evaluation.figures import write_figures
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation
from n2n_deploy.evaluation.result_files import (
    clear,
    evaluation_document,
    refuse_batch,
    write_micrograph_rings,
    write_tables,
)
from n2n_deploy.evaluation.set_evaluation import LABELS, SetEvaluation
from n2n_deploy.evaluation.table_evaluation import TableEvaluation, evaluate_table
from n2n_deploy.files.atomic import make_writable_folder
from n2n_deploy.files.data_files import write_json
from n2n_deploy.imaging.fourier import network_shape
from n2n_deploy.io.mrc import read_headers
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.pairs import read_pairs
from n2n_deploy.io.star import MicrographTable, read_micrographs
from n2n_deploy.report.entries import MicrographEntry
from n2n_deploy.report.entry_spool import EntrySpool
from n2n_deploy.report.estimates import with_estimates
from n2n_deploy.report.page import write_report
from n2n_deploy.report.run_info import missing_libraries, run_info
from n2n_deploy.report.thumbnails import picture_limit
from n2n_deploy.report.views import view
from n2n_deploy.statistics.intervals import LEVEL

_LANES = 2
"""Micrographs processed concurrently where the options do not say how many: one is read while another is denoised."""


_UNNAMED = (
    "neither the table nor the options name even and odd halves: measuring recorrupted pairs, full exposures with "
    "noise of their own spectrum added and subtracted; name halves with --suffixes"
)


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationRun:
    """Results of a run, and the files it wrote.

    Attributes:
        result: each micrograph, and the failures.
        whole: the set; None if no micrograph could be evaluated.
        document: the content of `evaluation.json`.
        report: path of `report.html`, or the reason why it was not written.
    """

    result: TableEvaluation
    whole: SetEvaluation | None
    document: dict[str, Any]
    report: Path | str

    @property
    def exit_code(self) -> int:
        """0 if every micrograph was evaluated, otherwise 1."""
        return 1 if self.result.failures else 0


def run_evaluation(
    micrographs: Path | str | Sequence[Path | str],
    model: Model | None,
    output: Path | str,
    *,
    max_resolution: float | None = None,
    invert: bool = False,
    compute: ComputeOptions | None = None,
    naming: NamingOptions | None = None,
    optics: OpticsOptions | None = None,
    pairs: str = "auto",
    truth: Path | None = None,
    tta: bool = False,
    session: Session | None = None,
    say: Callable[[str], None] = lambda _note: None,
    progress: Callable[[int, str | None, str | None], None] = lambda _total, _name, _error: None,
) -> EvaluationRun:
    """Denoise the halves of every micrograph of a table and estimate signal, noise and bias.

    Writes `evaluation.json`, `evaluation.csv` (micrographs), `rings.csv` (Fourier rings of the set), `rings/` (Fourier
    rings of each micrograph), `ssnr.png`, `recovered_signal_fraction.png` and `report.html`.

    Args:
        micrographs: a STAR file; or MRC files or globs, if the model takes unflipped phases.
        model: an open bundle, the path of one, or "general"; None for the general model. See `open_model`.
        output: the folder to write to.
        max_resolution: Å; None for the model's own.
        invert: protein is white in the micrographs.
        compute: where and how the network runs; two lanes by default.
        naming: how files and their halves are found.
        optics: for tables and files that lack them.
        pairs: "halves" measures even and odd halves, "recorrupted" halves made of the full exposures, "auto" the former
            where table or options name them.
        truth: folder of noiseless images of simulated micrographs, to compare the estimates with.
        tta: average the network over the eight flips and quarter turns of each image.
        session: an open session to use in place of the bundle's network.
        say: told what the user should know of the table.
        progress: called with the number of micrographs, first alone, then with the name of each finished micrograph,
            and with the reason if it failed.

    Raises:
        DataError: the table cannot be read, or names no halves where they are asked for.
        BundleError: the model is damaged or does not reproduce its golden outputs here.
        UsageError: the folder holds a batch of denoised micrographs, or `pairs` is none of the three.
        HostError: the folder cannot be written to, no session works here, or there is not enough memory.
    """
    naming = naming or NamingOptions()
    bundle = open_model(model, micrographs, naming, max_resolution)
    output = Path(output)
    compute = compute or ComputeOptions()
    compute = compute.model_copy(update={"lanes": compute.lanes or _LANES})
    known = (optics or OpticsOptions()).model_dump()
    read = partial(read_micrographs, micrographs, naming, need_ctf=bundle.recipe.phase_flip, **known)
    table, halves = read_pairs(lambda need: read(need_halves=need), pairs)
    unnamed = [] if halves or pairs != "auto" else [_UNNAMED]
    for note in [*table.notes, *unnamed]:
        say(note)
    refuse_batch(output)
    make_writable_folder(output)
    missing = [*missing_libraries(), *(() if importlib.util.find_spec("matplotlib") else ("matplotlib",))]
    spool, limit = EntrySpool(output), picture_limit(len(table))

    def keep(evaluation: MicrographEvaluation, halves: DenoisedHalves) -> None:
        micrograph = evaluation.micrograph
        write_micrograph_rings(output / "rings" / f"{micrograph.row + 1:05d}_{micrograph.path.stem}.csv", evaluation)
        if not missing:
            spool.put(_entry(evaluation, halves, limit))

    with Denoiser(bundle, compute=compute, invert=invert, tta=tta, session=session) as denoiser:
        used = denoiser.session.name
        if sizes := _sizes(table, bundle.recipe, halves=halves):
            denoiser.fit_to_memory(sizes, halves=True)
        clear(output)
        progress(len(table), None, None)
        result = evaluate_table(
            table,
            denoiser,
            truth=truth,
            recorrupted=not halves,
            lanes=denoiser.lanes,
            keep=keep,
            progress=lambda name, error: progress(len(table), name, error),
        )
    whole = result.whole()
    asked = compute.model_dump(mode="json") | naming.model_dump(mode="json") | known
    asked |= {"max_resolution": max_resolution, "invert": invert, "tta": tta, "pairs": pairs}
    options = asked | {"truth": truth and str(truth)}
    done, hours = len(result.done), result.seconds / 3600
    speed = {"wall time": f"{result.seconds:.1f} s", "micrographs per hour": round(done / hours) if hours else None}
    info = run_info("", bundle, used, options, throughput=speed)
    run = {"model": info.model, "recipe": info.recipe, "options": info.options, "versions": info.versions}
    document = evaluation_document(result, whole, {**run, "hardware": info.hardware})
    write_json(output / "evaluation.json", document)
    write_tables(output, result, whole)
    if missing:
        report: Path | str = f"not written: {' and '.join(missing)} not installed; pip install 'n2n-deploy[report]'"
    else:
        report = output / "report.html"
        title = f"Evaluation of {bundle.path.name}" + ("" if halves else " without halves")
        figures = write_figures(output, result)
        rows = _set_table(whole)
        for remark in result.remarks:
            count, _, what = remark.partition(" micrographs ")
            rows[f"micrographs {what}"] = {"value": count}
        info = run_info(title, bundle, used, options, throughput=speed, results=rows, figures=figures)
        write_report(report, info, _Entries(table, result, spool))
    return EvaluationRun(result, whole, document, report)


def _entry(evaluation: MicrographEvaluation, halves: DenoisedHalves, limit: int) -> MicrographEntry:
    """Make a micrograph's entry in the report, from its even half; its pictures take at most `limit` bytes."""
    micrograph = evaluation.micrograph
    views = view(halves.even, halves.denoised_even, halves.spacing, micrograph.optics, micrograph.ctf, limit)
    entry = MicrographEntry.of(
        micrograph,
        "evaluated",
        seconds=evaluation.seconds,
        flags=evaluation.flags,
        notes=evaluation.notes,
        views=views,
    )
    return with_estimates(entry, evaluation.image, evaluation.rings)


def _sizes(table: MicrographTable, recipe: Recipe, *, halves: bool) -> Counter[tuple[tuple[int, int], float]]:
    """Count micrographs by shape and pixel size; unusable ones are skipped, their evaluation reports why."""
    found: Counter[tuple[tuple[int, int], float]] = Counter()
    usable = [each for each in table.micrographs if each.row not in table.problems]
    files = [(each, path) for each in usable if (path := each.even if halves else each.path) is not None]
    for (micrograph, _), header in zip(files, read_headers([path for _, path in files]), strict=True):
        if isinstance(header, MRCHeader):
            shape, pixel_size = (header.shape[-2], header.shape[-1]), micrograph.optics.pixel_size
            with suppress(DataError):
                network_shape(shape, pixel_size, recipe.max_resolution)
                found[shape, pixel_size] += 1
    return found


def _set_table(whole: SetEvaluation | None) -> dict[str, dict[str, str]]:
    """The set's numbers as texts, by quantity and column."""
    if whole is None:
        return {}
    rows = {}
    for name, interval in whole.image.items():
        row = {"value": f"{interval.value:.3g}", f"{LEVEL:.0%} confidence": interval.text()}
        if whole.truth is not None:
            row["ground truth"] = f"{getattr(whole.truth, name):.3g}"
        rows[LABELS[name]] = row
    return rows


@dataclass(frozen=True)
class _Entries:
    """The entries of the report, read from disk one at a time."""

    table: MicrographTable
    result: TableEvaluation
    spool: EntrySpool

    def __iter__(self) -> Iterator[MicrographEntry]:
        for micrograph in self.table.micrographs:
            if (reason := self.result.failures.get(micrograph.name)) is not None:
                yield MicrographEntry(micrograph.name, "failed", reason)
            else:
                yield self.spool.get(micrograph.name) or MicrographEntry(micrograph.name, "evaluated")
