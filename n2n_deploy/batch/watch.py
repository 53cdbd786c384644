"""`watch`: a batch that follows a data collection, and does each micrograph once it is there and complete."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from n2n_deploy.batch.lanes import Waiting, in_lane
from n2n_deploy.batch.local import Workers
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Job, Plan, Status
from n2n_deploy.batch.results import Results
from n2n_deploy.batch.run import Progress, do_jobs, make_folder, open_results, open_workers, write_account
from n2n_deploy.batch.summary import Summary
from n2n_deploy.batch.task import Task
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.signals import Stopping, stop_on_signal
from n2n_deploy.io.micrograph_files import find_files, is_table
from n2n_deploy.io.micrograph_names import HalfNames
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable

_ROUND = 64
"""Micrographs of one round at most, so that a backlog does not keep the tables waiting."""

_WRITING_SHARE = 0.05
"""Of the time, that rewriting tables and report may take."""

Stamp = tuple[int, int]


def watch(
    task: Task,
    *,
    interval: float = 10.0,
    idle: float | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Denoise micrographs as they come, with the engine open all the while.

    A micrograph is taken when its file is there and has not changed between two looks. What cannot be used is tried
    again when its file changes. Tables, summary and report are rewritten as the work goes on, each whole or not at all.

    Args:
        task: a STAR table that grows, a folder, or globs of MRC files (with a model that flips no phases).
        interval: seconds between looks.
        idle: seconds without a new micrograph after which the batch ends; None to go on until a signal.
        cluster: as for `denoise`.
        say: told what it is waiting for.
        progress: called after each round's plan and after each micrograph.

    Returns:
        The account of everything since the beginning.

    Raises:
        UsageError: files where the model needs a table; outputs of other work are in the way.
        DataError: the table cannot be read, and could not be until the batch ended.
        BundleError, HostError: as for `denoise`.
    """
    source = _Source(task)
    start = time.perf_counter()
    make_folder(task.folder, task.options.timeout)
    with stop_on_signal() as stopping, ExitStack() as stack:
        state = _State(task, stack, cluster, say)
        latest = time.monotonic()
        while not stopping.event.is_set():
            table, ready = in_lane(source.look, task.options.timeout)
            if table is not None and ready:
                state.do(table, ready, stopping, progress)
                source.settle(state)
                state.write(start, stopping)
                latest = time.monotonic()
                continue
            if idle is not None and time.monotonic() - latest > idle:
                break
            stopping.event.wait(interval)
        if state.results is None:
            if source.problem is not None:
                raise source.problem
            raise DataError(f"{task.source}: no micrograph came; check the path")
        return state.write(start, stopping, last=True)


class _Source:
    """What has come so far, and what of it can be taken."""

    def __init__(self, task: Task) -> None:
        sources = [task.source] if isinstance(task.source, (str, Path)) else list(task.source)
        self._task = task
        self._table = len(sources) == 1 and is_table(sources[0])
        self._sources = [f"{source}/**/*.mrc" if Path(source).is_dir() else source for source in sources]
        naming = task.naming
        self._halves = HalfNames(naming.suffixes, naming.even_template, naming.odd_template)
        self._seen: dict[str, Stamp] = {}
        self._taken: dict[str, tuple[Stamp, Micrograph | None]] = {}
        self._files: dict[str, tuple[Micrograph, str | None]] = {}
        self._done: set[tuple[str, Micrograph | None]] = set()
        self.problem: DataError | None = None
        if not self._table and task.bundle.recipe.phase_flip:
            raise UsageError(f"{sources[0]}: the model flips phases; watch a STAR table with CTF parameters, not files")

    def look(self, waiting: Waiting) -> tuple[MicrographTable | None, Sequence[Micrograph]]:
        """The table as it is now, and its micrographs that are ready; a table being written is read the next time."""
        try:
            if self._table:
                table = self._task.read()
                self.problem = None
                ready = (m for m in table.micrographs if self._is_ready(m.name, m.path, replace(m, row=0), waiting))
                return table, list(islice(ready, _ROUND))
            with waiting(f"looking for {self._sources[0]}"):
                files = find_files(self._sources, self._halves, self._task.output).names
            names = list(islice((name for name in files if self._is_ready(name, Path(name), None, waiting)), _ROUND))
            if not names:
                return None, ()
            table = self._with(self._task.read(names))
            new = set(names)
            return table, [micrograph for micrograph in table.micrographs if micrograph.name in new]
        except DataError as error:
            self.problem = error
            return None, ()

    def settle(self, state: "_State") -> None:
        """Never look again at what was done; the rest is taken again when its file changes."""
        for name, (_, record) in self._taken.items():
            if state.is_done(name):
                self._done.add((name, record))

    def _with(self, new: MicrographTable) -> MicrographTable:
        """The table of all files that came so far, these among them."""
        self._files |= {found.name: (found, new.problems.get(found.row)) for found in new.micrographs}
        return MicrographTable(
            None,
            [replace(found, row=row) for row, (found, _) in enumerate(self._files.values())],
            {row: problem for row, (_, problem) in enumerate(self._files.values()) if problem is not None},
            new.project,
        )

    def _is_ready(self, name: str, path: Path, record: Micrograph | None, waiting: Waiting) -> bool:
        """Whether a file is there, at rest, and not the one that was taken already."""
        if (name, record) in self._done:
            return False
        try:
            with waiting(f"looking at {path}"):
                status = os.stat(path)  # noqa: PTH116
        except OSError:
            return False
        stamp = status.st_size, status.st_mtime_ns
        before = self._seen.get(name)
        self._seen[name] = stamp
        if before != stamp or self._taken.get(name) == (stamp, record):
            return False
        self._taken[name] = stamp, record
        return True


@dataclass
class _State:
    """The batch that grows: its workers, once there is work, and its account."""

    task: Task
    stack: ExitStack
    cluster: str | None
    say: Callable[[str], None] | None
    results: Results | None = None
    mirror: OutputLayout | None = None
    workers: Workers | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    next_write: float = 0.0

    def do(
        self,
        table: MicrographTable,
        micrographs: Sequence[Micrograph],
        stopping: Stopping,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Plan and do what is ready."""
        task = self.task
        first = self.results is None
        if self.mirror is None:
            self.mirror = task.mirror(table)
        plan = task.plan(micrographs, table, self.mirror)
        if first:
            plan.check(task.output, task.options.on_exists)
        if self.results is None:
            self.results = self.stack.enter_context(open_results(task, self.mirror))
        self.results.begin(table, plan)
        self.jobs |= {job.micrograph.name: job for job in plan.jobs}
        if progress:
            progress(Progress(plan, 0, None))
        if plan.with_status(Status.PENDING):
            if self.workers is None:
                self.workers = self.stack.enter_context(open_workers(task, plan, self.cluster, self.say))
            do_jobs(plan, self.workers, self.results, stopping, task.options, progress)

    def is_done(self, name: str) -> bool:
        """Whether a micrograph has its output."""
        return self.results is not None and self.results.is_done(name)

    def write(self, start: float, stopping: Stopping, *, last: bool = False) -> Summary:
        """Rewrite tables, summary and report, unless that would take too much of the time."""
        assert self.results is not None
        assert self.mirror is not None
        begun = time.monotonic()
        if not last and begun < self.next_write:
            return self.results.summary
        session = self.workers.session if self.workers else "none"
        plan = Plan(list(self.jobs.values()), 0, 0)
        self.results.summary.stopped_by = stopping.signal
        summary = write_account(self.task, plan, self.mirror, self.results, session, time.perf_counter() - start)
        ended = time.monotonic()
        self.next_write = ended + (ended - begun) / _WRITING_SHARE
        return summary
