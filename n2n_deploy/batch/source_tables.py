"""Copies of the tables that runs were given, kept with the ledger: rows of the output tables are taken from them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from n2n_deploy.batch.ledger import FOLDER, Ledger, TableRows
from n2n_deploy.core.errors import DataError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.cryosparc import is_cryosparc
from n2n_deploy.io.cryosparc_output import exposures_content
from n2n_deploy.io.micrograph_table import MicrographTable
from n2n_deploy.io.table_copy import read_table_copy, table_content

TABLES = "tables"
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV")

Row = Mapping[str, object]


class SourceTable:
    """A table of micrographs as it was given, and its rows by name.

    Args:
        file: name of its copy.
        table: the table, to select rows from.
        names: of the micrographs, in the order of the rows.
    """

    def __init__(self, file: str, table: MicrographTable, names: Sequence[str]) -> None:
        self.file = file
        self.names = names
        self.table = table

    @classmethod
    def of(cls, table: MicrographTable) -> Self:
        """Make one of a table as it was read."""
        ending, content = table_content(table)
        file = f"{hashlib.sha256(content).hexdigest()[:16]}{ending}"
        return cls(file, table, [micrograph.name for micrograph in table.micrographs])

    def keep(self, output: Path) -> None:
        """Write the copy, unless there is one.

        Raises:
            HostError: it cannot be written.
        """
        path = output / FOLDER / TABLES / self.file
        if not path.exists():
            _, content = table_content(self.table)
            with atomic_write(path, size=len(content)) as stream:
                stream.write(content)
        given, exposures = self.table.path, path.with_suffix(".cs")
        if given is not None and is_cryosparc(given) and not exposures.exists():
            with suppress(DataError), atomic_write(exposures) as stream:  # it may have been replaced meanwhile
                stream.write(exposures_content(given))

    @cached_property
    def first_row(self) -> dict[str, int]:
        """Row by name; the first of them if a name is repeated."""
        return {name: row for row, name in reversed([*enumerate(self.names)])}

    def rows(self, name: str) -> list[int]:
        """Return all rows with a name."""
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
            path = output / FOLDER / TABLES / self.file
            path.unlink()
            path.with_suffix(".cs").unlink()

    def values(self, name: str) -> list[Row]:
        """Return what each row of a micrograph says; see `MicrographTable.values`."""
        return [self.table.values(row) for row in self.rows(name)]

    def defocus(self, name: str) -> float | None:
        """Return the mean defocus of a micrograph in µm; None if the table does not say it."""
        row = self.table.values(self.first_row[name])
        try:
            value = sum(float(str(row[label])) for label in _DEFOCUS) / 2e4
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) else None


def read_sources(ledger: Ledger, known: Mapping[str, SourceTable]) -> list[SourceTable]:
    """Read the copies of all tables that a ledger names, the largest first.

    A copy that is missing or damaged, or was replaced by one with more rows, is passed over.

    Args:
        ledger: of an output folder.
        known: tables that are in memory, by the name of their copy.
    """
    found: dict[str, SourceTable] = dict(known)
    for run in ledger.runs:
        for kept in run.tables:
            if kept.file not in found and (source := _read(ledger, kept)) is not None:
                found[kept.file] = source
    return sorted(found.values(), key=lambda source: -len(source.names))


def _read(ledger: Ledger, kept: TableRows) -> SourceTable | None:
    with suppress(DataError):
        table, names = read_table_copy(ledger.output / FOLDER / TABLES / kept.file, Path(kept.project))
        return SourceTable(kept.file, table, names)
    return None
