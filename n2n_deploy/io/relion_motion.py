"""RELION's table of one movie's motion (`rlnMicrographMetadata`), as its motion correction and MotionCor3 write it.

Blocks: `general` (what was aligned, and with what), `global_shift` (a shift for each frame), `local_motion_model` (36
coefficients: 18 for x, then 18 for y) and `hot_pixels` (pixels that RELION treated as defects). RELION's source:
`micrograph_model.cpp`.

A model that was fitted to binned frames (`--early_binning`, RELION's default since 3.1) has coefficients in binned
pixels, while shifts are always in unbinned ones; the coefficients are scaled to unbinned pixels here.
"""

import math
from pathlib import Path

import numpy as np

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.motion import COEFFICIENTS, Floats, Motion
from n2n_deploy.io.star_document import StarDocument, StarTable

_FRAME, _X, _Y = "rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"
_INDEX, _COEFFICIENT = "rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"
_HOT = ("rlnCoordinateX", "rlnCoordinateY")
_NOT_OBSERVED = -9999.0
_POLYNOMIAL = 1
_SIZES = ("rlnImageSizeX", "rlnImageSizeY", "rlnImageSizeZ")
_ORIGINAL_SIZES = ("rlnMicrographOriginalPixelSize", "rlnOriginalPixelSize")
_STARTS = ("rlnMicrographStartFrame", "rlnMincrographStartFrame")
"""MotionCor3 spells two labels in its own way."""


def read_relion_motion(path: Path) -> Motion:
    """Read the motion of one movie.

    Raises:
        DataError: a block or label is missing, a value is not a number, or the table contradicts itself.
    """
    document = StarDocument.read(path)
    blocks = {table.block: table for table in document.tables}
    if "general" not in blocks or "global_shift" not in blocks:
        raise DataError(
            f"{path}: has no data_general and data_global_shift; give the table that rlnMicrographMetadata names, one "
            "for each movie"
        )
    general = _General(document, blocks["general"])
    width, height, frames = (int(general.number(label)) for label in _SIZES)
    binning = general.number("rlnMicrographBinning", 1.0)
    local = None
    if general.number("rlnMotionModelVersion", 0.0) == _POLYNOMIAL and "local_motion_model" in blocks:
        local = _coefficients(document, blocks["local_motion_model"]) * binning
    hot = None
    if "hot_pixels" in blocks and len(blocks["hot_pixels"]):
        hot = np.stack(_floats(document, blocks["hot_pixels"], _HOT), axis=1).astype(np.intp)
    grouping, upsampling = general.number("rlnEERGrouping", 0.0), general.number("rlnEERUpsampling", 0.0)
    return Motion(
        path,
        _shifts(document, blocks["global_shift"], frames),
        local,
        start=int(general.first(_STARTS) or 1),
        shape=(height, width),
        hot_pixels=hot,
        movie=general.text("rlnMicrographMovieName"),
        gain=general.text("rlnMicrographGainName"),
        defects=general.text("rlnMicrographDefectFile"),
        binning=binning,
        pixel_size=general.first(_ORIGINAL_SIZES),
        dose_per_frame=general.first(("rlnMicrographDoseRate",)),
        pre_exposure=general.first(("rlnMicrographPreExposure",)),
        voltage=general.first(("rlnVoltage",)),
        eer_grouping=int(grouping) if grouping > 0 else None,
        eer_upsampling=int(upsampling) if upsampling > 0 else None,
    )


class _General:
    """The values of the block `general`."""

    def __init__(self, document: StarDocument, table: StarTable) -> None:
        self._path = document.path
        self._values = {label: column[0] for label, column in document.columns(table, table.labels).items()}

    def text(self, label: str) -> str | None:
        """A value; None where it is missing or RELION's empty name."""
        found = self._values.get(label, "")
        return None if found in ("", "None") else found

    def number(self, label: str, default: float = math.nan) -> float:
        """A number, or the default where the label is missing; without default it must be there."""
        found = self.text(label)
        if found is None and not math.isnan(default):
            return default
        try:
            return float(found or "")
        except ValueError as error:
            raise DataError(
                f"{self._path}: {label} is {found}; expected a number, run the motion correction again"
            ) from error

    def first(self, labels: tuple[str, ...]) -> float | None:
        """The first of these labels that there is; None without one, and where RELION writes −1 for unknown."""
        for label in labels:
            if self.text(label) is not None:
                found = self.number(label)
                return found if found >= 0 else None
        return None


def _floats(document: StarDocument, table: StarTable, labels: tuple[str, ...]) -> list[Floats]:
    columns = document.columns(table, labels)
    if missing := [label for label in labels if label not in columns]:
        raise DataError(f"{document.path}: data_{table.block} has no {missing[0]}; run the motion correction again")
    try:
        return [np.array(columns[label], np.float64) for label in labels]
    except ValueError as error:
        raise DataError(f"{document.path}: data_{table.block} has a value that is not a number ({error})") from error


def _shifts(document: StarDocument, table: StarTable, frames: int) -> Floats:
    numbers, x, y = _floats(document, table, (_FRAME, _X, _Y))
    shifts = np.full((frames, 2), np.nan)
    rows = numbers.astype(int) - 1
    if len(rows) and (rows.min() < 0 or rows.max() >= frames):
        raise DataError(
            f"{document.path}: data_global_shift lists frame {rows.max() + 1} of {frames}; the table is damaged"
        )
    shifts[rows, 0], shifts[rows, 1] = x, y
    shifts[(shifts == _NOT_OBSERVED).any(axis=1)] = np.nan
    return shifts


def _coefficients(document: StarDocument, table: StarTable) -> Floats:
    index, values = _floats(document, table, (_INDEX, _COEFFICIENT))
    if sorted(index) != list(range(2 * COEFFICIENTS)):
        raise DataError(
            f"{document.path}: data_local_motion_model has {len(index)} coefficients, expected {2 * COEFFICIENTS}; run "
            "the motion correction again"
        )
    ordered = np.empty(2 * COEFFICIENTS)
    ordered[index.astype(int)] = values
    return ordered.reshape(2, COEFFICIENTS)
