"""`MicrographTable`: micrographs as read from one table, and that table, to be written again with other names."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from n2n_deploy.core.errors import UsageError
from n2n_deploy.io.micrograph_files import make_table
from n2n_deploy.io.micrograph_rows import EVEN, NO_VALUE, ODD
from n2n_deploy.io.optics_groups import FLIPPED, GROUP, group_values, is_set
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, StarTable, micrograph_table

HalfColumns = Mapping[int, tuple[str, str]]
"""Names of the even and the odd half by row."""

Lists = list[tuple[StarDocument, list[int]]]


class MicrographTable:
    """Micrographs as read from a table, and the table itself, to be written again with other names.

    Attributes:
        path: the STAR or .cs file; None where MRC files were given.
        micrographs: one for each row, in order; `micrographs[row].row == row`.
        problems: why a row cannot be used, by row; missing files are not looked for.
        project: folder that relative names start at.
        notes: what the user should know of the input as a whole, one line each.
        document: the STAR file; None where MRC files were given.
    """

    def __init__(
        self,
        path: Path | None,
        micrographs: list[Micrograph],
        problems: Mapping[int, str],
        project: Path,
        document: StarDocument | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.micrographs = micrographs
        self.problems = problems
        self.project = project
        self.notes = list(notes)
        self.document = document

    def __len__(self) -> int:
        return len(self.micrographs)

    def name_of(self, path: Path | str) -> str:
        """Return the name by which a table refers to a file: relative to the project, or else absolute."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100
        if absolute.is_relative_to(self.project):
            return str(absolute.relative_to(self.project))
        return str(absolute)

    def write(
        self,
        path: Path | str,
        names: Mapping[int, str],
        *,
        phase_flipped: bool | None = None,
        halves: HalfColumns | None = None,
    ) -> None:
        """Write some of the rows under other names; see `select`.

        Args:
            path: the STAR file to write.
            names: `rlnMicrographName` by row; rows that are not named are left out.
            phase_flipped: as for `select`.
            halves: as for `select`.

        Raises:
            UsageError: the path is that of the table that was read.
            HostError: the folder cannot be written to or has no room.
        """
        path = Path(path)
        if self.path is not None and path.resolve() == self.path.resolve():
            raise UsageError(f"{path}: is the input table; choose another name for the output")
        self.select(names, phase_flipped=phase_flipped, halves=halves, folder=path.parent).write(path)

    def select(
        self,
        names: Mapping[int, str],
        *,
        phase_flipped: bool | None = None,
        halves: HalfColumns | None = None,
        folder: Path | None = None,
    ) -> StarDocument:
        """Return the table with some of its rows under other names; everything else stays byte for byte.

        Columns, optics groups, unknown blocks and comments are kept; numbers are not formatted anew. Where
        MRC files were given, a RELION 3.1 table is made, with an optics group for each pixel size.

        Args:
            names: `rlnMicrographName` by row; rows that are not named are left out.
            phase_flipped: whether the phases of the named images were flipped by this program, for
                `rlnCtfDataArePhaseFlipped` (in the optics groups, or in the rows before RELION 3.1); phases that
                were flipped before stay marked. None leaves the label as it is.
            halves: `rlnMicrographNameEven` and `Odd` of every row named; None keeps the table's own.
            folder: where the table will lie. Relative names of halves that do not start at this folder or one
                above it are made absolute, so that they can be found from there.
        """
        document, lists, flags = self._keep(names)
        base = self._lost_base(folder)
        for part, rows in lists:
            table, _ = micrograph_table(part)
            if self.document is not None:
                part.set_column(table, NAME, {place: names[row] for place, row in enumerate(rows)})
            set_halves(part, table, rows, halves, base)
        if phase_flipped is not None:
            set_flag(document, flags, phase_flipped=phase_flipped)
        return document

    def select_rows(self, rows: Iterable[int], *, folder: Path | None = None) -> StarDocument:
        """Return the table with these rows only, under the names that it has; for tables of failed micrographs."""
        return self.select({row: self._name(row) for row in rows}, folder=folder)

    def values(self, row: int) -> dict[str, object]:
        """Return what the table says of a row: values by label, halves by whole paths, its optics group by content."""
        if self.document is None:
            return {"optics": self.micrographs[row].optics}
        found = whole_halves({label: column[row] for label, column in self._columns.items()}, self.project)
        if GROUP in found:
            found[GROUP] = self._groups.get(str(found[GROUP]), found[GROUP])
        return found

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        assert self.document is not None
        table, _ = micrograph_table(self.document)
        return self.document.columns(table, table.labels)

    @cached_property
    def _groups(self) -> dict[str, dict[str, str]]:
        assert self.document is not None
        return group_values(self.document)

    def _name(self, row: int) -> str:
        """What the table calls a micrograph."""
        return self.micrographs[row].name if self.document is None else self._columns[NAME][row]

    def _keep(self, names: Mapping[int, str]) -> tuple[StarDocument, Lists, StarTable]:
        """A copy of the table with the named rows only, and what to change in it.

        Returns:
            The copy, its names new only where there was no table; each document in it that lists micrographs, with
            the numbers of its rows in this table; and the table whose rows say whether phases are flipped.
        """
        if self.document is None:
            document = StarDocument(self.project, make_table(self.micrographs, names))
        else:
            document = self.document.copy()
            document.keep_rows(micrograph_table(document)[0], sorted(names))
        table, groups = micrograph_table(document)
        return document, [(document, sorted(names))], groups or table

    def _lost_base(self, folder: Path | None) -> Path | None:
        """The folder that relative names start at, where they cannot be found from a table in `folder`."""
        if folder is None or Path(os.path.abspath(folder)).is_relative_to(self.project):  # noqa: PTH100
            return None
        return self.project


def set_halves(
    document: StarDocument, table: StarTable, order: Sequence[int], halves: HalfColumns | None, base: Path | None
) -> None:
    """Set the columns of the even and odd halves.

    Args:
        document: changed in place.
        table: of the document.
        order: the row number that `halves` uses for each row of the table.
        halves: the new names; None to keep the old ones.
        base: folder to put before relative names; None to leave them.
    """
    for half, label in enumerate((EVEN, ODD)):
        if halves is not None:
            document.set_column(table, label, {index: halves[row][half] for index, row in enumerate(order)})
        elif base is not None and label in table.labels:
            names = document.columns(table, (label,))[label]
            absolute = {
                row: name if name in NO_VALUE else os.path.join(base, name)  # noqa: PTH118
                for row, name in enumerate(names)
            }
            document.set_column(table, label, absolute)


def whole_halves(values: Mapping[str, str], base: Path) -> dict[str, object]:
    """Return a row's values with relative names of halves put behind a folder."""
    halves = {label: values[label] for label in (EVEN, ODD) if values.get(label, "") not in NO_VALUE}
    return {**values, **{label: os.path.join(base, name) for label, name in halves.items()}}  # noqa: PTH118


def set_flag(document: StarDocument, table: StarTable, *, phase_flipped: bool) -> None:
    """Set `rlnCtfDataArePhaseFlipped` in all rows; a row where it is set stays so."""
    before = document.columns(table, (FLIPPED,)).get(FLIPPED, [""] * len(table))
    flags = {row: str(int(phase_flipped or is_set(value))) for row, value in enumerate(before)}
    document.set_column(table, FLIPPED, flags)
