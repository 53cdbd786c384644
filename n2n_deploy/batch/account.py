"""What a batch leaves behind beside the images: a line per file, the tables, and a summary."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from n2n_deploy.batch.lanes import Waiting, unwatched
from n2n_deploy.batch.ledger_writer import Log
from n2n_deploy.batch.micrograph_job import Outcome
from n2n_deploy.batch.outputs import SUMMARY, OutputLayout
from n2n_deploy.batch.plan import Job, Plan, Status, is_finished
from n2n_deploy.batch.summary import Summary
from n2n_deploy.batch.tables import DENOISED, FAILED, located, locked, names_in, write_merged
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable

Report = Callable[[Summary, frozenset[str], Waiting], Path | str]


class Results:
    """Collects outcomes while a batch runs; a context manager that keeps `log.jsonl` open.

    Args:
        mirror: where outputs go.
        folder: where log, tables and summary go: the output folder, or a part's own below it.
        phase_flipped: whether the outputs' phases are flipped.
        timeout: seconds to wait for the log's file system at a time.

    Raises:
        HostError: the log cannot be written, or does not answer.
    """

    def __init__(self, mirror: OutputLayout, folder: Path, *, phase_flipped: bool, timeout: float) -> None:
        self._mirror = mirror
        self._folder = folder
        self._phase_flipped = phase_flipped
        self._jobs: dict[str, Job] = {}
        self._done: dict[str, Status] = {}
        self._denoised: set[str] = set()
        self._stages: dict[str, float] = defaultdict(float)
        self._table: MicrographTable | None = None
        self.summary = Summary(mirror.output, base=mirror.base)
        self._log = Log(folder, timeout)

    def begin(self, table: MicrographTable, plan: Plan) -> None:
        """Take a plan, the first or a further one, and the table that it came from."""
        self._table = table
        for job in plan.jobs:
            name = job.micrograph.name
            self._jobs[name] = job
            self.summary.failures.pop(name, None)
            self._done.pop(name, None)
            if job.status in (Status.DONE, Status.KEPT):
                self._done[name] = job.status
            elif job.status is Status.REFUSED:
                self.summary.failures[name] = job.reason
                self._log.line({"micrograph": name, "status": "refused", "reason": job.reason})

    def add(self, outcome: Outcome) -> None:
        """Take one outcome: into the log at once, into the tables and the summary when they are written."""
        name = outcome.job.micrograph.name
        where = {"host": outcome.host} if outcome.host else {}
        if outcome.error is not None:
            self.summary.failures[name] = outcome.error
            self._log.line({"micrograph": name, "status": "failed", "reason": outcome.error, **where})
            return
        self.summary.failures.pop(name, None)
        self._done[name] = Status.PENDING
        self._denoised.add(name)
        self.summary.denoised += 1
        self.summary.megapixels += outcome.job.shape[0] * outcome.job.shape[1] / 1e6
        if outcome.notes:
            self.summary.notes[name] = outcome.notes
        for stage, seconds in outcome.seconds.items():
            self._stages[stage] += seconds
        self._log.line(
            {
                "micrograph": name,
                "status": "denoised",
                "output": str(outcome.job.output),
                "seconds": {stage: round(value, 4) for stage, value in outcome.seconds.items()},
                "tiles": outcome.tiles,
                "notes": list(outcome.notes),
                **where,
            }
        )

    def write(
        self, seconds: float, run: Mapping[str, Any], report: Report | None = None, waiting: Waiting = unwatched
    ) -> Summary:
        """Write `denoised.star`, `failed.star` and `summary.json`, each complete or not at all.

        The tables list what is in the folder: what this run did or found done; what another run did meanwhile; and
        what earlier runs over other micrographs did, as when only the failed ones are tried again.

        Args:
            seconds: wall time of the run so far.
            run: model, versions, hardware and options.
            report: given the summary, the names done in this run and `waiting`, writes the report and says where it
                is, or why there is none.
            waiting: told when this waits for files.

        Raises:
            HostError: the folder cannot be written to, or has no room.
        """
        assert self._table is not None
        summary = self.summary
        summary.seconds = seconds
        summary.stage_seconds = dict(self._stages)
        summary.run = dict(run)
        with waiting(f"locking the tables of {self._folder}"), locked(self._folder):
            with waiting(f"reading {self._folder / DENOISED}"):
                self._recognise()
            summary.already_done = sum(status is Status.DONE for status in self._done.values())
            summary.kept = sum(status is Status.KEPT for status in self._done.values())
            summary.not_begun = len(self._jobs) - len(self._done) - len(summary.failures)
            with waiting(f"writing {self._folder / DENOISED}"):
                self._write_denoised(self._table)
            with waiting(f"writing {self._folder / FAILED}"):
                self._write_failed(self._table)
            summary.report = report(summary, frozenset(self._denoised), waiting) if report else None
            with waiting(f"writing {self._folder / SUMMARY}"), atomic_write(self._folder / SUMMARY) as stream:
                stream.write((json.dumps(summary.as_dict(), indent=2) + "\n").encode())
        return summary

    def _recognise(self) -> None:
        """Count what another run finished meanwhile: it is listed in the tables, and its label is looked at."""
        open_jobs = {str(job.output.absolute()): name for name, job in self._jobs.items() if name not in self._done}
        if not open_jobs:
            return
        for listed in names_in(self._folder / DENOISED):
            name = open_jobs.get(str(located(listed, self._mirror.output.absolute())))
            if name is not None and is_finished(self._jobs[name]):
                self._done[name] = Status.DONE
                self.summary.failures.pop(name, None)

    def _write_denoised(self, table: MicrographTable) -> None:
        path, output = self._folder / DENOISED, self._mirror.output.absolute()
        rows = {
            micrograph.row: table.name_of(self._jobs[micrograph.name].output)
            for micrograph in self._in(table)
            if micrograph.name in self._done
        }
        own = {str(self._mirror(micrograph.name).absolute()) for micrograph in self._in(table)}

        def keep(name: str) -> bool:
            place = str(located(name, output))
            return place not in own and os.path.exists(place)  # noqa: PTH110

        document = table.select(rows, phase_flipped=self._phase_flipped) if rows else None
        note = write_merged(path, document, keep)
        if note:
            self.summary.notes[DENOISED] = (note,)
        self.summary.table = path if path.exists() else None
        self.summary.listed = len(names_in(path))

    def _write_failed(self, table: MicrographTable) -> None:
        failures = self.summary.failures
        own = {micrograph.name for micrograph in self._in(table)}
        rows = {micrograph.row: micrograph.name for micrograph in self._in(table) if micrograph.name in failures}

        def keep(name: str) -> bool:
            return name not in own and name not in self._done and not self._mirror(name).exists()

        write_merged(self._folder / FAILED, table.select(rows) if rows else None, keep)

    def _in(self, table: MicrographTable) -> Iterator[Micrograph]:
        """The micrographs of a table that are this run's: not those of other shards."""
        return (micrograph for micrograph in table.micrographs if micrograph.name in self._jobs)

    def is_done(self, name: str) -> bool:
        """Whether a micrograph has its output, by this run or an earlier one."""
        return name in self._done

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
