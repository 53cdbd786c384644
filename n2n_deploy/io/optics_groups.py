"""RELION's optics: a group of RELION 3.1 and later, or the columns that carry the same before it."""

import math
from collections.abc import Iterator, Mapping

from n2n_deploy.core.errors import DataError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.star_document import StarDocument, StarTable

GROUP = "rlnOpticsGroup"
FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"

# The size after motion correction, which may bin, comes before that of the movie.
_PIXEL_SIZES = (
    "rlnMicrographPixelSize",
    "rlnMicrographOriginalPixelSize",
    "rlnTomoTiltSeriesPixelSize",
    "rlnPixelSize",
)
_DETECTOR, _MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"
_VOLTAGE, _CS, _AMPLITUDE = "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"
_LABELS = (*_PIXEL_SIZES, _DETECTOR, _MAGNIFICATION, _VOLTAGE, _CS, _AMPLITUDE, FLIPPED, PREMULTIPLIED)
ROW_LABELS = (GROUP, *_LABELS)

_ANGSTROM_PER_MICROMETRE = 1e4
_LARGEST_PIXEL = 1e4  # Å
_VOLTAGES = (1.0, 3000.0)  # kV; a value in volts would give a wavelength that is silently wrong


def micrograph_optics(
    document: StarDocument,
    table: StarTable,
    groups: StarTable | None,
    values: Mapping[str, list[str]],
    *,
    need_ctf: bool,
) -> Iterator[Optics]:
    """Give the optics of each row of a micrograph table; pixel size NaN where the file does not say it.

    Rows with the same values share one record.

    Args:
        document: the STAR file.
        table: the one with micrographs.
        groups: the one with optics groups; None before RELION 3.1.
        values: the columns `ROW_LABELS` of the table, those that it has.
        need_ctf: whether voltage, Cs and amplitude contrast must be there, and phases not be flipped yet.

    Raises:
        DataError: a label that is needed is missing, a value makes no sense, or a row names a group that
            the file does not have.
    """
    columns = {label: values[label] for label in _LABELS if label in values}
    labels = list(columns)
    rows: Iterator[tuple[str, ...]] = zip(*columns.values(), strict=True) if columns else iter([()] * len(table))
    names, by_group = _groups(document, table, groups, values.get(GROUP))
    known: dict[tuple[str, tuple[str, ...]], Optics] = {}
    for row, (name, own) in enumerate(zip(names, rows, strict=True)):
        if (name, own) not in known:
            if name not in by_group:
                raise DataError(
                    f"{document.path}: line {document.line_number(table, row)} is of optics group {name}, "
                    f"and the file has {', '.join(sorted(by_group))}; correct {GROUP} or add the group"
                )
            where = f"optics group {name}" if groups is not None else f"line {document.line_number(table, row)}"
            # A label of the group wins over the same one in the row, as in RELION.
            known[name, own] = _parse(
                f"{document.path}: {where}", dict(zip(labels, own, strict=True)) | by_group[name], need_ctf=need_ctf
            )
        yield known[name, own]


def is_set(value: str | None) -> bool:
    """Whether a RELION Boolean is true; None is false."""
    try:
        return value is not None and float(value) != 0
    except ValueError:
        return str(value).lower() in ("true", "yes")


def _groups(
    document: StarDocument, table: StarTable, groups: StarTable | None, names: list[str] | None
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The group of each row, and what each group says."""
    if groups is None:
        return [""] * len(table), {"": {}}
    columns = document.columns(groups, ROW_LABELS)
    numbers = columns.pop(GROUP, None) or [str(index + 1) for index in range(len(groups))]
    by_group = {
        _plain(number): {label: column[index] for label, column in columns.items()}
        for index, number in enumerate(numbers)
    }
    if not by_group:
        raise DataError(f"{document.path}: data_{groups.block} has no optics group; add one")
    if names is None:
        if len(by_group) > 1:
            raise DataError(
                f"{document.path}: data_{table.block} has no {GROUP}, and the file has {len(by_group)} "
                "optics groups; add the column"
            )
        return list(by_group) * len(table), by_group
    plain = {name: _plain(name) for name in set(names)}
    return [plain[name] for name in names], by_group


def _plain(number: str) -> str:
    """The number of a group, written one way: 1, 01 and 1.0 are the same."""
    try:
        return f"{float(number):g}"
    except ValueError:
        return number


def _parse(where: str, values: Mapping[str, str], *, need_ctf: bool) -> Optics:
    if need_ctf:
        for label, what in ((FLIPPED, "phase-flipped"), (PREMULTIPLIED, "multiplied by their CTF")):
            if is_set(values.get(label)):
                raise DataError(
                    f"{where}: the micrographs are already {what} ({label} is {values[label]}), and flipping "
                    "phases again would undo it; give those before CTF correction, or a model that flips none"
                )
        for label in (_VOLTAGE, _CS, _AMPLITUDE):
            if label not in values:
                raise DataError(f"{where}: has no {label}; the CTF cannot be computed without it, add it")
    pixel_size = _pixel_size(where, values)
    pixel_size = math.nan if pixel_size is None else pixel_size
    # RELION wants a voltage in every table; tables of bare MRC files have 0 there, for an unknown microscope.
    if not need_ctf and _VOLTAGE in values and not is_set(values[_VOLTAGE]):
        return Optics(pixel_size)
    return Optics(
        pixel_size=pixel_size,
        voltage=_number(where, values, _VOLTAGE, *_VOLTAGES, "kV"),
        spherical_aberration=_number(where, values, _CS, -100, 100, "mm"),
        amplitude_contrast=_number(where, values, _AMPLITUDE, -1, 1, "as a fraction"),
    )


def _pixel_size(where: str, values: Mapping[str, str]) -> float | None:
    """Å per pixel of the micrograph; None where the values do not say."""
    smallest = math.ulp(0.0)
    for label in _PIXEL_SIZES:
        if label in values:
            return _number(where, values, label, smallest, _LARGEST_PIXEL, "Å, above 0")
    if _DETECTOR in values and _MAGNIFICATION in values:
        detector = _number(where, values, _DETECTOR, smallest, math.inf, "micrometres, above 0")
        magnification = _number(where, values, _MAGNIFICATION, smallest, math.inf, "above 0")
        if detector is not None and magnification is not None:
            return detector * _ANGSTROM_PER_MICROMETRE / magnification
    return None


def _number(where: str, values: Mapping[str, str], label: str, low: float, high: float, unit: str) -> float | None:
    """One value in its range; None where the label is missing."""
    if label not in values:
        return None
    try:
        number = float(values[label])
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise DataError(f"{where}: {label} is {values[label]}; expected a number {_range(low, high, unit)}")
    return number


def _range(low: float, high: float, unit: str) -> str:
    if "above" in unit:
        return f"({unit})"
    return f"from {low:g} to {high:g} ({unit})"
