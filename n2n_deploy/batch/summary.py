"""`Summary`: the account of a batch in numbers, made from the ledger; `summary.json` holds it."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_deploy.batch.ledger import Run
from n2n_deploy.batch.standing import Standing
from n2n_deploy.batch.status import UNUSABLE, Status
from n2n_deploy.io.star_document import NAME
from n2n_deploy.io.star_frames import read_blocks
from n2n_deploy.report.summary_html import summary_html

if TYPE_CHECKING:
    from pandas import DataFrame

    from n2n_deploy.io.star_frames import Block

SUMMARY = "summary.json"

PHASES_FLIPPED = (
    "The phases are flipped: pick on these micrographs and extract the particles from the originals by their "
    "coordinates, or run with --flip-back. RELION ignores rlnCtfDataArePhaseFlipped in a table: on particles from "
    "these micrographs relion_refine would need --ctf_phase_flipped."
)
"""What to do next; without it the CTF's sign is applied twice."""


@dataclass
class Summary:
    """The account of a run, or of all runs whose results are merged.

    Attributes:
        output: the output folder.
        table: `denoised.star`; None if no micrograph is finished.
        report: `report.html`, or why there is none; None if none was asked for.
        listed: micrographs in `denoised.star`: those of this run, and others whose outputs are in the folder.
        denoised: micrographs denoised by this run.
        already_done: outputs recognised as finished by an earlier run, or by another one meanwhile.
        kept: outputs of other work that were left in place.
        failures: reason by name, of the micrographs that were refused or failed.
        notes: what the user should know, by name of a micrograph, a table, "input" or "ledger".
        not_begun: micrographs that were not begun because the run was told to stop.
        stopped_by: number of the signal that told it to; None if none did.
        gave_up: why the run ended early by itself; None if it did not.
        seconds: wall time of the run.
        stage_seconds: time by stage, summed over the micrographs of all lanes.
        megapixels: raw pixels denoised by this run, in millions.
        base: folder that absolute names of inputs lost; see `OutputLayout`.
        phases_flipped: whether outputs have flipped phases.
        run: version, model, session, precision, host, shard and the effective options.
    """

    output: Path
    table: Path | None = None
    report: Path | str | None = None
    listed: int = 0
    denoised: int = 0
    already_done: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    not_begun: int = 0
    stopped_by: int | None = None
    gave_up: str | None = None
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    megapixels: float = 0.0
    base: str = "/"
    phases_flipped: bool = False
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every micrograph has its output; 128 + the signal of a run that was stopped; otherwise 1."""
        if self.not_begun and self.stopped_by is not None:
            return 128 + self.stopped_by
        return 1 if self.failures or self.not_begun else 0

    def throughput(self) -> dict[str, Any]:
        """Return how much was done how fast, for people."""
        facts: dict[str, Any] = {"wall time": f"{self.seconds:.1f} s"}
        if self.denoised and self.seconds:
            facts["micrographs per hour"] = round(3600 * self.denoised / self.seconds)
            facts["megapixels per second"] = round(self.megapixels / self.seconds, 2)
        return facts | {f"seconds in {stage}": round(value, 2) for stage, value in self.stage_seconds.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "output": str(self.output),
            "table": str(self.table) if self.table else None,
            "report": str(self.report) if self.report else None,
            "listed": self.listed,
            "denoised": self.denoised,
            "already_done": self.already_done,
            "kept": self.kept,
            "failed": len(self.failures),
            "not_begun": self.not_begun,
            "stopped_by": signal.Signals(self.stopped_by).name if self.stopped_by is not None else None,
            "gave_up": self.gave_up,
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 3),
            "megapixels_per_second": round(self.megapixels / self.seconds, 3) if self.seconds else None,
            "stage_seconds": {stage: round(value, 3) for stage, value in self.stage_seconds.items()},
            "failures": self.failures,
            "notes": {name: list(notes) for name, notes in self.notes.items()},
            "mirrored_from": self.base,
            "phases_flipped": self.phases_flipped,
            **self.run,
        }

    def denoised_tables(self) -> "dict[str, Block]":
        """Return the blocks of `denoised.star` as pandas DataFrames; nothing if no micrograph is finished.

        Raises:
            DataError: the table is not there any more, or was changed.
        """
        return {} if self.table is None else read_blocks(self.table)

    def failed_table(self) -> "DataFrame":
        """Return the micrographs that were refused or failed: `rlnMicrographName` and the `reason`."""
        from pandas import DataFrame

        return DataFrame({NAME: [*self.failures], "reason": [*self.failures.values()]}, dtype=str)

    def _repr_html_(self) -> str:
        """Return what notebooks show of it."""
        return summary_html(self.as_dict())


def summarise(output: Path, standings: Sequence[Standing], runs: Iterable[Run], names: Iterable[str] | None) -> Summary:
    """Count what a run did, or what all runs did.

    Args:
        output: folder that the summary is about.
        standings: of that folder and of those it joins; only the first if `names` are given.
        runs: whose times and pixels are summed. The first of them describes itself, and how it ended.
        names: micrographs of one run; None for all of them.
    """
    runs = list(runs)
    first = runs[0]
    end = first.end or {}
    summary = Summary(
        output,
        stopped_by=end.get("stopped_by"),
        gave_up=end.get("gave_up"),
        seconds=max((run.end or {}).get("seconds", 0.0) for run in runs),
        megapixels=sum(run.megapixels for run in runs),
        base=first.header["base"],
        phases_flipped=any(run.header["phase_flipped"] for run in runs),
        run=_description(first),
    )
    for run in runs:
        for stage, seconds in run.stage_seconds.items():
            summary.stage_seconds[stage] = summary.stage_seconds.get(stage, 0.0) + seconds
    for standing in standings:
        for name in names if names is not None else (name for name, _ in standing.names()):
            _count(summary, standing, name)
    return summary


def _count(summary: Summary, standing: Standing, name: str) -> None:
    record = standing.record(name)
    status = standing.status(record)
    if record is not None and status in UNUSABLE:
        summary.failures[name] = record.reason
    elif status is Status.DENOISED:
        summary.denoised += 1
    elif status is Status.DONE:
        summary.already_done += 1
    elif status is Status.KEPT:
        summary.kept += 1
    elif record is not None or standing.run is not None or name not in standing.ledger.records:
        summary.not_begun += 1
    if record is not None and record.notes and status is Status.DENOISED:
        summary.notes[name] = record.notes


def identity(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the model of a ledger's first line: its hash, preset, and what it was adapted to."""
    return {name: model[name] for name in ("hash", "preset", "adapted") if name in model}


def _description(run: Run) -> dict[str, Any]:
    header = run.header
    return {
        "version": header["versions"]["n2n-deploy"],
        "model": identity(header["model"]) | {"recipe": header["recipe"]},
        "session": (run.end or {}).get("session", "none"),
        "precision": (run.network or {}).get("precision"),
        "host": header["host"],
        "shard": f"{run.shard[0]}-of-{run.shard[1]}" if run.shard else None,
        "options": header["options"],
    }
