"""The report of a batch: what it shows of a micrograph is kept when that is done, and made one page at the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2n_deploy.batch.plan import Job, Plan, Status
from n2n_deploy.bundle import Bundle
from n2n_deploy.denoiser import Denoised
from n2n_deploy.imaging.arrays import to_numpy
from n2n_deploy.quality.entries import MicrographEntry
from n2n_deploy.quality.entry_store import EntryStore
from n2n_deploy.quality.report import write_report
from n2n_deploy.quality.run_info import run_info

FOLDER = ".report"
"""Below the output folder: the entries, from which a run that goes on makes the whole report again."""


@dataclass(frozen=True, slots=True)
class EntryKeeper:
    """Draws and keeps the entry of each micrograph; may be sent to another process.

    Attributes:
        output: the output folder of the batch.
        limit: bytes that the pictures of one micrograph may take.
    """

    output: Path
    limit: int

    def keep(self, job: Job, result: Denoised, seconds: float, notes: Sequence[str]) -> None:
        """Keep what the report shows of a micrograph that was denoised.

        Raises:
            HostError: the folder cannot be written to or has no room.
        """
        from n2n_deploy.quality.views import view

        micrograph = job.micrograph
        views = view(
            to_numpy(result.network_input),
            to_numpy(result.network_output),
            result.spacing,
            micrograph.optics,
            micrograph.ctf,
            self.limit,
        )
        entry = MicrographEntry(
            micrograph.name,
            "denoised",
            seconds=seconds,
            pixel_size=micrograph.optics.pixel_size,
            defocus=_defocus(job),
            flags=views.flags,
            notes=tuple(notes),
            views=views,
        )
        EntryStore(self.output / FOLDER).put(str(job.output.relative_to(self.output)), _work(job), entry)


def write_batch_report(
    folder: Path,
    output: Path,
    plan: Plan,
    failures: Mapping[str, str],
    denoised: frozenset[str],
    bundle: Bundle,
    session: str,
    options: Mapping[str, Any],
    throughput: Mapping[str, Any],
) -> Path:
    """Write `report.html` about all of a plan's micrographs, with the entries that this or an earlier run kept.

    Args:
        folder: where the report goes.
        output: the output folder, where the entries are.
        plan: of the batch.
        failures: reason by micrograph name.
        denoised: names of those that this run finished.
        bundle: the model.
        session: what ran it.
        options: of the run.
        throughput: counts and times.

    Raises:
        HostError: the report cannot be written.
    """
    path = folder / "report.html"
    info = run_info(f"Denoising with {bundle.path.name}", bundle, session, options, throughput=throughput)
    write_report(path, info, _Entries(output, plan, failures, denoised))
    return path


def _defocus(job: Job) -> float | None:
    """Mean defocus of a micrograph in µm; None where there is no CTF."""
    ctf = job.micrograph.ctf
    return None if ctf is None else (ctf.defocus_u + ctf.defocus_v) / 2e4


@dataclass(frozen=True)
class _Entries:
    """The rows of the report, each read from disk when it is asked for: memory does not grow with the batch."""

    output: Path
    plan: Plan
    failures: Mapping[str, str]
    denoised: frozenset[str]

    def __iter__(self) -> Iterator[MicrographEntry]:
        store = EntryStore(self.output / FOLDER)
        for job in self.plan.jobs:
            status, reason = self._status(job)
            kept = None
            if status in ("denoised", "done before"):
                kept = store.get(str(job.output.relative_to(self.output)), _work(job))
            if kept is not None:
                yield replace(kept, name=job.micrograph.name, status=status)
            else:
                yield MicrographEntry(job.micrograph.name, status, reason, defocus=_defocus(job))

    def _status(self, job: Job) -> tuple[str, str]:
        if (reason := self.failures.get(job.micrograph.name)) is not None:
            return ("refused" if job.status is Status.REFUSED else "failed"), reason
        if job.micrograph.name in self.denoised:
            return "denoised", ""
        return {Status.DONE: "done before", Status.KEPT: "kept"}.get(job.status, "not begun"), job.reason


def _work(job: Job) -> str:
    """What was done, whichever version of the program did it."""
    return job.label.partition(": ")[2]
