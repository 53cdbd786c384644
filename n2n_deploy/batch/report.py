"""The report of a batch: what it shows of a micrograph is kept when that is done, and made one page at the end."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_deploy.batch.lanes import Waiting
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Job, Plan, Status
from n2n_deploy.core.errors import DataError
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.device.arrays import to_numpy
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entries import Flag, MicrographEntry, RunInfo
from n2n_deploy.report.entry_store import EntryStore
from n2n_deploy.report.illumination import illumination_flags
from n2n_deploy.report.page import read_report, write_report

REPORT = "report.html"
FOLDER = ".report"
"""Below the output folder: the entries, from which a run that goes on makes the whole report again."""

FINISHED = ("denoised", "done before", "kept")
"""Statuses of a micrograph that has its output."""


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
        from n2n_deploy.report.views import view

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
            flags=(*illumination_flags(result.illumination), *views.flags),
            notes=tuple(notes),
            views=views,
        )
        if result.halves:
            entry = _measured(entry, result, micrograph)
        EntryStore(self.output / FOLDER).put(str(job.output.relative_to(self.output)), _work(job), entry)


def write_batch_report(
    folder: Path,
    info: RunInfo,
    plan: Plan,
    mirror: OutputLayout,
    failures: Mapping[str, str],
    denoised: frozenset[str],
    waiting: Waiting,
) -> Path:
    """Write `report.html` about all of a plan's micrographs, with the entries that this or an earlier run kept.

    As the tables do, it tells of what earlier runs over other micrographs did and that is still there.

    Args:
        folder: where the report goes, and that of the earlier runs is.
        info: what ran.
        plan: of the batch.
        mirror: where outputs go.
        failures: reason by micrograph name.
        denoised: names of those that this run finished.
        waiting: told when this waits for files.

    Raises:
        HostError: the report cannot be written.
    """
    path = folder / REPORT
    with waiting(f"writing {path}"):
        write_report(path, info, _Entries(path, plan, mirror, failures, denoised, waiting))
    return path


def _now(entry: MicrographEntry, output: Path) -> MicrographEntry | None:
    """What an earlier report's entry has to say now; None where its output is gone."""
    finished = entry.status in FINISHED
    if not output.exists():
        return None if finished else entry
    if not finished:
        return MicrographEntry(entry.name, "done before", defocus=entry.defocus)
    return replace(entry, status="kept" if entry.status == "kept" else "done before")


def _measured(entry: MicrographEntry, result: Denoised, micrograph: Micrograph) -> MicrographEntry:
    """Add what the halves say, as `evaluate` measures it, where they are two."""
    from n2n_deploy.evaluation.halves import IDENTICAL
    from n2n_deploy.evaluation.views import with_estimates
    from n2n_deploy.report.flags import IDENTICAL_HALVES, no_signal
    from n2n_deploy.statistics.estimates import covariances, ring_covariances
    from n2n_deploy.statistics.shared_noise import at_ctf_zeros

    m1, m2, d1, d2 = map(to_numpy, result.halves)
    image = covariances(m1, m2, d1, d2)
    correlation = image.m1m2 / math.sqrt(image.m1m1 * image.m2m2)
    if correlation > IDENTICAL:
        text = f"the halves are one image (correlation {correlation:.3f}): no noise can be told from signal"
        return replace(entry, flags=(*entry.flags, Flag(IDENTICAL_HALVES, text)))
    if flag := no_signal(image, m1.size):
        entry = replace(entry, flags=(*entry.flags, flag))
    with suppress(DataError):  # the optics lack what a CTF needs, so there are no zeros to look at
        look = micrograph.ctf and at_ctf_zeros(m1, m2, result.spacing, micrograph.optics, micrograph.ctf)
        if look and look.flag:
            entry = replace(entry, flags=(*entry.flags, look.flag))
    return with_estimates(entry, image, ring_covariances(m1, m2, d1, d2, result.spacing))


def _defocus(job: Job) -> float | None:
    """Mean defocus of a micrograph in µm; None where there is no CTF."""
    ctf = job.micrograph.ctf
    return None if ctf is None else (ctf.defocus_u + ctf.defocus_v) / 2e4


@dataclass(frozen=True)
class _Entries:
    """The rows of the report, each read from disk when it is asked for: memory does not grow with the batch."""

    earlier: Path
    plan: Plan
    mirror: OutputLayout
    failures: Mapping[str, str]
    denoised: frozenset[str]
    waiting: Waiting

    def __iter__(self) -> Iterator[MicrographEntry]:
        jobs = {job.micrograph.name: job for job in self.plan.jobs}
        for entry in read_report(self.earlier):
            job = jobs.pop(entry.name, None)
            now = self._entry(job) if job else _now(entry, self.mirror(entry.name))
            if now is not None:
                yield now
        for job in jobs.values():
            yield self._entry(job)

    def _entry(self, job: Job) -> MicrographEntry:
        status, reason = self._status(job)
        if status in ("denoised", "done before"):
            with self.waiting(f"reading what was kept of {job.output}"):
                store = EntryStore(self.mirror.output / FOLDER)
                kept = store.get(str(job.output.relative_to(self.mirror.output)), _work(job))
            if kept is not None:
                return replace(kept, name=job.micrograph.name, status=status)
        return MicrographEntry(job.micrograph.name, status, reason, defocus=_defocus(job))

    def _status(self, job: Job) -> tuple[str, str]:
        if (reason := self.failures.get(job.micrograph.name)) is not None:
            return ("refused" if job.status is Status.REFUSED else "failed"), reason
        if job.micrograph.name in self.denoised:
            return "denoised", ""
        return {Status.DONE: "done before", Status.KEPT: "kept"}.get(job.status, "not begun"), job.reason


def _work(job: Job) -> str:
    """What was done, whichever version of the program did it."""
    return job.label.partition(": ")[2]
