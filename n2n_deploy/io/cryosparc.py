"""cryoSPARC exposure tables (.cs) as RELION tables: the same micrographs, optics and CTF in a STAR document.

A .cs file is a NumPy structured array with a row for each exposure and a column for each field of its slots, such as
`ctf/df1_A`. A job writes the slots that it changed to its main file and the others to a second file beside it, the
passthrough; both are read and joined by `uid`, whichever of the two is given. Fields and units follow cryosparc-tools
and pyem's csparc2star (angles are in radians here and in degrees in RELION; both have defocus in Å and the same axes).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.star_frames import star_text

PATHS = ("micrograph_blob/path", "micrograph_blob_non_dw/path")
"""Fields with the micrographs' paths; the first that there is counts."""

_DEFOCUS = ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad")
_PHASE_SHIFT, _FIT = "ctf/phase_shift_rad", "ctf/ctf_fit_to_A"
_OPTICS = {
    "rlnVoltage": ("ctf/accel_kv", "mscope_params/accel_kv"),
    "rlnSphericalAberration": ("ctf/cs_mm", "mscope_params/cs_mm"),
    "rlnAmplitudeContrast": ("ctf/amp_contrast",),
}
_GROUP = ("ctf/exp_group_id", "mscope_params/exp_group_id")
_COMPRESSED = b"\x94CSDAT"
_DIGITS = 7
"""Significant digits of a float32, which is what cryoSPARC stores."""

_TERMS = {
    "rlnMicrographName": PATHS[0],
    "rlnMicrographPixelSize": "micrograph_blob/psize_A",
    "rlnDefocusU": _DEFOCUS[0],
    "rlnDefocusV": _DEFOCUS[1],
    "rlnDefocusAngle": _DEFOCUS[2],
    "rlnPhaseShift": _PHASE_SHIFT,
    **{label: names[0] for label, names in _OPTICS.items()},
}
"""cryoSPARC's names of RELION's labels, for messages."""


def is_cryosparc(path: Path) -> bool:
    """Whether a name is that of a cryoSPARC table."""
    return path.suffix == ".cs"


def read_cryosparc(path: Path) -> StarDocument:
    """Read an exposure table as a RELION 3.1 document, with an optics group for each set of optics.

    Args:
        path: a .cs file of exposures or micrographs, the main file or the passthrough of a job.

    Raises:
        DataError: it is not such a table, or lacks the micrographs' paths or pixel sizes.
    """
    fields = _Fields(path)
    name = fields.first(*PATHS)
    if name is None:
        raise DataError(
            f"{path}: has no {PATHS[0]}, nor has {fields.looked_in}; give the .cs file of exposures after motion "
            "correction, not of particles or movies"
        )
    size_field = name.replace("/path", "/psize_A")
    pixel_size = fields[size_field]
    if pixel_size is None:
        raise DataError(f"{path}: has no {size_field}, nor has {fields.looked_in}; export the exposures again")
    optics = {"rlnMicrographPixelSize": pixel_size, "rlnMicrographOriginalPixelSize": pixel_size}
    for label, names in _OPTICS.items():
        found = fields.first(*names)
        if found is not None:
            optics[label] = fields[found]
    exposure_groups = fields.first(*_GROUP)
    keys = [fields[exposure_groups]] if exposure_groups else []
    micrographs: dict[str, Any] = {"rlnMicrographName": [_name(value) for value in fields[name]]}
    groups, group_of = np.unique(
        np.stack([*map(np.float64, keys), *(_written(column) for column in optics.values())], axis=1),
        axis=0,
        return_inverse=True,
    )
    micrographs["rlnOpticsGroup"] = group_of.reshape(-1) + 1
    if all(fields[field] is not None for field in _DEFOCUS):
        first, second, angle = (fields[field] for field in _DEFOCUS)
        micrographs |= {"rlnDefocusU": first, "rlnDefocusV": second, "rlnDefocusAngle": np.degrees(angle)}
        if (shift := fields[_PHASE_SHIFT]) is not None:
            micrographs["rlnPhaseShift"] = np.degrees(shift)
        if (fit := fields[_FIT]) is not None:
            micrographs["rlnCtfMaxResolution"] = fit
    group_rows = {
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in range(1, len(groups) + 1)],
        "rlnOpticsGroup": range(1, len(groups) + 1),
        **{label: groups[:, len(keys) + index] for index, label in enumerate(optics)},
    }
    return StarDocument(path, star_text(_loop("optics", group_rows), _loop("micrographs", micrographs)), _TERMS)


def joined_exposures(path: Path) -> npt.NDArray[Any]:
    """Return an exposure table with the columns that only its passthrough has, or the main files of a passthrough.

    Raises:
        DataError: it is not a cryoSPARC table.
    """
    return _Fields(path).joined()


class _Fields:
    """The columns of an exposure table and of the files that belong to it, rows matched by uid.

    Attributes:
        looked_in: the other files, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._table = _load(path)
        self._others: list[npt.NDArray[Any]] = []
        self.looked_in = "another .cs file beside it with the same exposures"
        if "uid" not in self._names(self._table):
            return
        joined = []
        for other in _companions(path):
            try:
                table = _load(other)
            except DataError:
                joined.append(f"{other.name}, which cannot be read")
                continue
            if "uid" not in self._names(table):
                continue
            order = np.argsort(table["uid"])
            place = np.searchsorted(table["uid"], self._table["uid"], sorter=order)
            rows = order[np.minimum(place, len(order) - 1)]
            if np.array_equal(table["uid"][rows], self._table["uid"]):
                self._others.append(table[rows])
                joined.append(other.name)
        if joined:
            self.looked_in = " or ".join(joined)

    def __getitem__(self, field: str) -> Any:
        """A column; None where no file has it."""
        for table in (self._table, *self._others):
            if field in self._names(table):
                return table[field]
        return None

    def joined(self) -> npt.NDArray[Any]:
        """All columns as one table."""
        sources = {field: table for table in reversed((self._table, *self._others)) for field in self._names(table)}
        own = self._names(self._table)
        order = [*own, *(field for field in sources if field not in own)]
        whole = np.empty(len(self._table), [(field, sources[field].dtype[field]) for field in order])
        for field in order:
            whole[field] = sources[field][field]
        return whole

    def first(self, *fields: str) -> str | None:
        """The first of these fields that there is."""
        return next((field for field in fields if self[field] is not None), None)

    @staticmethod
    def _names(table: npt.NDArray[Any]) -> tuple[str, ...]:
        return table.dtype.names or ()


def _companions(path: Path) -> Iterable[Path]:
    """The files that may hold the other slots: of a main file its passthrough, of a passthrough the main files."""
    tables = sorted(path.parent.glob("*.cs"))
    return [other for other in tables if _is_passthrough(other) != _is_passthrough(path)]


def _is_passthrough(path: Path) -> bool:
    return "passthrough" in path.name


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            if file.read(len(_COMPRESSED)) == _COMPRESSED:
                raise DataError(
                    f"{path}: is in cryoSPARC's compressed format; save it as NumPy (cryosparc-tools: "
                    "dataset.save(path, format=NUMPY_FORMAT)), or export the exposures from cryoSPARC"
                )
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; give the path of a .cs file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); give a .cs file of exposures") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a cryoSPARC table ({error}); give a .cs file of exposures") from error
    if not isinstance(table, np.ndarray) or not table.dtype.names:
        raise DataError(f"{path}: is not a cryoSPARC table, it has no named columns; give a .cs file of exposures")
    if not len(table):
        raise DataError(f"{path}: has no rows; give a table with exposures")
    return table.reshape(-1)


def _name(value: bytes | str) -> str:
    """A path as cryoSPARC stores it, relative to the project folder; ">" marks a file that it manages itself."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return text.removeprefix(">")


def _written(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Numbers as they will be written, so that groups differ only where their text does."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in column])


def _loop(block: str, columns: Mapping[str, Iterable[Any]]) -> tuple[str, list[str], list[list[str]]]:
    rows = zip(*columns.values(), strict=True)
    return block, list(columns), [[_text(value) for value in row] for row in rows]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.{_DIGITS}g}"
