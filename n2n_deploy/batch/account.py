"""`Account`: takes a run's plans and outcomes into the ledger, and writes the tables, the summary and the report."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from n2n_deploy.batch.cryosparc_tables import write_exposures
from n2n_deploy.batch.lanes import with_time_limit
from n2n_deploy.batch.ledger import FOLDER, FORMAT, Ledger, TableRows, now, timestamp
from n2n_deploy.batch.ledger_writer import LedgerWriter
from n2n_deploy.batch.micrograph_job import Outcome
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Job, Plan
from n2n_deploy.batch.report import describe_run, write_batch_report
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.source_tables import SourceTable
from n2n_deploy.batch.standing import Standing, joined
from n2n_deploy.batch.status import FINISHED, Status
from n2n_deploy.batch.summary import SUMMARY, Summary, summarise
from n2n_deploy.batch.tables import DENOISED, write_tables
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.processor import usable_cores
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.files.locks import locked
from n2n_deploy.io.star import MicrographTable
from n2n_deploy.report.entries import RunInfo
from n2n_deploy.report.run_info import run_info

LOCK = ".tables.lock"
"""Held by the process that writes the tables of an output folder."""

_NETWORK_LOCK = ".network.lock"


class Account(Closing):
    """The account of one run; a context manager that keeps its file of the ledger open.

    Args:
        request: what the run was asked.
        layout: where outputs go.
        ledger: of the output folder, read before the plan was made, so that what another run finishes meanwhile is
            never taken for work that is still to do.
        say: told if the ledger cannot be written; the run goes on without it.

    Attributes:
        failures: names of the micrographs that were refused or failed.
    """

    def __init__(
        self, request: Request, layout: OutputLayout, ledger: Ledger, say: Callable[[str], None] | None = None
    ) -> None:
        self.failures: set[str] = set()
        self.gave_up: str | None = None
        self._request = request
        self._layout = layout
        self._ledger = ledger
        self._say = say or (lambda _: None)
        self._problem = ""
        self._writer = LedgerWriter(request.output, request.options.timeout, self._entry_written)
        header = _header(request, layout, timestamp(now(ledger)))
        self._run = ledger.begin(self._writer.path, header)
        self._writer.add(header)
        self._planned: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._verified: set[str] = set()
        self._source: SourceTable | None = None

    def begin(self, table: MicrographTable, plan: Plan) -> None:
        """Take a plan, the first or a further one, and the table that it was made from."""
        self._planned.update((job.micrograph.name, None) for job in plan.jobs)
        self._notes.update(dict.fromkeys(plan.notes))
        self._keep(table)
        for job in plan.jobs:
            name = job.micrograph.name
            self.failures.discard(name)
            self._verified.discard(name)
            if job.status in (Status.DONE, Status.KEPT):
                self._verified.add(name)
            elif job.status is Status.REFUSED:
                self.failures.add(name)
            if self._is_news(job):
                self._record(job, job.status, job.reason)

    def agree(self, session: str, precision: Precision | None) -> bool:
        """Note what runs the network, unless other processes denoise the same work in int8 and this one would not.

        The first process decides. Floating-point precisions differ by less than can be seen and may be mixed.

        Args:
            session: what would run the network here.
            precision: in which; None for what each worker of a cluster chooses among the floating-point ones.

        Returns:
            Whether the work is done in int8. If that is not what was proposed, nothing is noted.

        Raises:
            HostError: the file system does not answer.
        """
        output, work, timeout = self._request.output, self._request.work, self._request.options.timeout

        def decide() -> bool:
            with locked(output / _NETWORK_LOCK):
                self._ledger.refresh()
                before, proposed = self._ledger.int8(work), precision == "int8"
                if before not in (None, proposed):
                    return not proposed
                model = self._run.header["model"]
                adapted = {name: model[name] for name in ("adapted",) if name in model}
                self._run.network = {"session": session, "precision": precision, "work": work} | adapted
                self._line({"time": timestamp(now(self._ledger)), "network": self._run.network})
                self._writer.flush()
                return proposed

        return with_time_limit(decide, timeout, f"locking the ledger of {output}")

    def add(self, outcome: Outcome) -> None:
        """Take the outcome of a job."""
        job, name = outcome.job, outcome.job.micrograph.name
        details: dict[str, Any] = {"host": outcome.host} if outcome.host else {}
        if outcome.error is not None:
            self.failures.add(name)
            self._record(job, Status.FAILED, outcome.error, **details)
            return
        self.failures.discard(name)
        seconds = {stage: round(value, 4) for stage, value in outcome.seconds.items()}
        details |= {"seconds": seconds, "tiles": outcome.tiles, "shape": job.shape}
        details["images"] = job.images(self._request.options)
        if outcome.notes:
            details["notes"] = outcome.notes
        self._record(job, Status.DENOISED, entry=outcome.entry, **details)

    def is_done(self, name: str) -> bool:
        """Return whether a micrograph has its output, by this run or an earlier one."""
        record = self._ledger.records.get(name)
        return name in self._verified or (record is not None and record.status in FINISHED)

    def end(self, seconds: float, session: str, stopped_by: int | None) -> None:
        """Note how the run ended: its wall time, what ran the network, and the signal that stopped it, if one did."""
        self._run.end = {"seconds": seconds, "session": session, "stopped_by": stopped_by, "gave_up": self.gave_up}

    def close(self) -> None:
        """Write the end of the run into the ledger and close it."""
        if self._run.end is not None:
            self._writer.add({"time": timestamp(now(self._ledger)), "end": self._run.end})
        self._writer.close()

    def write(self) -> Summary:
        """Write `denoised.star`, `failed.star`, `report.html` and `summary.json`, each complete or not at all.

        A shard only returns its summary; the files are written when the shards are merged.

        Raises:
            HostError: the folder cannot be written to, has no space, or does not answer.
        """
        return with_time_limit(self._write, self._request.options.timeout)

    def _write(self) -> Summary:
        output = self._request.output
        with waiting_for(f"locking the tables of {output}"), locked(output / LOCK):
            self._writer.flush()
            with waiting_for(f"reading the ledger of {output}"):
                self._ledger.refresh()
                tables = {self._source.file: self._source} if self._source else {}
                own = Standing(self._ledger, self._layout, self._run, self._verified, tables)
                summary = summarise(output, [own], [self._run], self._planned)
                others = joined(self._ledger)
            if self._notes:
                summary.notes["input"] = tuple(self._notes)
            if self._problem or self._writer.problem:
                summary.notes["ledger"] = (self._problem or self._writer.problem,)
            if self._request.shard is None:
                info = describe_run(self._run, summary) if self._request.options.report else None
                write_files(output, summary, [own, *others], info)
        return summary

    def _keep(self, table: MicrographTable) -> None:
        """Keep a copy of the table, in place of an earlier one that it contains."""
        output, before, source = self._request.output, self._source, SourceTable.of(table)
        self._source = source
        rows = (row for row, name in enumerate(source.names) if name in self._planned)
        kept = TableRows.of(source.file, str(table.project), rows)
        self._run.tables.append(kept)
        self._line({"table": asdict(kept)})

        def write() -> None:
            source.keep(output)
            if before is not None and before.file != source.file and source.first_row.keys() >= before.first_row.keys():
                before.remove(output)

        try:
            with_time_limit(write, self._request.options.timeout, f"writing to {output / FOLDER}")
        except HostError as error:
            self._trouble(str(error))

    def _is_news(self, job: Job) -> bool:
        """Return whether a plan says something of a micrograph that the ledger does not."""
        known = self._ledger.records.get(job.micrograph.name)
        if known is None:
            return job.status is not Status.PENDING
        if job.status is Status.DONE:
            return known.status not in (Status.DENOISED, Status.DONE) or known.work != job.work
        return (known.status, known.work, known.reason) != (job.status, job.work, job.reason)

    def _record(self, job: Job, status: Status, reason: str = "", entry: str = "", **details: Any) -> None:
        """Add a line on one micrograph."""
        name = job.micrograph.name
        if job.grid is not None and job.grid.shape != job.shape:
            details["pixel_size"] = job.grid.pixel_size
        line = {"time": timestamp(now(self._ledger)), "micrograph": name, "status": status, "work": job.work}
        line |= {"output": self._layout.relative(name), **({"reason": reason} if reason else {}), **details}
        self._ledger.take(self._run, line)
        self._line(line, entry)

    def _line(self, line: dict[str, Any], entry: str = "") -> None:
        self._writer.add(line, entry)
        if problem := self._writer.problem:
            self._trouble(problem)

    def _trouble(self, problem: str) -> None:
        """Tell once that the ledger cannot be written."""
        if not self._problem:
            self._problem = f"{problem}; the run goes on without the ledger, finished outputs are still recognised"
            self._say(self._problem)

    def _entry_written(self, name: str, work: str, offset: int, size: int) -> None:
        self._ledger.add_entry(name, work, self._writer.path, offset, size)


def write_files(
    folder: Path, summary: Summary, standings: Sequence[Standing], info: RunInfo | None, **more: Any
) -> None:
    """Write the tables, the report and the summary, which is completed.

    Args:
        folder: where to.
        summary: what was counted.
        standings: of the output folders that the files are about.
        info: what the report says of the run; None for no report.
        more: further values for `summary.json`.

    Raises:
        HostError: the folder cannot be written to or has no space.
    """
    tables = write_tables(folder, standings)
    write_exposures(folder, standings)
    summary.table, summary.listed = tables.denoised, tables.listed
    if tables.note:
        summary.notes[DENOISED] = (tables.note,)
    summary.report = write_batch_report(folder, info, standings) if info else None
    path = folder / SUMMARY
    with waiting_for(f"writing {path}"), atomic_write(path) as stream:
        stream.write((json.dumps(summary.as_dict() | more, indent=2) + "\n").encode())


def _header(request: Request, layout: OutputLayout, time: str) -> dict[str, Any]:
    """Return the first line of a run in the ledger."""
    options = request.options.model_dump(mode="json")
    info = run_info("", request.bundle, "", options, throughput={})
    return {
        "ledger": FORMAT,
        "time": time,
        "command": info.command,
        "model": info.model,
        "recipe": info.recipe,
        "options": options,
        "base": layout.base,
        "phase_flipped": request.phase_flipped,
        "source": request.source_name,
        "shard": [request.shard.index, request.shard.count] if request.shard else None,
        "host": {"name": platform.node(), "machine": platform.machine(), "cores": usable_cores()},
        "versions": info.versions,
        "hardware": {name: value for name, value in info.hardware.items() if name != "network runs on"},
    }
