"""The report of a batch: one page about all micrographs of an output folder, made from the ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_deploy.batch.ledger import Run
from n2n_deploy.batch.standing import Standing
from n2n_deploy.batch.status import Status
from n2n_deploy.batch.summary import PHASES_FLIPPED, Summary, identity
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.report.entries import MicrographEntry, RunInfo
from n2n_deploy.report.page import write_report
from n2n_deploy.report.run_info import command_line, missing_libraries

REPORT = "report.html"

_WORDS = {Status.DONE: "done before", Status.PENDING: "not begun"}
"""Statuses that the report calls by other words."""


def write_batch_report(folder: Path, info: RunInfo, standings: Sequence[Standing]) -> Path | str:
    """Write `report.html`.

    Returns:
        The report, or why there is none.

    Raises:
        HostError: it cannot be written.
    """
    if missing := missing_libraries():
        return f"not written: {' and '.join(missing)} not installed; pip install 'n2n-deploy[report]'"
    path = folder / REPORT
    with waiting_for(f"writing {path}"):
        write_report(path, info, _Entries(standings))
    return path


def describe_run(run: Run, summary: Summary) -> RunInfo:
    """Return what the report says of one run."""
    header = run.header
    return RunInfo(
        f"Denoising with {header['model']['file']}",
        header["command"],
        model=header["model"],
        recipe=header["recipe"],
        options={name: value for name, value in header["options"].items() if value is not None},
        versions=header["versions"],
        hardware=header["hardware"]
        | {"network runs on": " in ".join(filter(None, (summary.run["session"], summary.run["precision"])))},
        throughput=summary.throughput(),
        remarks=_remarks(summary),
    )


def describe_runs(runs: Sequence[Run], summary: Summary, missing: Sequence[str]) -> RunInfo:
    """Return what the report says of several runs, those of `missing` shards not among them."""
    header = runs[0].header
    return RunInfo(
        "Denoising, all runs",
        command_line(),
        model=identity(header["model"]),
        recipe=header["recipe"],
        options={name: value for name, value in header["options"].items() if value is not None},
        versions={"n2n-deploy": header["versions"]["n2n-deploy"]},
        hardware={"hosts": ", ".join(sorted({run.header["host"]["name"] for run in runs}))},
        throughput={
            "runs": len(runs),
            "shards that have not ended": ", ".join(missing) or "none",
            "wall time of the longest": f"{summary.seconds:.1f} s",
            "megapixels denoised": round(summary.megapixels, 3),
        },
        remarks=_remarks(summary),
    )


def _remarks(summary: Summary) -> tuple[str, ...]:
    return (PHASES_FLIPPED,) if summary.phases_flipped else ()


@dataclass(frozen=True)
class _Entries:
    """The rows of the report. Each is read from the ledger when it is needed, so memory does not grow with them."""

    standings: Sequence[Standing]

    def __iter__(self) -> Iterator[MicrographEntry]:
        for standing in self.standings:
            for name, source in standing.names():
                record = standing.record(name)
                if record is None and name in standing.ledger.records:
                    continue  # its output was taken away
                status = standing.status(record)
                entry = None
                if record is not None and status in (Status.DENOISED, Status.DONE):
                    entry = standing.ledger.entry(record)
                if entry is not None:
                    yield replace(entry, name=name, status=_WORDS.get(status, status.value))
                    continue
                defocus = source.defocus(name) if source else None
                reason = record.reason if record else ""
                yield MicrographEntry(name, _WORDS.get(status, status.value), reason, defocus=defocus)
