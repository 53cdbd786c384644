"""What a batch leaves behind beside the images: a line per file, the tables, and a summary."""

import json
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from n2n_deploy.batch.lanes import Outcome
from n2n_deploy.batch.plan import Plan, Status
from n2n_deploy.io.atomic import atomic_write
from n2n_deploy.io.star import MicrographTable


@dataclass
class Summary:
    """The account of a batch, as `summary.json` holds it.

    Attributes:
        output: the folder.
        table: `denoised.star`, None where nothing is finished.
        report: `report.html`, or why there is none; None where none was asked for.
        denoised: micrographs done in this run.
        already_done: outputs recognised as finished by an earlier run.
        kept: outputs of other work that were left in place.
        failures: reason by micrograph name, of those refused and those that failed.
        notes: what to know of micrographs that were done, by name.
        not_begun: micrographs that were left because the run was told to stop.
        stopped_by: number of the signal that told it to, None where none did.
        seconds: wall time of the run.
        stage_seconds: time by stage, summed over the micrographs of all lanes.
        megapixels: raw pixels denoised in this run, in millions.
        run: model, versions, hardware and the effective options.
    """

    output: Path
    table: Path | None = None
    report: Path | str | None = None
    denoised: int = 0
    already_done: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    not_begun: int = 0
    stopped_by: int | None = None
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    megapixels: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where every micrograph has its output; 128 + the signal of a run cut short; otherwise 1."""
        if self.not_begun and self.stopped_by is not None:
            return 128 + self.stopped_by
        return 1 if self.failures or self.not_begun else 0

    def throughput(self) -> dict[str, Any]:
        """How much was done how fast, for people."""
        facts: dict[str, Any] = {"wall time": f"{self.seconds:.1f} s"}
        if self.denoised and self.seconds:
            facts["micrographs per hour"] = round(3600 * self.denoised / self.seconds)
            facts["megapixels per second"] = round(self.megapixels / self.seconds, 2)
        return facts | {f"seconds in {stage}": round(value, 2) for stage, value in self.stage_seconds.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "output": str(self.output),
            "table": str(self.table) if self.table else None,
            "report": str(self.report) if self.report else None,
            "denoised": self.denoised,
            "already_done": self.already_done,
            "kept": self.kept,
            "failed": len(self.failures),
            "not_begun": self.not_begun,
            "stopped_by": signal.Signals(self.stopped_by).name if self.stopped_by is not None else None,
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 3),
            "megapixels_per_second": round(self.megapixels / self.seconds, 3) if self.seconds else None,
            "stage_seconds": {stage: round(value, 3) for stage, value in self.stage_seconds.items()},
            "failures": self.failures,
            "notes": {name: list(notes) for name, notes in self.notes.items()},
            **self.run,
        }


class Results:
    """Collects outcomes while a batch runs; a context manager that keeps `log.jsonl` open."""

    def __init__(self, plan: Plan, table: MicrographTable, output: Path, *, phase_flipped: bool) -> None:
        self._plan = plan
        self._table = table
        self._output = output
        self._phase_flipped = phase_flipped
        self._denoised: set[int] = set()
        self._finished = {job.micrograph.row for job in plan.jobs if job.status in (Status.DONE, Status.KEPT)}
        self.summary = Summary(
            output,
            already_done=len(plan.with_status(Status.DONE)),
            kept=len(plan.with_status(Status.KEPT)),
            failures={job.micrograph.name: job.reason for job in plan.with_status(Status.REFUSED)},
        )
        self._stages: dict[str, float] = defaultdict(float)
        self._log: TextIO | None = None

    def __enter__(self) -> "Results":
        self._log = (self._output / "log.jsonl").open("a", encoding="utf-8")
        for job in self._plan.with_status(Status.REFUSED):
            self._line({"micrograph": job.micrograph.name, "status": "refused", "reason": job.reason})
        return self

    def __exit__(self, *_: object) -> None:
        assert self._log is not None
        self._log.close()

    def add(self, outcome: Outcome) -> None:
        """Take one outcome: into the log at once, into the tables and the summary at the end."""
        name = outcome.job.micrograph.name
        if outcome.error is not None:
            self.summary.failures[name] = outcome.error
            self._line({"micrograph": name, "status": "failed", "reason": outcome.error})
            return
        self._finished.add(outcome.job.micrograph.row)
        self._denoised.add(outcome.job.micrograph.row)
        self.summary.denoised += 1
        self.summary.megapixels += outcome.job.shape[0] * outcome.job.shape[1] / 1e6
        if outcome.notes:
            self.summary.notes[name] = outcome.notes
        for stage, seconds in outcome.seconds.items():
            self._stages[stage] += seconds
        self._line(
            {
                "micrograph": name,
                "status": "denoised",
                "output": str(outcome.job.output),
                "seconds": {stage: round(value, 4) for stage, value in outcome.seconds.items()},
                "tiles": outcome.tiles,
                "notes": list(outcome.notes),
            }
        )

    def finish(
        self,
        seconds: float,
        run: Mapping[str, Any],
        stopped_by: int | None = None,
        report: Callable[[Summary, frozenset[int]], Path | str] | None = None,
    ) -> Summary:
        """Write `denoised.star`, `failed.star` and `summary.json`, each complete or not at all.

        Args:
            seconds: wall time of the run.
            run: model, versions, hardware and options.
            stopped_by: number of the signal that ended the run early.
            report: given the summary and the rows done in this run, writes the report and says where it is, or
                why there is none.
        """
        summary = self.summary
        summary.seconds = seconds
        summary.stage_seconds = dict(self._stages)
        summary.run = dict(run)
        summary.stopped_by = stopped_by
        jobs = self._plan.jobs
        finished = [job for job in jobs if job.micrograph.row in self._finished]
        failed = [job for job in jobs if job.micrograph.name in summary.failures]
        summary.not_begun = len(jobs) - len(finished) - len(failed)
        self._write_table("failed.star", {job.micrograph.row: job.micrograph.name for job in failed}, None)
        names = {job.micrograph.row: self._table.name_of(job.output) for job in finished}
        summary.table = self._write_table("denoised.star", names, self._phase_flipped)
        summary.report = report(summary, frozenset(self._denoised)) if report else None
        with atomic_write(self._output / "summary.json") as stream:
            stream.write((json.dumps(summary.as_dict(), indent=2) + "\n").encode())
        return summary

    def _write_table(self, name: str, rows: Mapping[int, str], phase_flipped: bool | None) -> Path | None:
        path = self._output / name
        if not rows:
            path.unlink(missing_ok=True)
            return None
        self._table.write(path, rows, phase_flipped=phase_flipped)
        return path

    def _line(self, record: Mapping[str, Any]) -> None:
        assert self._log is not None
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
