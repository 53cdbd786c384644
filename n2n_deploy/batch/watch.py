"""`watch`: a batch that follows a data collection and denoises each micrograph once its file is complete."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from n2n_deploy.batch.account import Account
from n2n_deploy.batch.denoise import Progress, do_jobs, make_folder, open_workers
from n2n_deploy.batch.lanes import with_time_limit
from n2n_deploy.batch.ledger import Ledger
from n2n_deploy.batch.local_workers import Workers
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.png import draw_missing
from n2n_deploy.batch.repeated_rows import without_repeated
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.status import Status
from n2n_deploy.batch.summary import Summary
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.core.signals import Stopping, stop_on_signal
from n2n_deploy.io.micrograph_files import find_files, is_table
from n2n_deploy.io.micrograph_names import HalfNames
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable

_ROUND = 64
"""Most micrographs of one round, so that a backlog does not delay the tables."""

_WRITING_SHARE = 0.05
"""Most of the time that may be spent on rewriting tables and report."""

Stamp = tuple[int, int]


def watch(
    request: Request,
    *,
    interval: float = 10.0,
    idle: float | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Denoise micrographs as they arrive; the engine stays open.

    A micrograph is taken when its file exists and has not changed between two looks. One that fails is tried again when
    its file changes. Tables, summary and report are rewritten as the work goes on, each complete or not at all.

    Args:
        request: a STAR table that grows, a folder, or globs of MRC files (with a model that flips no phases).
        interval: seconds between looks.
        idle: seconds without a new micrograph after which the batch ends; None to go on until a signal.
        cluster: as for `denoise`.
        say: as for `denoise`.
        progress: called after each round's plan and after each micrograph.

    Returns:
        The account of everything since the beginning.

    Raises:
        UsageError: files are given and the model needs a table; outputs of other work exist.
        DataError: the table could not be read until the batch ended, or no micrograph came.
        BundleError, HostError: as for `denoise`.
    """
    source = _Source(request)
    start = time.perf_counter()
    make_folder(request)
    with stop_on_signal() as stopping, ExitStack() as stack:
        growing = _GrowingBatch(request, stack, cluster, say)
        latest = time.monotonic()
        while not stopping.event.is_set():
            table, ready = with_time_limit(source.look, request.options.timeout)
            if table is not None and ready:
                growing.do(table, ready, stopping, progress)
                source.settle(growing)
                if time.monotonic() > growing.next_write:
                    growing.write(start, stopping)
                latest = time.monotonic()
                continue
            if idle is not None and time.monotonic() - latest > idle:
                break
            stopping.event.wait(interval)
        if growing.account is None:
            if source.problem is not None:
                raise source.problem
            raise DataError(f"{request.source}: no micrograph arrived; check the path")
        return growing.write(start, stopping)


def first_micrographs(
    request: Request, count: int, *, interval: float = 10.0, idle: float | None = None
) -> MicrographTable:
    """Wait until that many micrographs have arrived, or fewer and then none for `idle` seconds, and return them.

    Args:
        request: as for `watch`.
        count: of micrographs.
        interval: as for `watch`.
        idle: as for `watch`.

    Raises:
        UsageError, DataError, HostError: as for `watch`.
    """
    source = _Source(request)
    arrived: dict[str, Micrograph] = {}  # a file that changed comes again
    seen: MicrographTable | None = None
    latest = time.monotonic()
    while len(arrived) < count:
        table, ready = with_time_limit(source.look, request.options.timeout)
        if table is not None and ready:
            arrived |= {each.name: each for each in ready if each.row not in table.problems}
            seen, latest = table, time.monotonic()
            continue
        if idle is not None and time.monotonic() - latest > idle:
            break
        time.sleep(interval)
    if seen is None or not arrived:
        raise source.problem or DataError(f"{request.source}: no micrograph arrived; check the path")
    rows = [replace(each, row=row) for row, each in enumerate(islice(arrived.values(), count))]
    return MicrographTable(seen.path, rows, {}, seen.project)


class _Source:
    """What has arrived so far, and which micrographs of it are ready."""

    def __init__(self, request: Request) -> None:
        sources = request.paths
        self._request = request
        self._table = len(sources) == 1 and is_table(sources[0])
        self._sources = [f"{source}/**/*.mrc" if Path(source).is_dir() else source for source in sources]
        naming = request.naming
        self._halves = HalfNames(naming.suffixes, naming.even_template, naming.odd_template)
        self._seen: dict[str, Stamp] = {}
        self._taken: dict[str, tuple[Stamp, Micrograph | None]] = {}
        self._files: dict[str, tuple[Micrograph, str | None]] = {}
        self._done: set[tuple[str, Micrograph | None]] = set()
        self.problem: DataError | None = None
        if not self._table and request.bundle.recipe.phase_flip:
            raise UsageError(f"{sources[0]}: the model flips phases; watch a STAR table with CTF parameters, not files")

    def look(self) -> tuple[MicrographTable | None, Sequence[Micrograph]]:
        """Return the table as it is now and its ready micrographs; a half-written one is read the next time."""
        try:
            if self._table:
                table = self._request.read()
                self.problem = None
                distinct = without_repeated(table.micrographs)
                ready = (m for m in distinct if self._is_ready(m.name, m.path, replace(m, row=0)))
                return table, list(islice(ready, _ROUND))
            with waiting_for(f"looking for {self._sources[0]}"):
                files, _ = find_files(self._sources, self._halves, self._request.output)
            names = list(islice((name for name in files if self._is_ready(name, Path(name), None)), _ROUND))
            if not names:
                return None, ()
            table = self._with(self._request.read(names))
            new = set(names)
            return table, [micrograph for micrograph in table.micrographs if micrograph.name in new]
        except DataError as error:
            self.problem = error
            return None, ()

    def settle(self, growing: "_GrowingBatch") -> None:
        """Never look again at finished micrographs; the others are taken again when their files change."""
        for name, (_, record) in self._taken.items():
            if growing.is_done(name):
                self._done.add((name, record))

    def _with(self, new: MicrographTable) -> MicrographTable:
        """Return the table of all files that have arrived, including new ones."""
        self._files |= {found.name: (found, new.problems.get(found.row)) for found in new.micrographs}
        return MicrographTable(
            None,
            [replace(found, row=row) for row, (found, _) in enumerate(self._files.values())],
            {row: problem for row, (_, problem) in enumerate(self._files.values()) if problem is not None},
            new.project,
        )

    def _is_ready(self, name: str, path: Path, record: Micrograph | None) -> bool:
        """Return whether a file exists, has not changed since the last look, and was not taken as it is."""
        if (name, record) in self._done:
            return False
        try:
            with waiting_for(f"looking at {path}"):
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
class _GrowingBatch:
    """The batch: its workers, which are opened with the first micrograph, and its account."""

    request: Request
    stack: ExitStack
    cluster: str | None
    say: Callable[[str], None] | None
    ledger: Ledger | None = None
    layout: OutputLayout | None = None
    account: Account | None = None
    workers: Workers | None = None
    next_write: float = 0.0

    def do(
        self,
        table: MicrographTable,
        micrographs: Sequence[Micrograph],
        stopping: Stopping,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Plan and denoise what is ready."""
        request = self.request
        if self.ledger is None or self.layout is None:
            self.ledger = request.ledger()
            self.layout = request.layout(table, self.ledger)
        plan = request.plan(micrographs, table, self.layout)
        if self.account is None:
            plan.check(request.output, request.options.on_exists)
            self.account = self.stack.enter_context(Account(request, self.layout, self.ledger, self.say))
        self.account.begin(table, plan)
        if progress:
            progress(Progress(plan, 0, None))
        if plan.with_status(Status.PENDING):
            if self.workers is None:
                self.workers = self.stack.enter_context(
                    open_workers(request, plan, self.cluster, self.account.agree, self.say)
                )
            do_jobs(plan, self.workers, self.account, stopping, request.options, progress)
        for problem in draw_missing(plan.jobs, request.options, stopping.event):
            if self.say:
                self.say(problem)

    def is_done(self, name: str) -> bool:
        """Return whether a micrograph has its output."""
        return self.account is not None and self.account.is_done(name)

    def write(self, start: float, stopping: Stopping) -> Summary:
        """Write tables, summary and report; they are not to be written again before `next_write`."""
        assert self.account is not None
        begun = time.monotonic()
        self.account.end(time.perf_counter() - start, self.workers.session if self.workers else "none", stopping.signal)
        summary = self.account.write()
        ended = time.monotonic()
        self.next_write = ended + (ended - begun) / _WRITING_SHARE
        return summary
