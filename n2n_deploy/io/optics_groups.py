"""RELION's optics: the optics groups of RELION 3.1 and later, or the columns that hold the same values before it."""

import math
from collections.abc import Iterator, Mapping

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.read_options import ABERRATIONS, AMPLITUDE_CONTRASTS, LARGEST_PIXEL, VOLTAGES, ReadOptions
from n2n_deploy.io.star_document import StarDocument, StarTable, micrograph_table
from n2n_deploy.io.star_text import number

GROUP = "rlnOpticsGroup"
FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"

# The pixel size after motion correction, which may bin, comes before that of the movie.
_PIXEL_SIZES = (
    "rlnMicrographPixelSize",
    "rlnTomoTiltSeriesPixelSize",
    "rlnMicrographOriginalPixelSize",
    "rlnPixelSize",
)
DETECTOR, MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"
_VOLTAGE, _CS, _AMPLITUDE = "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"
_OPTIONS = {_VOLTAGE: "--voltage", _CS: "--cs", _AMPLITUDE: "--amplitude-contrast"}
_LABELS = (*_PIXEL_SIZES, DETECTOR, MAGNIFICATION, _VOLTAGE, _CS, _AMPLITUDE, FLIPPED, PREMULTIPLIED)
ROW_LABELS = (GROUP, *_LABELS)

_ANGSTROM_PER_MICROMETRE = 1e4
_SAME = 1e-3
"""Relative difference up to which a value of the table and a fallback value are taken for the same."""


class OpticsReader:
    """Reads the optics of each row of a micrograph table.

    Args:
        document: the STAR file.
        table: the table of micrographs.
        groups: the table of optics groups; None before RELION 3.1.
        shared: values that all rows share, which win over the rows' own: those of a whole tilt series.
        options: whether voltage, Cs and amplitude contrast must be there and phases must not be flipped yet, and the
            values to use where the table has none.

    Attributes:
        notes: one line for each value of the table that contradicts a fallback value.
    """

    def __init__(
        self,
        document: StarDocument,
        table: StarTable,
        groups: StarTable | None,
        shared: Mapping[str, str],
        options: ReadOptions,
    ) -> None:
        self._document, self._table, self._groups = document, table, groups
        self._shared, self._options = shared, options
        self.notes: list[str] = []

    def read(self, values: Mapping[str, list[str]]) -> Iterator[Optics]:
        """Give the optics of each row; the pixel size is NaN where neither table nor fallback has it.

        Rows with the same values share one record.

        Args:
            values: those columns of `ROW_LABELS` that the table has.

        Raises:
            DataError: a label that is needed is missing, a value is out of range, or a row names an optics group
                that the file does not have.
        """
        columns = {label: values[label] for label in _LABELS if label in values}
        labels = list(columns)
        count = len(self._table)
        rows: Iterator[tuple[str, ...]] = zip(*columns.values(), strict=True) if columns else iter([()] * count)
        names, by_group = self._read_groups(values.get(GROUP))
        known: dict[tuple[str, tuple[str, ...]], Optics] = {}
        for row, (name, own) in enumerate(zip(names, rows, strict=True)):
            if (name, own) not in known:
                line = self._document.where(self._table, row)
                if name not in by_group:
                    raise DataError(
                        f"{self._document.path}: {line} is of optics group {name}, but the file has "
                        f"{', '.join(sorted(by_group))}; correct {GROUP} or add the group"
                    )
                where = f"optics group {name}" if self._groups is not None else line
                # The group's value of a label wins over the row's, as in RELION.
                merged = dict(zip(labels, own, strict=True)) | by_group[name]
                known[name, own] = self._parse(f"{self._document.path}: {where}", merged)
            yield known[name, own]

    def _read_groups(self, names: list[str] | None) -> tuple[list[str], dict[str, dict[str, str]]]:
        """The group of each row, and the values of each group."""
        document, table, groups = self._document, self._table, self._groups
        if groups is None:
            shared = {label: value for label, value in self._shared.items() if label in _LABELS}
            return [""] * len(table), {"": shared}
        columns = document.columns(groups, ROW_LABELS)
        numbers = columns.pop(GROUP, None) or [str(index + 1) for index in range(len(groups))]
        by_group = {
            plain_number(number): {label: column[index] for label, column in columns.items()}
            for index, number in enumerate(numbers)
        }
        if not by_group:
            raise DataError(f"{document.path}: data_{groups.block} has no optics group; add one")
        if names is None:
            if len(by_group) > 1:
                raise DataError(
                    f"{document.path}: data_{table.block} has no {GROUP}, but the file has {len(by_group)} "
                    "optics groups; add the column"
                )
            return list(by_group) * len(table), by_group
        plain = {name: plain_number(name) for name in set(names)}
        return [plain[name] for name in names], by_group

    def _parse(self, where: str, values: dict[str, str]) -> Optics:
        term, fallback = self._document.term, self._options.fallback
        if self._options.need_ctf:
            for label, what in ((FLIPPED, "phase-flipped"), (PREMULTIPLIED, "multiplied by their CTF")):
                if is_set(values.get(label)):
                    raise DataError(
                        f"{where}: the micrographs are already {what} ({label} is {values[label]}), and flipping "
                        "phases again would undo it; give the micrographs before CTF correction, or a model "
                        "trained with --no-phase-flip"
                    )
        # RELION needs a voltage in every table; a 0 means that the microscope is not known.
        if number(values.get(_VOLTAGE, "")) == 0:
            values = {label: value for label, value in values.items() if label not in _OPTIONS}
        found = [
            self._number(where, values, _VOLTAGE, *VOLTAGES, "kV"),
            self._number(where, values, _CS, *ABERRATIONS, "mm"),
            self._number(where, values, _AMPLITUDE, *AMPLITUDE_CONTRASTS, "as a fraction"),
        ]
        given = (fallback.voltage, fallback.spherical_aberration, fallback.amplitude_contrast)
        used = [self._choose(where, *each) for each in zip(_OPTIONS, found, given, strict=True)]
        if self._options.need_ctf:
            for (label, option), value in zip(_OPTIONS.items(), used, strict=True):
                if value is None:
                    raise DataError(
                        f"{where}: has no {term(label)}, which the CTF needs; add it to the table or give {option}"
                    )
        given_size = None if math.isnan(fallback.pixel_size) else fallback.pixel_size
        pixel_size = self._choose(where, "pixel size", self._pixel_size(where, values), given_size)
        return Optics(math.nan if pixel_size is None else pixel_size, *used)

    def _choose(self, where: str, label: str, found: float | None, given: float | None) -> float | None:
        """The table's value, or else the fallback; a note where the two differ."""
        if found is None:
            return given
        if given is not None and not math.isclose(found, given, rel_tol=_SAME, abs_tol=1e-9):
            name = self._document.term(label)
            self.notes.append(f"{where}: {name} is {found:g} and {given:g} was given; the table's value is used")
        return found

    def _pixel_size(self, where: str, values: Mapping[str, str]) -> float | None:
        """Å per pixel of the micrograph; None where the table has no pixel size."""
        smallest = math.ulp(0.0)
        for label in _PIXEL_SIZES:
            if label in values:
                return self._number(where, values, label, smallest, LARGEST_PIXEL, "Å, above 0")
        if DETECTOR in values and MAGNIFICATION in values:
            detector = self._number(where, values, DETECTOR, smallest, math.inf, "micrometres, above 0")
            magnification = self._number(where, values, MAGNIFICATION, smallest, math.inf, "above 0")
            if detector is not None and magnification is not None:
                return detector * _ANGSTROM_PER_MICROMETRE / magnification
        return None

    def _number(
        self, where: str, values: Mapping[str, str], label: str, low: float, high: float, unit: str
    ) -> float | None:
        """One value in its range; None where the label is missing."""
        if label not in values:
            return None
        found = number(values[label])
        if not low <= found <= high:
            expected = f"({unit})" if "above" in unit else f"from {low:g} to {high:g} ({unit})"
            name = self._document.term(label)
            raise DataError(f"{where}: {name} is {values[label]}; expected a number {expected}")
        return found


def group_values(document: StarDocument) -> dict[str, dict[str, str]]:
    """Return what each optics group of a micrograph table says, by its number; nothing before RELION 3.1."""
    _, groups = micrograph_table(document)
    if groups is None:
        return {}
    columns = document.columns(groups, groups.labels)
    numbers = columns.pop(GROUP, None) or [str(index + 1) for index in range(len(groups))]
    return {number: {label: column[row] for label, column in columns.items()} for row, number in enumerate(numbers)}


def is_set(value: str | None) -> bool:
    """Whether a RELION Boolean is true; None is false."""
    found = number(value or "0")
    return found != 0 if math.isfinite(found) else str(value).lower() in ("true", "yes")


def plain_number(group: str) -> str:
    """Return the number of a group in one spelling: 1, 01 and 1.0 are the same."""
    found = number(group)
    return group if math.isnan(found) else f"{found:g}"
