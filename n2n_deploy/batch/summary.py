"""`Summary`: the account of a batch, as `summary.json` holds it."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_deploy.batch.outputs import BASE


@dataclass
class Summary:
    """The account of a batch.

    Attributes:
        output: the folder.
        table: `denoised.star`, None where nothing is finished.
        report: `report.html`, or why there is none; None where none was asked for.
        listed: micrographs that `denoised.star` lists: those of this run, and others whose outputs are in the folder.
        denoised: micrographs done in this run.
        already_done: outputs recognised as finished by an earlier run, or by another one meanwhile.
        kept: outputs of other work that were left in place.
        failures: reason by micrograph name, of those refused and those that failed.
        notes: what to know of micrographs that were done, by name.
        not_begun: micrographs that were left because the run was told to stop.
        stopped_by: number of the signal that told it to, None where none did.
        gave_up: why the run ended early by itself, None where it did not.
        seconds: wall time of the run.
        stage_seconds: time by stage, summed over the micrographs of all lanes.
        megapixels: raw pixels denoised in this run, in millions.
        base: folder that absolute names of inputs lost; see `OutputLayout`.
        run: model, versions, hardware and the effective options.
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
            BASE: self.base,
            **self.run,
        }
