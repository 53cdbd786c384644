"""Copies of the tables that runs were given, kept with the ledger: rows of the output tables are taken from them."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Self

from n2n_deploy.batch.ledger import FOLDER, Ledger, TableRows
from n2n_deploy.core.errors import DataError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.optics_groups import GROUP
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table

TABLES = "tables"
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV")

Row = Mapping[str, object]


class SourceTable:
    """A table of micrographs as it was given, and its rows by name.

    Args:
        file: name of its copy.
        table: the table; only its document, or the micrographs if it was made of MRC files, and the project are used.
        names: of the micrographs, in the order of the rows.
    """

    def __init__(self, file: str, table: MicrographTable, names: Sequence[str]) -> None:
        self.file = file
        self.names = names
        self._table = table

    @classmethod
    def of(cls, table: MicrographTable) -> Self:
        """Make one of a table as it was read."""
        ending = "json" if table.document is None else "star"
        file = f"{hashlib.sha256(_content(table)).hexdigest()[:16]}.{ending}"
        return cls(file, table, [micrograph.name for micrograph in table.micrographs])

    def keep(self, output: Path) -> None:
        """Write the copy, unless there is one.

        Raises:
            HostError: it cannot be written.
        """
        path = output / FOLDER / TABLES / self.file
        if not path.exists():
            content = _content(self._table)
            with atomic_write(path, size=len(content)) as stream:
                stream.write(content)

    @cached_property
    def first_row(self) -> dict[str, int]:
        """Row by name; the first of them if a name is repeated."""
        return {name: row for row, name in reversed([*enumerate(self.names)])}

    def rows(self, name: str) -> list[int]:
        """Return all rows with a name; repeated ones were refused."""
        return [self.first_row[name], *self._repeated.get(name, ())]

    @cached_property
    def _repeated(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            if self.first_row[name] != row:
                found.setdefault(name, []).append(row)
        return found

    def remove(self, output: Path) -> None:
        """Remove the copy, which another table contains by now."""
        with suppress(OSError):
            (output / FOLDER / TABLES / self.file).unlink()

    def name_of(self, path: Path) -> str:
        """Return the name by which the table refers to a file or folder."""
        return self._table.name_of(path)

    def select(self, names: Mapping[int, str], *, phase_flipped: bool | None = None) -> StarDocument:
        """Return a table with some of the rows under other names; see `MicrographTable.select`."""
        return self._table.select(names, phase_flipped=phase_flipped)

    def row(self, name: str) -> Row:
        """Return what the table says of a micrograph: values by label, its optics group by content."""
        row = self.first_row[name]
        if self._table.document is None:
            return {"optics": self._table.micrographs[row].optics}
        values: dict[str, object] = {label: column[row] for label, column in self._columns.items()}
        if GROUP in values:
            values[GROUP] = self._groups.get(str(values[GROUP]), values[GROUP])
        return values

    def defocus(self, name: str) -> float | None:
        """Return the mean defocus of a micrograph in µm; None if the table does not say it."""
        if self._table.document is None or not all(label in self._columns for label in _DEFOCUS):
            return None
        row = self.first_row[name]
        try:
            value = sum(float(self._columns[label][row]) for label in _DEFOCUS) / 2e4
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        document = self._table.document
        assert document is not None
        table, _ = micrograph_table(document)
        return document.columns(table, table.labels)

    @cached_property
    def _groups(self) -> dict[str, Row]:
        document = self._table.document
        assert document is not None
        return optics_groups(document)


def optics_groups(document: StarDocument) -> dict[str, Row]:
    """Return what each optics group says, by its number; nothing before RELION 3.1."""
    _, groups = micrograph_table(document)
    if groups is None:
        return {}
    columns = document.columns(groups, groups.labels)
    numbers = columns.pop(GROUP, None) or [str(index + 1) for index in range(len(groups))]
    return {number: {label: column[row] for label, column in columns.items()} for row, number in enumerate(numbers)}


def read_sources(ledger: Ledger, known: Mapping[str, SourceTable]) -> list[SourceTable]:
    """Read the copies of all tables that a ledger names, the largest first.

    Args:
        ledger: of an output folder.
        known: tables that are in memory, by the name of their copy.
    """
    found: dict[str, SourceTable] = dict(known)
    for run in ledger.runs:
        for kept in run.tables:
            if kept.file not in found:
                source = _read(ledger.output / FOLDER / TABLES / kept.file, kept)
                if source is not None:
                    found[kept.file] = source
    return sorted(found.values(), key=lambda source: -len(source.names))


def _content(table: MicrographTable) -> bytes:
    """Return what a copy holds: the STAR file, or names and optics of MRC files."""
    if table.document is not None:
        return table.document.content()
    return json.dumps([[each.name, asdict(each.optics)] for each in table.micrographs]).encode()


def _read(path: Path, kept: TableRows) -> SourceTable | None:
    """Read a copy; None if it is missing or damaged, or was replaced by one with more rows."""
    project = Path(kept.project)
    try:
        if path.suffix == ".json":
            files = json.loads(path.read_bytes())
            micrographs = [
                Micrograph(name, project / name, Optics(**optics), row=row) for row, (name, optics) in enumerate(files)
            ]
            return SourceTable(path.name, MicrographTable(None, micrographs, {}, project), [name for name, _ in files])
        document = StarDocument.read(path)
        names = document.columns(micrograph_table(document)[0], (NAME,))[NAME]
        return SourceTable(path.name, MicrographTable(path, [], {}, project, document), names)
    except (OSError, ValueError, TypeError, DataError):
        return None
