"""Particle orientations from RELION's tables, and the rows of two tables that are the same particle."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import DataError

Rows = NDArray[np.intp]

_ANGLES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
_COORDINATES = ("_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY")
_BY_COORDINATES = "micrograph and coordinates"

_SHORTENED: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: PurePosixPath(name).stem,
    lambda name: re.sub(r"([_.-][A-Za-z]+)+$", "", PurePosixPath(name).stem),
)
"""Micrographs' names: in full, without extension (.tiff, .mrc), and without processing suffixes (_DW, _denoised).
Suffixes with digits are kept, because they distinguish micrographs."""

NEAR = 10.0
"""Pixels of the micrograph by which one particle's coordinates may differ: re-extraction may recentre particles."""


@dataclass(frozen=True, slots=True)
class Orientations:
    """The particles of one table.

    Attributes:
        path: the table.
        euler: (n, 3) degrees: rlnAngleRot, rlnAngleTilt, rlnAnglePsi.
        names: (n,) names of the particles, by each kind of name that the table's columns allow.
        micrographs: (n,) file names without folders; empty if the table lacks them or the coordinates.
        coordinates: (n, 2) x, y in pixels of the micrograph; (0, 2) if there are none.
    """

    path: Path
    euler: NDArray[np.float64]
    names: dict[str, list[str]]
    micrographs: list[str]
    coordinates: NDArray[np.float64]


def euler_to_rotation(euler: NDArray[np.float64]) -> Rotation:
    """Convert RELION's angles to the rotations from the view (the camera's frame) to the reference map.

    RELION's matrix A(rot, tilt, psi) maps the reference to the view: a passive rotation by rot about z, tilt about
    the new y and psi about the new z. This function returns its inverse, the intrinsic active "ZYZ" rotation by the
    same angles, so a symmetry operation of the map multiplies from the left.

    Args:
        euler: (n, 3) or (3,) degrees: rot, tilt, psi.
    """
    return Rotation.from_euler("ZYZ", euler, degrees=True)


def read_orientations(path: Path) -> Orientations:
    """Read the orientations of a RELION particle table, of version 1 to 5.

    Raises:
        DataError: the file is not a readable STAR file, no table in it has the three angles and names or
            coordinates of particles, an angle is not a finite number, or the table is empty.
    """
    try:
        document = gemmi.cif.read(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a STAR file: {reason}") from error
    blocks = [block for block in document if any(block.find_values(label) for label in _ANGLES)]
    if not blocks:
        labels = ", ".join(label.removeprefix("_") for label in _ANGLES)
        raise DataError(f"{path}: has no table of particles with {labels}; expected the *_data.star of a refinement")
    block = next((block for block in blocks if block.name == "particles"), blocks[0])
    euler = np.column_stack([_numbers(path, block, label) for label in _ANGLES])
    micrographs, coordinates = _positions(path, block)
    names = _names(block, micrographs, coordinates)
    if not names:
        raise DataError(
            f"{path}: its particles cannot be identified; expected rlnImageName, rlnTomoParticleName, or"
            " rlnMicrographName with rlnCoordinateX and rlnCoordinateY"
        )
    return Orientations(Path(path), euler, names, micrographs, coordinates)


def match(a: Orientations, b: Orientations) -> tuple[Rows, Rows, str]:
    """Find the particles that both tables have.

    Particles are matched by image name (rlnImageName), by rlnTomoParticleName, by the file name of the micrograph and
    the coordinates (mutual nearest neighbours within `NEAR`), or by the image's file name without folders; the last
    two match particles that were extracted twice. The kind that matches most particles is used; of equals, the first.
    Two projects may give one name to different particles: if both tables have coordinates, these must agree, and so
    must the micrographs, apart from extension and processing suffixes (mic_1.tiff, mic_1_DW.mrc).

    Returns:
        The rows of `a`, the rows of the same particles in `b`, and the kind that matched them.

    Raises:
        DataError: a particle occurs twice in a table, or the tables share no particle.
    """
    looked: list[str] = []
    found: list[tuple[Rows, Rows, str]] = []
    micrographs = _micrograph_numbers(a.micrographs, b.micrographs)
    for kind in a.names:
        if kind not in b.names:
            continue
        if not looked:
            _refuse_duplicates(a, kind)
            _refuse_duplicates(b, kind)
        if kind == _BY_COORDINATES:
            rows, others = _nearest(a, b, micrographs)
        elif any(len(set(table.names[kind])) < len(table.names[kind]) for table in (a, b)):
            # Without folders, images of two particles may have the same name.
            looked.append(f"{kind}, but two particles have the same")
            continue
        else:
            rows, others = _same_names(a.names[kind], b.names[kind])
        if len(rows) and len(a.coordinates) and len(b.coordinates):
            apart = np.linalg.norm(a.coordinates[rows] - b.coordinates[others], axis=1) > NEAR
            here, there = micrographs[0][rows], micrographs[1][others]
            # A micrograph missing from the other table may be there under a name that cannot be recognised.
            apart |= (here != there) & (np.isin(here, micrographs[1]) | np.isin(there, micrographs[0]))
            if apart.mean() > 0.5:
                looked.append(f"{kind}, but {apart.sum()} of {len(rows)} have other micrographs or coordinates")
                continue
            rows, others = rows[~apart], others[~apart]
        if len(rows):
            found.append((rows, others, kind))
        looked.append(kind)
    if found:
        return max(found, key=lambda each: len(each[0]))
    tried = "; ".join(looked) or f"{' or '.join(a.names)} in one, {' or '.join(b.names)} in the other"
    raise DataError(
        f"{a.path} and {b.path} share no particle (compared by {tried}); expected two tables of the same particles"
    )


def _refuse_duplicates(table: Orientations, kind: str) -> None:
    name, count = Counter(table.names[kind]).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{table.path}: {name} occurs {count} times; expected each particle once, so use the"
            " table before symmetry expansion and without duplicates"
        )


def _same_names(a: list[str], b: list[str]) -> tuple[Rows, Rows]:
    """Rows of `a` and `b` with the same names."""
    places = {name: row for row, name in enumerate(b)}
    pairs = [(row, places[name]) for row, name in enumerate(a) if name in places]
    rows, others = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return rows, others


def _micrograph_numbers(a: list[str], b: list[str]) -> tuple[Rows, Rows]:
    """Number the micrographs alike in both tables, by the longest form of the names that the tables share."""
    whole = set(a), set(b)
    for shorten in _SHORTENED:
        short = [{name: shorten(name) for name in names} for names in whole]
        distinct = all(len(set(names.values())) == len(names) for names in short)
        if distinct and not set(short[0].values()).isdisjoint(short[1].values()):
            break
    else:
        short = [{name: name for name in names} for names in whole]
    numbers = {name: number for number, name in enumerate({*short[0].values(), *short[1].values()})}
    first, second = (
        np.array([numbers[names[name]] for name in table], dtype=np.intp)
        for names, table in zip(short, (a, b), strict=True)
    )
    return first, second


def _nearest(a: Orientations, b: Orientations, micrographs: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    """Rows of mutual nearest neighbours on each micrograph, within `NEAR`."""
    by_micrograph = [_rows_of_each(numbers) for numbers in micrographs]
    rows, others = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for number, here in by_micrograph[0].items():
        there = by_micrograph[1].get(number)
        if there is None:
            continue
        distance, partner = map(np.asarray, cKDTree(b.coordinates[there]).query(a.coordinates[here]))
        back = np.asarray(cKDTree(a.coordinates[here]).query(b.coordinates[there])[1])
        mutual = (back[partner] == np.arange(len(here))) & (distance <= NEAR)
        rows.append(here[mutual])
        others.append(there[partner[mutual]])
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], np.concatenate(others)[order]


def _rows_of_each(numbers: Rows) -> dict[int, Rows]:
    """Rows by number, in one sort: a table may have a million particles on ten thousand micrographs."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _positions(path: Path, block: gemmi.cif.Block) -> tuple[list[str], NDArray[np.float64]]:
    """Micrographs' file names without folders, and coordinates (n, 2); both empty if a column is missing."""
    if not all(block.find_values(label) for label in _COORDINATES):
        return [], np.empty((0, 2))
    micrographs = [PurePosixPath(name).name for name in _strings(block, _COORDINATES[0])]
    return micrographs, np.column_stack([_numbers(path, block, label) for label in _COORDINATES[1:]])


def _names(block: gemmi.cif.Block, micrographs: list[str], coordinates: NDArray[np.float64]) -> dict[str, list[str]]:
    """Name the particles by every kind that the columns allow, the most reliable first."""
    images = [_image(text) for text in _strings(block, "_rlnImageName")]
    names = {
        "image name": [f"{index}@{stack}" if index else stack for index, stack in images],
        "rlnTomoParticleName": _strings(block, "_rlnTomoParticleName"),
        _BY_COORDINATES: [
            f"{name} at ({x:.2f}, {y:.2f})" for name, (x, y) in zip(micrographs, coordinates, strict=True)
        ],
        "image file name": [
            f"{index}@{PurePosixPath(stack).name}" if index else PurePosixPath(stack).name for index, stack in images
        ],
    }
    return {kind: values for kind, values in names.items() if values}


def _image(text: str) -> tuple[int | None, str]:
    """Split `000012@stack.mrcs` into 12 and the stack, so that leading zeros do not matter."""
    index, at, stack = text.partition("@")
    return (int(index), stack) if at and index.isdigit() else (None, text)


def _strings(block: gemmi.cif.Block, label: str) -> list[str]:
    return [gemmi.cif.as_string(value) for value in block.find_values(label)]


def _numbers(path: Path, block: gemmi.cif.Block, label: str) -> NDArray[np.float64]:
    values = _strings(block, label)
    name = label.removeprefix("_")
    if not values:
        lacks = "no rows" if block.find_loop(label) else f"no column {name}"
        raise DataError(f"{path}: the table data_{block.name} has {lacks}; expected the *_data.star of a refinement")
    for row, value in enumerate(values):
        try:
            finite = np.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            raise DataError(f"{path}: {name} of row {row + 1} is {value!r}; expected a number")
    return np.array(values, dtype=np.float64)
