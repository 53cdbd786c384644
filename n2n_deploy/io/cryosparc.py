"""cryoSPARC exposure tables (.cs) told as RELION's: the same micrographs, optics and CTF in a STAR document.

A .cs file is a NumPy structured array with a row for each exposure and a column for each field of its slots, such as
`ctf/df1_A`. Slots that a job did not change lie in a second file beside it, the passthrough, and are joined by `uid`.
Fields and units: cryosparc-tools and pyem's csparc2star, which RELION users know (angles in radians here, in degrees
there; defocus in Å and the same axis convention in both).
"""

from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.star_document import StarDocument, quoted

_PATHS = ("micrograph_blob/path", "micrograph_blob_non_dw/path")
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


def is_cryosparc(path: Path) -> bool:
    """Whether a name is that of a cryoSPARC table."""
    return path.suffix == ".cs"


def read_cryosparc(path: Path) -> StarDocument:
    """Read an exposure table as a RELION 3.1 document, an optics group for each set of optics.

    Args:
        path: a .cs file of exposures or micrographs; passthrough files beside it are read where it lacks fields.

    Raises:
        DataError: it is no such table, or lacks the micrographs' paths or pixel sizes.
    """
    fields = _Fields(path)
    name = fields.first(*_PATHS)
    if name is None:
        raise DataError(
            f"{path}: has no micrograph_blob/path, nor has a passthrough file beside it; give the .cs file of "
            "exposures after motion correction, not of particles or movies"
        )
    pixel_size = fields[name.replace("/path", "/psize_A")]
    if pixel_size is None:
        raise DataError(f"{path}: has no {name.replace('/path', '/psize_A')}; export the exposures again")
    optics = {"rlnMicrographPixelSize": pixel_size, "rlnMicrographOriginalPixelSize": pixel_size}
    for label, names in _OPTICS.items():
        found = fields.first(*names)
        if found is not None:
            optics[label] = fields[found]
    exposure_groups = fields.first(*_GROUP)
    keys = [fields[exposure_groups]] if exposure_groups else []
    micrographs: dict[str, Any] = {"rlnMicrographName": [_name(value) for value in fields[name]]}
    groups, micrographs["rlnOpticsGroup"] = np.unique(
        np.stack([*map(np.float64, keys), *(_written(column) for column in optics.values())], axis=1),
        axis=0,
        return_inverse=True,
    )
    micrographs["rlnOpticsGroup"] = micrographs["rlnOpticsGroup"].reshape(-1) + 1
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
    return StarDocument(path, _loop("optics", group_rows) + _loop("micrographs", micrographs))


class _Fields:
    """The columns of an exposure table, and of the passthrough files beside it, rows matched by uid."""

    def __init__(self, path: Path) -> None:
        self._table = _load(path)
        self._others: list[Any] = []
        if "uid" not in self._names(self._table):
            return
        for other in sorted(path.parent.glob("*passthrough*.cs")):
            table = _load(other) if other != path else None
            if table is not None and "uid" in self._names(table):
                order = np.argsort(table["uid"])
                place = np.searchsorted(table["uid"], self._table["uid"], sorter=order)
                rows = order[np.minimum(place, len(order) - 1)]
                if np.array_equal(table["uid"][rows], self._table["uid"]):
                    self._others.append(table[rows])

    def __getitem__(self, field: str) -> Any:
        """A column; None where no file has it."""
        for table in (self._table, *self._others):
            if field in self._names(table):
                return table[field]
        return None

    def first(self, *fields: str) -> str | None:
        """The first of these that is there."""
        return next((field for field in fields if self[field] is not None), None)

    @staticmethod
    def _names(table: Any) -> tuple[str, ...]:
        return table.dtype.names or ()


def _load(path: Path) -> Any:
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
        raise DataError(f"{path}: is no cryoSPARC table ({error}); give a .cs file of exposures") from error
    if not isinstance(table, np.ndarray) or not table.dtype.names:
        raise DataError(f"{path}: is no cryoSPARC table, it has no named columns; give a .cs file of exposures")
    if not len(table):
        raise DataError(f"{path}: has no rows; give a table with exposures")
    return table.reshape(-1)


def _name(value: Any) -> str:
    """A path as cryoSPARC knows it, relative to the project folder; ">" marks one that it manages itself."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return text.removeprefix(">")


def _written(column: Any) -> Any:
    """Numbers as they will be written, so that groups differ only where their text does."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in column])


def _loop(block: str, columns: dict[str, Any]) -> str:
    labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(columns, 1))
    rows = "\n".join(" ".join(map(_text, row)) for row in zip(*columns.values(), strict=True))
    return f"\n# version 30001\n\ndata_{block}\n\nloop_\n{labels}{rows}\n"


def _text(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else f"{value:.{_DIGITS}g}"
