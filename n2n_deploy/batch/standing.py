"""Where each micrograph of an output folder stands now: the ledger, the tables it names, and the outputs that exist."""

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from n2n_deploy.batch.ledger import Ledger, Record, Run
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.provenance import output_status
from n2n_deploy.batch.source_tables import SourceTable, read_sources
from n2n_deploy.batch.status import FINISHED, Status


class Standing:
    """What the tables, the summary and the report of one output folder are made of.

    Args:
        ledger: of the output folder.
        layout: where outputs go.
        run: the run that tells of itself; None to tell of all runs alike.
        verified: names of the micrographs whose outputs the run has found itself.
        tables: tables that are in memory, by the name of their copy.

    Attributes:
        sources: the source tables, the largest first.
    """

    def __init__(
        self,
        ledger: Ledger,
        layout: OutputLayout,
        run: Run | None = None,
        verified: Container[str] = (),
        tables: Mapping[str, SourceTable] | None = None,
    ) -> None:
        self.ledger = ledger
        self.layout = layout
        self.run = run
        self.sources = read_sources(ledger, tables or {})
        self._verified = verified
        self._files = cache(_files)

    @classmethod
    def of(cls, output: Path) -> list["Standing"]:
        """Read the ledger of a folder, and those of the folders whose results it joins.

        Raises:
            DataError: a ledger was written by a newer version.
        """
        ledger = Ledger.read(output)
        own = [cls(ledger, OutputLayout(output, ledger.base))] if ledger.base is not None else []
        return own + joined(ledger)

    def record(self, name: str) -> Record | None:
        """Return the record of a micrograph that is true now; None if nothing is known or its output is gone."""
        record = self.ledger.records.get(name)
        if record is None:
            return None
        if record.status in FINISHED:
            trusted = record.run is self.run or name in self._verified
            return record if trusted or self._exists(name) else None
        # Another run may have done it at the same time; the label in the output decides.
        if record.work and self._exists(name) and output_status(self.layout(name), record.work)[0] is Status.DONE:
            return replace(record, status=Status.DONE, reason="")
        return record

    def status(self, record: Record | None) -> Status:
        """Return a status as the run sees it: what another run denoised was done before."""
        if record is None:
            return Status.PENDING
        if record.status is Status.DENOISED and self.run is not None and record.run is not self.run:
            return Status.DONE
        return record.status

    def names(self) -> Iterator[tuple[str, SourceTable | None]]:
        """Yield each micrograph once, with a table that lists it: those that a run was about, in the tables' order."""
        seen: set[str] = set()
        for source in self.sources:
            wanted = self._planned(source)
            for row, name in enumerate(source.names):
                if (wanted[row] or name in self.ledger.records) and name not in seen:
                    seen.add(name)
                    yield name, source
        for name in self.ledger.records:
            if name not in seen:
                yield name, None

    def _planned(self, source: SourceTable) -> bytearray:
        """Mark the rows of a table that any run was about."""
        marks = bytearray(len(source.names))
        for run in self.ledger.runs:
            for kept in run.tables:
                if kept.file == source.file:
                    for first, past in kept.rows:
                        marks[first:past] = b"\1" * (past - first)
        return marks

    def _exists(self, name: str) -> bool:
        folder, _, file = self.layout.relative(name).rpartition("/")
        return file in self._files(self.layout.output / folder)


def joined(ledger: Ledger) -> list[Standing]:
    """Return the standings of the folders that a ledger joins; what these join in turn is not followed."""
    others = [Ledger.read(folder) for folder in ledger.joined if folder != ledger.output]
    return [Standing(other, OutputLayout(other.output, other.base)) for other in others if other.base is not None]


def _files(folder: Path) -> frozenset[str]:
    """List a folder once: on a network file system, asking for each file would take a thousand times as long."""
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return frozenset()
