"""The rows of a micrograph table turned into records, row by row: what is wrong with one costs no other."""

import math
from dataclasses import replace
from pathlib import Path

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.micrograph_files import Headers
from n2n_deploy.io.micrograph_names import Folders, HalfNames
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.optics_groups import ROW_LABELS, micrograph_optics
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, StarTable

_EVEN, _ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"
_DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_PHASE_SHIFT = "rlnPhaseShift"
_NO_VALUE = ("", "None", "none")


class RowReader:
    """What is known of the rows of one table.

    Args:
        document: the STAR file.
        table: the one with micrographs.
        groups: the one with optics groups; None before RELION 3.1.
        folders: where names start.
        half_names: how halves are named; wins over what the table says of them.
        need_ctf: every micrograph must have CTF parameters.
        need_halves: every micrograph must have even and odd sums.
        pixel_size: Å, for tables that do not say it; None to look into each micrograph's header then.
        headers: reads these.

    Attributes:
        micrographs: one for each row, also for those with problems.
        problems: for rows that cannot be used, why, by row.

    Raises:
        DataError: a needed label is missing, or the optics make no sense; see `micrograph_optics`.
    """

    def __init__(
        self,
        document: StarDocument,
        table: StarTable,
        groups: StarTable | None,
        folders: Folders,
        half_names: HalfNames,
        *,
        need_ctf: bool,
        need_halves: bool,
        pixel_size: float | None,
        headers: Headers,
    ) -> None:
        self._document, self._table, self._folders = document, table, folders
        self._half_names, self._need_halves = half_names, need_halves
        if need_ctf:
            self._require(_DEFOCUS, "phases cannot be flipped without it; give the table of a CTF estimation job")
        if need_halves and not half_names:
            self._require((_EVEN, _ODD), "name the halves with --suffixes DW,EVN,ODD or with templates")
        self._need_ctf = need_ctf
        self._columns = document.columns(table, (NAME, *_DEFOCUS, _PHASE_SHIFT, _EVEN, _ODD, *ROW_LABELS))
        self._ctf_columns: dict[str, list[float]] = {}
        if all(label in self._columns for label in _DEFOCUS):
            labels = [label for label in (*_DEFOCUS, _PHASE_SHIFT) if label in self._columns]
            self._ctf_columns = {label: [*map(_number, self._columns[label])] for label in labels}
        self.problems: dict[int, str] = {}
        optics = micrograph_optics(document, table, groups, self._columns, need_ctf=need_ctf)
        self.micrographs = [
            self._micrograph(row, name, shared)
            for row, (name, shared) in enumerate(zip(self._columns[NAME], optics, strict=True))
        ]
        if unknown := [each for each in self.micrographs if math.isnan(each.optics.pixel_size)]:
            if pixel_size is None:  # all headers at once: each is a round trip to the file system
                looked_at = zip(unknown, headers([each.path for each in unknown]), strict=True)
                sizes = [self._pixel_size(*found) for found in looked_at]
            else:
                sizes = [pixel_size] * len(unknown)
            for each, size in zip(unknown, sizes, strict=True):
                self.micrographs[each.row] = replace(each, optics=replace(each.optics, pixel_size=size))

    def _require(self, labels: tuple[str, ...], advice: str) -> None:
        missing = " and no ".join(label for label in labels if label not in self._table.labels)
        if missing:
            raise DataError(f"{self._document.path}: data_{self._table.block} has no {missing}; {advice}")

    def _micrograph(self, row: int, name: str, optics: Optics) -> Micrograph:
        path = self._folders.locate(name)
        if name in _NO_VALUE:
            self._refuse(row, f"{NAME} is {name or 'empty'}")
        elif "@" in name:
            self._refuse(row, "is a section of a stack; give micrographs, each in a file of its own")
        even, odd = self._halves(row, path)
        return Micrograph(name, path, optics, self._ctf(row), even, odd, row)

    def _halves(self, row: int, whole: Path) -> tuple[Path | None, Path | None]:
        if self._half_names:
            even, odd = self._half_names.of(whole, self._folders)
            if even == odd or whole in (even, odd):
                self._refuse(row, f"{whole} would be its own half ({even}, {odd}); check suffixes or templates")
            return even, odd
        if _EVEN not in self._columns or _ODD not in self._columns:
            return None, None
        names = [self._columns[label][row] for label in (_EVEN, _ODD)]
        paths = [None if name in _NO_VALUE else self._folders.locate(name) for name in names]
        if self._need_halves and None in paths:
            self._refuse(row, f"{_ODD if paths[0] else _EVEN} has no value")
        elif self._need_halves and paths[0] == paths[1]:
            self._refuse(row, f"{_EVEN} and {_ODD} are the same file, {names[0]}")
        return paths[0], paths[1]

    def _ctf(self, row: int) -> CTFParameters | None:
        """The row's CTF; None in a table without one, or where a value is not a finite number."""
        if not self._ctf_columns:
            return None
        numbers = [column[row] for column in self._ctf_columns.values()]
        if math.isfinite(sum(numbers)):
            ctf = CTFParameters(*numbers)
            if self._need_ctf and not (ctf.defocus_u or ctf.defocus_v or ctf.phase_shift):
                self._refuse(row, "its defocus is 0, as a fit that failed leaves it; estimate its CTF again")
            return ctf
        if self._need_ctf:
            label = next(label for label, column in self._ctf_columns.items() if not math.isfinite(column[row]))
            text = self._columns[label][row]
            self._refuse(row, f"{label} is {text or 'empty'}, not a number; estimate its CTF again")
        return None

    def _pixel_size(self, micrograph: Micrograph, header: MRCHeader | N2NError) -> float:
        """Å per pixel as the file says; NaN, and a problem, where it does not."""
        row, path = micrograph.row, micrograph.path
        if isinstance(header, N2NError):
            self._refuse(row, f"the table does not say the pixel size, nor does the file: {header}")
        elif header.pixel_size is None:
            self._refuse(row, f"neither the table nor {path} says the pixel size; add rlnMicrographPixelSize")
        else:
            return header.pixel_size
        return math.nan

    def _refuse(self, row: int, reason: str) -> None:
        line, name = self._document.line_number(self._table, row), self._columns[NAME][row]
        where = f"line {line}, {name}" if name else f"line {line}"
        self.problems.setdefault(row, f"{self._document.path}: {where}: {reason}")


def _number(text: str) -> float:
    """The number that a text means; NaN where it means none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
