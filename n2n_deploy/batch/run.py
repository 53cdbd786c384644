"""`denoise`: a whole table of micrographs through one model, each on its own, with an account at the end."""

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_deploy.batch.lanes import Waiting, in_lane
from n2n_deploy.batch.local import LocalWorkers, Workers
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Plan, Status
from n2n_deploy.batch.report import EntryKeeper, write_batch_report
from n2n_deploy.batch.results import Report, Results
from n2n_deploy.batch.summary import Summary
from n2n_deploy.batch.task import Shard, Source, Task
from n2n_deploy.batch.work import Outcome
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.signals import Stopping, stop_on_signal
from n2n_deploy.core.version import __version__
from n2n_deploy.files.atomic import make_writable_folder, remove_stale_temporaries
from n2n_deploy.report.run_info import missing_libraries, run_info
from n2n_deploy.report.thumbnails import picture_limit


@dataclass(frozen=True)
class Progress:
    """What a caller is told after the plan is made (`outcome` None) and after each micrograph."""

    plan: Plan
    finished: int
    outcome: Outcome | None


def denoise(
    micrographs: Source,
    bundle: Bundle | Path | str,
    output: Path | str,
    *,
    options: DenoiseOptions | None = None,
    naming: NamingOptions | None = None,
    shard: Shard | None = None,
    retry: Path | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Denoise every micrograph of a table; one bad file costs one file.

    Args:
        micrographs: a STAR file or cryoSPARC's .cs file of exposures; or an MRC file or glob, or a list of these MRC
            files (only for models that do not flip phases, since they come without a CTF).
        bundle: the model, an open bundle or the path of one.
        output: folder that the inputs' folders are mirrored under; `denoised.star`, `failed.star`, `log.jsonl`,
            `summary.json` and `report.html` are written there too. Tables and report tell of all that is in the
            folder: trying `failed.star` again adds to them.
        options: what to do; see `DenoiseOptions`.
        naming: how files and their halves are found; see `NamingOptions`.
        shard: do one part of the table, with an account of its own under `shards`; see `merge_results`.
        retry: the `failed.star` of an earlier run: do those of the micrographs only that it lists.
        cluster: spread the work by Dask: "local:N", a scheduler's address or "slurm:N"; see `ClusterWorkers`.
        say: told how the memory is planned, and the address of the cluster's dashboard.
        progress: called after planning and after each micrograph, from the calling thread.

    Returns:
        The account of the run. Outputs that an earlier run finished with the same model and options are not made
        again. SIGINT or SIGTERM (in the main thread) ends the run after the micrographs in hand, tables written;
        a second one does not wait for them.

    Raises:
        DataError: the table cannot be read.
        BundleError: the model is damaged or does not work here.
        UsageError, HostError: the plan cannot end well; nothing was written.
    """
    task = Task.open(micrographs, bundle, output, options, shard, retry, naming)
    return run_task(task, cluster=cluster, say=say, progress=progress)


def run_task(
    task: Task,
    *,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Do what a task asks; see `denoise`."""
    start = time.perf_counter()
    table = task.read()
    mirror = task.mirror(table)
    plan = task.plan(task.part(table), table, mirror)
    plan.check(task.output, task.options.on_exists)
    make_folder(task.folder, task.options.timeout)
    session = "none"
    with stop_on_signal() as stopping, open_results(task, mirror) as results:
        results.begin(table, plan)
        if progress:
            progress(Progress(plan, 0, None))
        if plan.with_status(Status.PENDING):
            with open_workers(task, plan, cluster, say) as workers:
                session = workers.session
                do_jobs(plan, workers, results, stopping, task.options, progress)
        results.summary.stopped_by = stopping.signal
        return write_account(task, plan, mirror, results, session, time.perf_counter() - start)


def open_results(task: Task, mirror: OutputLayout) -> Results:
    """What collects a task's outcomes."""
    return Results(mirror, task.folder, phase_flipped=task.phase_flipped, timeout=task.options.timeout)


def write_account(
    task: Task, plan: Plan, mirror: OutputLayout, results: Results, session: str, seconds: float
) -> Summary:
    """Write tables, report and summary.

    Raises:
        HostError: the folder cannot be written to, has no room, or does not answer.
    """
    report = reporter(task, plan, mirror, session)
    run = describe_run(task, session)
    return in_lane(lambda waiting: results.write(seconds, run, report, waiting), task.options.timeout)


def open_workers(task: Task, plan: Plan, cluster: str | None, say: Callable[[str], None] | None = None) -> Workers:
    """What does the jobs: lanes in this process, or Dask's workers."""
    keeper = None
    if task.options.report and not missing_libraries():
        shards = task.shard.count if task.shard else 1
        keeper = EntryKeeper(task.output, picture_limit(len(plan.jobs) * shards))
    if cluster is None:
        return LocalWorkers(task.bundle, task.options, keeper, say)
    from n2n_deploy.batch.cluster import ClusterWorkers

    return ClusterWorkers(cluster, task.bundle, task.options, keeper, logs=task.folder / "dask-logs", say=say)


def do_jobs(
    plan: Plan,
    workers: Workers,
    results: Results,
    stopping: Stopping,
    options: DenoiseOptions,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Do what a plan holds, until it is done or something asks to stop."""
    finished = 0
    too_many(results.summary, options, stopping)
    try:
        for outcome in workers.run(plan.with_status(Status.PENDING), stopping.event):
            results.add(outcome)
            finished += 1
            too_many(results.summary, options, stopping)
            if progress:
                progress(Progress(plan, finished, outcome))
    except KeyboardInterrupt:
        # The second signal: what is in hand is left, what is done is accounted for.
        if stopping.signal is None:
            raise


def too_many(summary: Summary, options: DenoiseOptions, stopping: Stopping) -> None:
    """Ask the run to stop where more micrographs failed than the options allow."""
    if options.max_failures is not None and len(summary.failures) > options.max_failures:
        summary.gave_up = f"more than {options.max_failures} micrographs failed"
        stopping.event.set()


def reporter(task: Task, plan: Plan, mirror: OutputLayout, session: str) -> Report | None:
    """What writes the report of a plan; None where none was asked for."""
    if not task.options.report:
        return None

    def report(summary: Summary, denoised: frozenset[str], waiting: Waiting) -> Path | str:
        if missing := missing_libraries():
            return f"not written: {' and '.join(missing)} not installed; pip install 'n2n-deploy[report]'"
        title = f"Denoising with {task.bundle.path.name}"
        options = task.options.model_dump(mode="json")
        info = run_info(title, task.bundle, session, options, throughput=summary.throughput())
        return write_batch_report(task.folder, info, plan, mirror, summary.failures, denoised, waiting)

    return report


def describe_run(task: Task, session: str) -> dict[str, Any]:
    """Model, versions, hardware and options of a run, for its summary."""
    return {
        "version": __version__,
        "model": {
            "hash": task.bundle.short_hash,
            "preset": task.bundle.manifest.preset,
            "recipe": task.bundle.recipe.model_dump(),
        },
        "session": session,
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "shard": task.shard.name if task.shard else None,
        "options": task.options.model_dump(mode="json"),
    }


def make_folder(folder: Path, timeout: float) -> None:
    """Create the folder of the tables, prove that it can be written to, and clear what a killed run left half-written.

    Raises:
        HostError: it cannot be written to, or does not answer.
    """

    def prove(waiting: Waiting) -> None:
        with waiting(f"writing to {folder}"):
            make_writable_folder(folder)

    def clear(waiting: Waiting) -> None:
        with waiting(f"clearing {folder}"):
            remove_stale_temporaries(folder)

    in_lane(prove, timeout)
    with suppress(HostError):  # of a large folder the rest is cleared while the run goes on
        in_lane(clear, timeout)
