"""`ClusterWorkers`: jobs distributed over processes and machines by Dask, which schedules, retries and monitors them.

Each worker process keeps its engine open. Only as many jobs are submitted at a time as keep the workers busy.
"""

import importlib
import queue
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from n2n_deploy.batch.cluster_worker import denoise_on_worker
from n2n_deploy.batch.micrograph_job import Outcome, failed, retried_alone
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report_entry import DrawEntry
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError, UsageError
from n2n_deploy.device.memory import available_memory
from n2n_deploy.device.processor import usable_cores

_PER_THREAD = 2
"""Jobs submitted for each thread of the workers: one in progress, and one to begin while the result travels."""

_SBATCH_SECONDS = 120
_LOOK_SECONDS = 1.0

_RETRIES = 2
"""How often a job that could not run at all is tried again, on any free worker."""

# Control-C in a terminal reaches every process of the group; only the one that the user started ends the run.
_PRELOAD = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


class ClusterWorkers:
    """Workers of a Dask cluster; a context manager that starts and ends what it starts itself.

    Args:
        spec: "local:N" for N processes on this machine, "tcp://host:port" (or tls) for a running scheduler,
            "slurm:N" for N jobs of one worker each. SLURM's queue, account, walltime, cores, memory and further
            directives come from Dask's own configuration (`~/.config/dask/jobqueue.yaml`, or variables such as
            DASK_JOBQUEUE__SLURM__QUEUE); cores are by default the lanes.
        bundle: the model; its file must be readable on every worker.
        options: of the run; a worker has `options.lanes_here` lanes, or its threads if it was started separately.
        draw: draws what the report shows; None if there is no report.
        logs: folder for the logs of SLURM's jobs.
        say: told the dashboard's address.

    Raises:
        UsageError: the spec is invalid.
        HostError: Dask is not installed, or the cluster cannot be reached or started.
    """

    def __init__(
        self,
        spec: str,
        bundle: Bundle,
        options: DenoiseOptions,
        draw: DrawEntry | None = None,
        *,
        logs: Path,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if not re.fullmatch(r"local:[1-9]\d*|(tcp|tls)://\S+|slurm(:[1-9]\d*)?", spec):
            raise UsageError(f"cluster {spec!r}: expected local:N, tcp://host:port or slurm:N")
        self.session = f"dask {spec}"
        self._spec = spec
        self._bundle = bundle
        self._options = options
        self._draw = draw
        self._logs = logs
        self._say = say
        self._cluster: Any = None
        self._client: Any = None

    def __enter__(self) -> Self:
        kind, _, rest = self._spec.partition(":")
        try:
            if kind == "local":
                self._cluster = self._start_local(int(rest))
            elif kind == "slurm":
                self._cluster = self._start_slurm(int(rest or 1))
            self._client = _library("distributed").Client(self._cluster if self._cluster is not None else self._spec)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            self._close()
            raise HostError(f"the Dask cluster {self._spec} cannot be used: {' '.join(str(error).split())}") from error
        if self._say:
            self._say(f"Dask scheduler {self._client.scheduler.address}, dashboard {self._client.dashboard_link}")
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Submit the jobs, a bounded number at a time; see `Workers`.

        A job whose workers died, or that ran out of memory, is tried once more with no other in progress: Dask cannot
        tell which of the jobs on a worker was to blame.
        """
        waiting = iter(jobs)
        submitted: dict[Any, Job] = {}
        retries: deque[Outcome] = deque()
        alone: Outcome | None = None
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        work = partial(
            denoise_on_worker,
            bundle=self._bundle.path.absolute(),
            model=self._bundle.short_hash,
            recipe=self._bundle.recipe,
            options=self._options,
            draw=self._draw,
        )

        def submit(job: Job) -> None:
            future = self._client.submit(work, job, pure=False, retries=_RETRIES)
            submitted[future] = job
            future.add_done_callback(answers.put)

        looked, window = 0.0, 1
        while True:
            if time.monotonic() - looked > _LOOK_SECONDS:  # workers come and go
                window, looked = _PER_THREAD * max(self._threads(), 1), time.monotonic()
            if not retries and not alone:
                while len(submitted) < window and not stop.is_set() and (job := next(waiting, None)) is not None:
                    submit(job)
            elif not submitted and not stop.is_set():
                alone = retries.popleft()
                submit(alone.job)
            if not submitted:
                return
            try:
                future = answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if stop.is_set() and not self._threads():
                    return  # the jobs in progress were lost with the workers
                continue
            job = submitted.pop(future)
            outcome = _outcome(job, future)
            if alone:
                yield retried_alone(outcome, alone)
                alone = None
            elif outcome.retry_alone:
                retries.append(outcome)
            else:
                yield outcome

    def _threads(self) -> int:
        """Return the number of threads of all workers that are connected now."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers)

    def _start_local(self, count: int) -> Any:
        share = {
            "memory": self._options.memory or int(0.8 * available_memory() / count),
            "threads": self._options.threads or max(1, usable_cores() // count),
        }
        self._options = self._options.model_copy(update=share)
        return _library("distributed").LocalCluster(
            n_workers=count,
            threads_per_worker=self._options.lanes_here,
            memory_limit=0,  # this package budgets memory; Dask's limit would kill workers that keep to the budget
            preload=[_PRELOAD],
        )

    def _start_slurm(self, count: int) -> Any:
        library = _library("dask_jobqueue")
        configured = partial(_library("dask").config.get, default=None)
        directives = list(configured("jobqueue.slurm.job-extra-directives") or [])
        if self._options.devices[0].startswith(("gpu", "cuda")) and not any("gpu" in line for line in directives):
            directives.append("--gres=gpu:1")
        cluster = library.SLURMCluster(
            cores=configured("jobqueue.slurm.cores") or self._options.lanes_here,
            memory=configured("jobqueue.slurm.memory") or "16GB",
            processes=configured("jobqueue.slurm.processes") or 1,
            job_extra_directives=directives,
            log_directory=configured("jobqueue.slurm.log-directory") or str(self._logs),
        )
        _try_submission(cluster.job_script())
        # Adapting keeps the number: a job that reaches its walltime is followed by another.
        cluster.adapt(minimum_jobs=count, maximum_jobs=count)
        return cluster

    def _close(self) -> None:
        for started in (self._client, self._cluster):
            if started is not None:
                started.close()
        self._client = self._cluster = None


def _library(name: str) -> Any:
    """Import a library of the extra `cluster`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HostError(f"{name} is not installed; pip install 'n2n-deploy[cluster]' installs it") from error


def _try_submission(script: str) -> None:
    """Let SLURM check a job without queueing it: Dask would log each rejection, try again and wait for ever.

    Raises:
        RuntimeError: SLURM would reject it.
        TimeoutError: SLURM does not answer.
    """
    command = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(
            command, input=script, capture_output=True, encoding="utf-8", errors="replace", timeout=_SBATCH_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{' '.join(command)} did not answer within {_SBATCH_SECONDS} s") from error
    if done.returncode:
        raise RuntimeError(
            f"{done.stderr.strip()} (its options come from jobqueue.slurm in ~/.config/dask/jobqueue.yaml)"
        )


def _outcome(job: Job, future: Any) -> Outcome:
    """Return the outcome of a job: the worker's, or why no worker could give one."""
    try:
        outcome = future.result()
    except _library("distributed").KilledWorker as error:
        died = f"{job.micrograph.path}: {error.allowed_failures + 1} workers died on it, one after the other"
        return replace(failed(job, HostError(died)), retry_alone="its workers died")
    except BaseException as error:  # CancelledError of a stopped scheduler is not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return failed(job, error)
    return outcome if isinstance(outcome, Outcome) else failed(job, TypeError(f"a worker answered {outcome!r}"))
