"""The rows of a micrograph table turned into records; a row that cannot be used is recorded and skipped."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.micrograph_names import Folders
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.optics_groups import ROW_LABELS, OpticsReader
from n2n_deploy.io.read_options import ReadOptions
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, StarTable
from n2n_deploy.io.star_text import number

EVEN, ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"
NO_VALUE = ("", "None", "none")

_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_PHASE_SHIFT = "rlnPhaseShift"
_PIXEL_SIZE = "rlnMicrographPixelSize"
_NO_HALVES = (
    "name the halves with --suffixes DW,EVN,ODD or with templates. Motion correction writes them: RELION's with "
    '--even_odd_split in its "Additional arguments" (the single-particle interface has no field for it), MotionCor '
    "with -SplitSum 1"
)


class RowReader:
    """Reads the rows of one table.

    Args:
        document: the STAR file.
        table: the table of micrographs.
        groups: the table of optics groups; None before RELION 3.1.
        folders: where relative names start.
        options: what every micrograph must have, and fallback values.
        shared: values of all rows by label, which win over the rows' own.
        series: name of the tilt series that the rows are images of; it starts their names.
        first_row: number of the first row in a table of several series.

    Attributes:
        micrographs: one for each row, also for those with problems.
        problems: why a row cannot be used, by row.
        notes: contradictions between the table and fallback values.

    Raises:
        DataError: a needed label is missing, or the optics make no sense; see `OpticsReader.read`.
    """

    def __init__(
        self,
        document: StarDocument,
        table: StarTable,
        groups: StarTable | None,
        folders: Folders,
        options: ReadOptions,
        *,
        shared: Mapping[str, str] | None = None,
        series: str = "",
        first_row: int = 0,
    ) -> None:
        self._document, self._table, self._folders, self._options = document, table, folders, options
        self._series, self._first = series, first_row
        if options.need_ctf:
            self._require(_DEFOCUS, "phases cannot be flipped without it; give the table of a CTF estimation job")
        if options.need_halves and not options.half_names:
            self._require((EVEN, ODD), _NO_HALVES)
        self._columns = document.columns(table, (NAME, *_DEFOCUS, _PHASE_SHIFT, EVEN, ODD, *ROW_LABELS))
        self._ctf_columns: dict[str, list[float]] = {}
        if all(label in self._columns for label in _DEFOCUS):
            labels = [label for label in (*_DEFOCUS, _PHASE_SHIFT) if label in self._columns]
            self._ctf_columns = {label: [*map(number, self._columns[label])] for label in labels}
        self.problems: dict[int, str] = {}
        optics = OpticsReader(document, table, groups, shared or {}, options)
        self.micrographs = [
            self._micrograph(row, name, of_row)
            for row, (name, of_row) in enumerate(zip(self._columns[NAME], optics.read(self._columns), strict=True))
        ]
        self.notes = optics.notes
        unknown = [row for row, each in enumerate(self.micrographs) if math.isnan(each.optics.pixel_size)]
        if unknown:  # all headers at once: each is a round trip to the file system
            headers = options.headers([self.micrographs[row].path for row in unknown])
            for row, header in zip(unknown, headers, strict=True):
                each = self.micrographs[row]
                size = self._pixel_size(row, header)
                self.micrographs[row] = replace(each, optics=replace(each.optics, pixel_size=size))

    def _require(self, labels: tuple[str, ...], advice: str) -> None:
        missing = [self._document.term(label) for label in labels if label not in self._table.labels]
        if missing:
            block = f"data_{self._table.block} " if self._document.is_star else ""
            raise DataError(f"{self._document.path}: {block}has no {' and no '.join(missing)}; {advice}")

    def _micrograph(self, row: int, name: str, optics: Optics) -> Micrograph:
        path = self._folders.locate(name)
        if name in NO_VALUE:
            self._refuse(row, f"{self._document.term(NAME)} is {name or 'empty'}")
        elif "@" in name:
            self._refuse(row, "is a section of a stack; give micrographs in a file of their own each")
        even, odd = self._halves(row, path)
        unique = f"{self._series}/{name}" if self._series else name
        return Micrograph(unique, path, optics, self._ctf(row), even, odd, self._first + row)

    def _halves(self, row: int, whole: Path) -> tuple[Path | None, Path | None]:
        if self._options.half_names:
            even, odd = self._options.half_names.of(whole, self._folders)
            if even == odd or whole in (even, odd):
                self._refuse(row, f"{whole} would be its own half ({even}, {odd}); check suffixes or templates")
            return even, odd
        if EVEN not in self._columns or ODD not in self._columns:
            return None, None
        names = [self._columns[label][row] for label in (EVEN, ODD)]
        paths = [None if name in NO_VALUE else self._folders.locate(name) for name in names]
        if self._options.need_halves and None in paths:
            self._refuse(row, f"{ODD if paths[0] else EVEN} has no value")
        elif self._options.need_halves and paths[0] == paths[1]:
            self._refuse(row, f"{EVEN} and {ODD} are the same file, {names[0]}")
        return paths[0], paths[1]

    def _ctf(self, row: int) -> CTFParameters | None:
        """The row's CTF; None in a table without one, or where a value is not a finite number."""
        if not self._ctf_columns:
            return None
        numbers = [column[row] for column in self._ctf_columns.values()]
        if math.isfinite(sum(numbers)):
            ctf = CTFParameters(*numbers)
            if self._options.need_ctf and not (ctf.defocus_u or ctf.defocus_v or ctf.phase_shift):
                self._refuse(row, "its defocus is 0, as a failed fit leaves it; estimate its CTF again")
            return ctf
        if self._options.need_ctf:
            label = next(label for label, column in self._ctf_columns.items() if not math.isfinite(column[row]))
            text = self._columns[label][row] or "empty"
            self._refuse(row, f"{self._document.term(label)} is {text}, not a number; estimate its CTF again")
        return None

    def _pixel_size(self, row: int, header: MRCHeader | N2NError) -> float:
        """Å per pixel from the file's header; NaN, and a problem, where it is not there."""
        if isinstance(header, N2NError):
            self._refuse(row, f"the table has no pixel size, and the file's header cannot be read: {header}")
        elif header.pixel_size is None:
            term = self._document.term(_PIXEL_SIZE)
            self._refuse(row, f"neither the table nor {header.path} has a pixel size; add {term} or give --pixel-size")
        else:
            return header.pixel_size
        return math.nan

    def _refuse(self, row: int, reason: str) -> None:
        place, name = self._document.where(self._table, row), self._columns[NAME][row]
        where = f"{place}, {name}" if name else place
        self.problems.setdefault(self._first + row, f"{self._document.path}: {where}: {reason}")


def states_ctf(table: StarTable) -> bool:
    """Whether a table has the columns of the defocus."""
    return all(label in table.labels for label in _DEFOCUS)
