"""`denoise`: a whole table of micrographs through one model, with an account at the end."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_deploy.batch.account import Account
from n2n_deploy.batch.lanes import with_time_limit
from n2n_deploy.batch.local_workers import Agree, LocalWorkers, Workers
from n2n_deploy.batch.micrograph_job import Outcome
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Plan
from n2n_deploy.batch.png import draw_missing
from n2n_deploy.batch.report_entry import draw_entry
from n2n_deploy.batch.request import Request, Shard
from n2n_deploy.batch.status import Status
from n2n_deploy.batch.summary import Summary
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import NamingOptions, OpticsOptions
from n2n_deploy.core.signals import Stopping, stop_on_signal
from n2n_deploy.denoiser.model_choice import Model, Source
from n2n_deploy.files.atomic import make_writable_folder, remove_stale_temporaries
from n2n_deploy.io.star_frames import document_of
from n2n_deploy.report.run_info import missing_libraries
from n2n_deploy.report.thumbnails import picture_limit

if TYPE_CHECKING:
    from n2n_deploy.io.star_frames import Frames


@dataclass(frozen=True)
class Progress:
    """What a caller is told when the plan is made (`outcome` is None) and after each micrograph."""

    plan: Plan
    finished: int
    outcome: Outcome | None


def denoise(
    micrographs: "Source | Frames",
    model: Model | None = None,
    output: Path | str = "Denoised",
    *,
    options: DenoiseOptions | None = None,
    naming: NamingOptions | None = None,
    optics: OpticsOptions | None = None,
    shard: Shard | None = None,
    retry: Path | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Denoise every micrograph of a table; one that fails is recorded and skipped.

    Args:
        micrographs: a STAR file or cryoSPARC's .cs file of exposures; or a table as pandas DataFrames, either of the
            micrographs alone or of the blocks of a STAR file by name, as `read_micrographs` and `starfile.read` give
            them, with names that start at the current folder or `naming.project`; or an MRC file or glob, or a list of
            these MRC files (only for models that take unflipped phases, since they come without a CTF).
        model: an open bundle or the path of one; by default the general model of the package, also called "general".
            Where a model takes either, the phases of a table with CTFs are flipped, and those of others are not.
        output: folder that the inputs' folders are mirrored under; by default one in the current folder.
            `denoised.star`, `failed.star`, `summary.json`, `report.html` and the `ledger` that these are made of are
            written there too. Tables and report list everything in the folder: denoising `failed.star` again adds to
            them.
        options: how to denoise; see `DenoiseOptions`.
        naming: how files and their halves are found; see `NamingOptions`.
        optics: for tables and files that lack them; see `OpticsOptions`.
        shard: process one part of the table and write to the ledger only; see `merge_results`.
        retry: the `failed.star` of an earlier run: process only the micrographs that it lists.
        cluster: distribute the work with Dask: "local:N", a scheduler's address or "slurm:N"; see `ClusterWorkers`.
        say: told what the user should know of the table, how the memory is planned, the address of the cluster's
            dashboard, and trouble with the ledger.
        progress: called after planning and after each micrograph, from the calling thread.

    Returns:
        The account of the run. Outputs that an earlier run finished with the same model and options are not made
        again. SIGINT or SIGTERM (in the main thread) ends the run after the micrographs in progress and writes the
        tables; a second signal does not wait for the micrographs.

    Raises:
        DataError: the table cannot be read.
        BundleError: the model is damaged or does not work here.
        UsageError, HostError: the plan cannot succeed; nothing was written.
    """
    source = micrographs if isinstance(micrographs, str | Path | Sequence) else document_of(micrographs)
    request = Request.open(source, model, output, options, shard, retry, naming, optics)
    return run_request(request, cluster=cluster, say=say, progress=progress)


def run_request(
    request: Request,
    *,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Do what a request asks; see `denoise`."""
    start = time.perf_counter()
    table, ledger = request.read(), request.ledger()
    layout = request.layout(table, ledger)
    plan = request.plan(request.part(table), table, layout)
    plan.check(request.output, request.options.on_exists)
    make_folder(request)
    session = "none"
    with stop_on_signal() as stopping, Account(request, layout, ledger, say) as account:
        account.begin(table, plan)
        if progress:
            progress(Progress(plan, 0, None))
        if plan.with_status(Status.PENDING):
            with open_workers(request, plan, cluster, account.agree, say) as workers:
                session = workers.session
                do_jobs(plan, workers, account, stopping, request.options, progress)
        for problem in draw_missing(plan.jobs, request.options, stopping.event):
            if say:
                say(problem)
        account.end(time.perf_counter() - start, session, stopping.signal)
        return account.write()


def open_workers(
    request: Request, plan: Plan, cluster: str | None, agree: Agree, say: Callable[[str], None] | None = None
) -> Workers:
    """Return what processes the jobs: lanes in this process, or Dask's workers.

    Workers of a cluster may have different processors: int8 is used there only if it was asked for or used before.
    """
    draw = None
    if request.options.report and not missing_libraries():
        shards = request.shard.count if request.shard else 1
        draw = partial(draw_entry, picture_bytes=picture_limit(len(plan.jobs) * shards))
    if cluster is None:
        return LocalWorkers(request.bundle, request.options, draw, agree, say)
    from n2n_deploy.batch.cluster import ClusterWorkers

    options, session = request.options, f"dask {cluster}"
    if agree(session, options.precision) and options.precision is None:
        options = options.model_copy(update={"precision": "int8"})
        agree(session, options.precision)
    return ClusterWorkers(cluster, request.bundle, options, draw, logs=request.folder / "dask-logs", say=say)


def do_jobs(
    plan: Plan,
    workers: Workers,
    account: Account,
    stopping: Stopping,
    options: DenoiseOptions,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Process the jobs of a plan, until they are done or the run is asked to stop."""
    finished = 0
    stop_after_failures(account, options, stopping)
    try:
        for outcome in workers.run(plan.with_status(Status.PENDING), stopping.event):
            account.add(outcome)
            finished += 1
            stop_after_failures(account, options, stopping)
            if progress:
                progress(Progress(plan, finished, outcome))
    except KeyboardInterrupt:
        # The second signal: micrographs in progress are left, finished ones are accounted for.
        if stopping.signal is None:
            raise


def stop_after_failures(account: Account, options: DenoiseOptions, stopping: Stopping) -> None:
    """Ask the run to stop if more micrographs failed than the options allow."""
    if options.max_failures is not None and len(account.failures) > options.max_failures:
        account.gave_up = f"more than {options.max_failures} micrographs failed"
        stopping.event.set()


def make_folder(request: Request) -> None:
    """Create the output folder, prove that it can be written to, and remove the temporary files of killed runs.

    Raises:
        HostError: it cannot be written to, or does not answer.
    """
    output, timeout = request.output, request.options.timeout
    with_time_limit(lambda: make_writable_folder(output), timeout, f"writing to {output}")
    with suppress(HostError):  # of a large folder the rest is cleared while the run goes on
        with_time_limit(lambda: remove_stale_temporaries(output), timeout, f"clearing {output}")
