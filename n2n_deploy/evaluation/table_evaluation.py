"""Every micrograph of a table: evaluated several at a time, with the failures recorded."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from n2n_deploy.core.errors import N2NError
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.evaluation.denoised_halves import DenoisedHalves
from n2n_deploy.evaluation.micrograph_evaluation import MicrographEvaluation, evaluate_micrograph
from n2n_deploy.evaluation.set_evaluation import SetEvaluation, evaluate_set
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable
from n2n_deploy.report.flags import NO_SIGNAL, NOISE_MODEL, SHARED_NOISE


@dataclass
class TableEvaluation:
    """The results for a table.

    Attributes:
        done: evaluated micrographs, in the table's order.
        failures: reason by micrograph name.
        seconds: wall time.
    """

    done: list[MicrographEvaluation] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def excluded(self) -> list[str]:
        """Names of the micrographs that the set's averages exclude: their halves have no signal in common."""
        return [each.micrograph.name for each in self.done if each.has(NO_SIGNAL)]

    @property
    def included(self) -> list[MicrographEvaluation]:
        """The micrographs that the set's averages include."""
        return [each for each in self.done if not each.has(NO_SIGNAL)]

    @property
    def remarks(self) -> list[str]:
        """Caveats to the set's numbers, one line each."""
        total, excluded, included = len(self.done), len(self.excluded), self.included
        noisy = sum(each.has(SHARED_NOISE) for each in included)
        lines = []
        if excluded:
            lines.append(f"{excluded} of {total} micrographs excluded from the set: no signal in common")
        if made := sum(each.recorrupted for each in included):
            lines.append(
                f"{made} of {len(included)} micrographs in the set: without halves, measured on recorrupted pairs"
            )
        if wrong := sum(each.has(NOISE_MODEL) for each in included):
            lines.append(f"{wrong} of {len(included)} micrographs in the set: the estimate of their noise is off")
        if noisy:
            lines.append(f"{noisy} of {len(included)} micrographs in the set: shared noise counts as signal")
        return lines

    def whole(self, bins: int | None = None) -> SetEvaluation | None:
        """Evaluate the `included` micrographs together; None if there are none. `bins`: see `evaluate_set`."""
        return evaluate_set(self.included, bins) if self.included else None


def evaluate_table(
    table: MicrographTable,
    denoiser: Denoiser,
    *,
    truth: Path | None = None,
    recorrupted: bool = False,
    lanes: int = 2,
    keep: Callable[[MicrographEvaluation, DenoisedHalves], None] = lambda _evaluation, _halves: None,
    progress: Callable[[str, str | None], None] = lambda _name, _error: None,
) -> TableEvaluation:
    """Evaluate every micrograph of a table; a micrograph that fails is recorded and skipped.

    Args:
        table: read with `need_halves`, unless `recorrupted`.
        denoiser: the model.
        truth: folder of noiseless images, for simulated micrographs.
        recorrupted: make the halves of the full exposures.
        lanes: micrographs processed concurrently.
        keep: called with each result and its images, from several threads concurrently.
        progress: called from the calling thread with each micrograph's name, and with the reason if it failed.
    """
    start = time.perf_counter()
    result = TableEvaluation()

    def work(micrograph: Micrograph) -> MicrographEvaluation:
        evaluation, halves = evaluate_micrograph(micrograph, denoiser, truth, recorrupted=recorrupted)
        keep(evaluation, halves)
        return evaluation

    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        submitted = {}
        for micrograph in table.micrographs:
            if micrograph.row in table.problems:
                result.failures[micrograph.name] = table.problems[micrograph.row]
                progress(micrograph.name, table.problems[micrograph.row])
            else:
                submitted[pool.submit(work, micrograph)] = micrograph
        for future in as_completed(submitted):
            name, error = submitted[future].name, future.exception()
            if error is None:
                result.done.append(future.result())
            elif isinstance(error, Exception):
                result.failures[name] = _reason(submitted[future], error)
            else:
                raise error
            progress(name, result.failures.get(name))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    result.done.sort(key=lambda each: each.micrograph.row)
    result.seconds = time.perf_counter() - start
    return result


def _reason(micrograph: Micrograph, error: Exception) -> str:
    """One line that names the file."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, N2NError | OSError | MemoryError):
        text = f"{type(error).__name__}: {text}"
    named = micrograph.name in text or any(path and path.name in text for path in (micrograph.even, micrograph.odd))
    return text if named else f"{micrograph.name}: {text}"
