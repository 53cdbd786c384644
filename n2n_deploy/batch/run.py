"""`denoise`: a whole table of micrographs through one model, each on its own, with an account at the end."""

import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import n2n_deploy
from n2n_deploy.batch.lanes import Outcome, denoise_one, run_lanes
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Plan, Status, make_plan
from n2n_deploy.batch.report import EntryKeeper, write_batch_report
from n2n_deploy.batch.results import Results, Summary
from n2n_deploy.bundle import Bundle
from n2n_deploy.denoiser import Denoiser
from n2n_deploy.io.atomic import atomic_write, remove_stale_temporaries
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.quality.run_info import missing_libraries
from n2n_deploy.quality.thumbnails import picture_limit


@dataclass(frozen=True)
class Progress:
    """What a caller is told after the plan is made (`outcome` None) and after each micrograph."""

    plan: Plan
    finished: int
    outcome: Outcome | None


def denoise(
    micrographs: Path | str | Sequence[Path | str],
    bundle: Bundle | Path | str,
    output: Path | str,
    *,
    options: DenoiseOptions | None = None,
    project: Path | str | None = None,
    suffixes: tuple[str, str, str] | None = None,
    even_template: str | None = None,
    odd_template: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Denoise every micrograph of a table; one bad file costs one file.

    Args:
        micrographs: a STAR file, an MRC file or glob, or a list of these MRC files (only for models that do not
            flip phases, since they come without a CTF).
        bundle: the model, an open bundle or the path of one.
        output: folder that the inputs' folders are mirrored under; `denoised.star`, `failed.star`, `log.jsonl`,
            `summary.json` and `report.html` are written there too.
        options: what to do; see `DenoiseOptions`.
        project: folder that the table's relative paths start at; by default found from the table.
        suffixes: (whole, even, odd), where the table does not name the halves that are to be averaged.
        even_template: of the even half's name; see `read_micrographs`.
        odd_template: of the odd half's.
        progress: called after planning and after each micrograph, from the calling thread.

    Returns:
        The account of the run. Outputs that an earlier run finished with the same model and options are not made
        again. SIGINT or SIGTERM (in the main thread) ends the run after the micrographs in hand, tables written.

    Raises:
        DataError: the table cannot be read.
        BundleError: the model is damaged or does not work here.
        UsageError, HostError: the plan cannot end well; nothing was written.
    """
    options = options or DenoiseOptions()
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
    output = Path(output)
    start = time.perf_counter()
    table = read_micrographs(
        micrographs,
        project=Path(project) if project else None,
        suffixes=suffixes,
        even_template=even_template,
        odd_template=odd_template,
        need_ctf=bundle.recipe.phase_flip,
        need_halves=options.average_halves,
    )
    plan = make_plan(table.micrographs, table.problems, output, bundle.short_hash, bundle.recipe, options)
    plan.check(output, options.on_exists)
    _make_folder(output)
    todo = plan.with_status(Status.TODO)
    finished = 0
    missing = missing_libraries()
    if progress:
        progress(Progress(plan, finished, None))
    phase_flipped = bundle.recipe.phase_flip and not options.flip_back
    with (
        _stop_on_signal() as stopping,
        Denoiser(
            bundle,
            device=options.device,
            memory=options.memory,
            threads=options.threads,
            merge=options.merge,
            flip_back=options.flip_back,
            lowpass=options.lowpass,
            augment=options.augment,
            lanes=options.lanes,
        ) as denoiser,
        Results(plan, table, output, phase_flipped=phase_flipped) as results,
    ):
        keeper = EntryKeeper(output, picture_limit(len(plan.jobs))) if options.report and not missing else None
        work = partial(denoise_one, denoiser=denoiser, options=options, keeper=keeper)
        for outcome in run_lanes(todo, work, options.lanes, stopping.event):
            results.add(outcome)
            finished += 1
            if progress:
                progress(Progress(plan, finished, outcome))
        run = describe_run(bundle, denoiser.session.name, options)

        def report(summary: Summary, denoised: frozenset[int]) -> Path | str:
            if missing:
                return f"not written: {' and '.join(missing)} not installed; pip install 'n2n-deploy[report]'"
            return write_batch_report(
                output,
                plan,
                summary.failures,
                denoised,
                bundle,
                denoiser.session.name,
                options.model_dump(mode="json"),
                summary.throughput(),
            )

        seconds = time.perf_counter() - start
        return results.finish(seconds, run, stopping.signal, report if options.report else None)


def describe_run(bundle: Bundle, session: str, options: DenoiseOptions) -> dict[str, Any]:
    """Model, versions, hardware and options of a run, for its summary."""
    return {
        "version": n2n_deploy.__version__,
        "model": {
            "hash": bundle.short_hash,
            "preset": bundle.manifest.preset,
            "recipe": bundle.recipe.model_dump(),
        },
        "session": session,
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "options": options.model_dump(mode="json"),
    }


def _make_folder(output: Path) -> None:
    """Create the output folder, prove that it can be written to, and clear what a killed run left half-written."""
    probe = output / f".n2n-write-test-{os.getpid()}"
    with atomic_write(probe):
        pass
    probe.unlink()
    remove_stale_temporaries(output)


class _Stopping:
    """Whether a signal has asked the run to end, and which."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt
        self.signal = number
        self.event.set()


@contextmanager
def _stop_on_signal() -> Iterator[_Stopping]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one interrupts at once."""
    stopping = _Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stopping) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
