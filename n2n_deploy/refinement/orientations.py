"""Particle orientations as RELION's tables hold them, and which rows of two tables are the same particle."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import gemmi
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import DataError

_ANGLES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
_COORDINATES = ("_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY")
_BY_COORDINATES = "micrograph and coordinates"

_SHORTENED: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: PurePosixPath(name).stem,
    lambda name: re.sub(r"([_.-][A-Za-z]+)+$", "", PurePosixPath(name).stem),
)
"""Micrographs' names: whole, without the ending (.tiff, .mrc), and without words of processing (_DW, _denoised). Words
with digits stay: they tell micrographs apart."""

NEAR = 10.0
"""Pixels of the micrograph that one particle may lie apart in two tables: extracting anew may centre it anew."""


@dataclass(frozen=True, slots=True)
class Orientations:
    """The particles of one table.

    Attributes:
        path: the table.
        euler: (n, 3) degrees: rlnAngleRot, rlnAngleTilt, rlnAnglePsi.
        names: by each way of telling particles apart that this table's columns allow, n names.
        micrographs: n file names without folders; empty where the table has none, or no coordinates.
        coordinates: (n, 2) x, y in pixels of the micrograph; (0, 2) where there are none.
    """

    path: Path
    euler: np.ndarray
    names: dict[str, list[str]]
    micrographs: list[str]
    coordinates: np.ndarray


def euler_to_rotation(euler: np.ndarray) -> Rotation:
    """Turn RELION's angles into the rotations that take the view (the camera's frame) to the reference map.

    RELION's matrix A(rot, tilt, psi) takes the reference to the view: a passive rotation by rot about z, tilt
    about the new y and psi about the new z. Its inverse is the intrinsic active "ZYZ" rotation by the same
    angles, which is what is returned. A symmetry operation of the map therefore multiplies from the left.

    Args:
        euler: (n, 3) or (3,) degrees: rot, tilt, psi.
    """
    return Rotation.from_euler("ZYZ", euler, degrees=True)


def read_orientations(path: Path) -> Orientations:
    """Read the orientations of a RELION particle table, of version 1 to 5.

    Raises:
        DataError: the file cannot be read as STAR, no table in it has the three angles and something that
            tells particles apart, an angle is no finite number, or the table is empty.
    """
    try:
        document = gemmi.cif.read(str(path))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a STAR file: {reason}") from error
    blocks = [block for block in document if any(block.find_values(label) for label in _ANGLES)]
    if not blocks:
        labels = ", ".join(label.removeprefix("_") for label in _ANGLES)
        raise DataError(f"{path}: no table in it has particles with {labels}; give the *_data.star of a refinement")
    block = next((block for block in blocks if block.name == "particles"), blocks[0])
    euler = np.column_stack([_numbers(path, block, label) for label in _ANGLES])
    micrographs, coordinates = _positions(path, block)
    names = _names(block, micrographs, coordinates)
    if not names:
        raise DataError(
            f"{path}: nothing tells its particles apart; expected rlnImageName, rlnTomoParticleName, or"
            " rlnMicrographName with rlnCoordinateX and rlnCoordinateY"
        )
    return Orientations(Path(path), euler, names, micrographs, coordinates)


def match(a: Orientations, b: Orientations) -> tuple[np.ndarray, np.ndarray, str]:
    """Find the particles that both tables have.

    Particles are told apart by image name (rlnImageName), by rlnTomoParticleName, by the file name of the micrograph
    and the coordinates (those that are nearest to each other, up to `NEAR`), or by the image's file name without
    folders, which serve particles that were extracted twice. That counts which finds the most; of equals, the first.
    Two projects may give one name to different particles: where both tables have coordinates, these must agree, and
    the micrographs too. Micrographs may differ in ending and words of processing (mic_1.tiff, mic_1_DW.mrc).

    Returns:
        The rows of `a`, the same particles' rows of `b`, and what matched them.

    Raises:
        DataError: a particle occurs twice in a table, or the tables share none.
    """
    looked: list[str] = []
    found: list[tuple[np.ndarray, np.ndarray, str]] = []
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
            # Without their folders, the images of two particles may have one name.
            looked.append(f"{kind}, but two particles have the same")
            continue
        else:
            rows, others = _same_names(a.names[kind], b.names[kind])
        if len(rows) and len(a.coordinates) and len(b.coordinates):
            apart = np.linalg.norm(a.coordinates[rows] - b.coordinates[others], axis=1) > NEAR
            here, there = micrographs[0][rows], micrographs[1][others]
            # Micrographs that the other table does not have may be the same under a name we cannot read.
            apart |= (here != there) & (np.isin(here, micrographs[1]) | np.isin(there, micrographs[0]))
            if apart.mean() > 0.5:
                looked.append(f"{kind}, but {apart.sum()} of {len(rows)} have another micrograph or other coordinates")
                continue
            rows, others = rows[~apart], others[~apart]
        if len(rows):
            found.append((rows, others, kind))
        looked.append(kind)
    if found:
        return max(found, key=lambda each: len(each[0]))
    tried = "; ".join(looked) or f"{' or '.join(a.names)} in one, {' or '.join(b.names)} in the other"
    raise DataError(f"{a.path} and {b.path} share no particle (looked at: {tried}); give two tables of the same ones")


def _refuse_duplicates(table: Orientations, kind: str) -> None:
    name, count = Counter(table.names[kind]).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{table.path}: {name} occurs {count} times; each particle may occur once, so give the"
            " table before symmetry expansion, and without duplicates"
        )


def _same_names(a: list[str], b: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `a` and `b` with names that both have."""
    places = {name: row for row, name in enumerate(b)}
    pairs = [(row, places[name]) for row, name in enumerate(a) if name in places]
    rows, others = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return rows, others


def _micrograph_numbers(a: list[str], b: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Number the micrographs so that one number is one micrograph in both tables, by the longest names they share."""
    whole = set(a), set(b)
    for shorten in _SHORTENED:
        short = [{name: shorten(name) for name in names} for names in whole]
        told_apart = all(len(set(names.values())) == len(names) for names in short)
        if told_apart and not set(short[0].values()).isdisjoint(short[1].values()):
            break
    else:
        short = [{name: name for name in names} for names in whole]
    numbers = {name: number for number, name in enumerate({*short[0].values(), *short[1].values()})}
    first, second = (
        np.array([numbers[names[name]] for name in table], dtype=np.intp)
        for names, table in zip(short, (a, b), strict=True)
    )
    return first, second


def _nearest(
    a: Orientations, b: Orientations, micrographs: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of particles that are nearest to each other on one micrograph, up to `NEAR`."""
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


def _rows_of_each(numbers: np.ndarray) -> dict[int, np.ndarray]:
    """Rows by number, all in one sort: a table may have a million particles on ten thousand micrographs."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _positions(path: Path, block: gemmi.cif.Block) -> tuple[list[str], np.ndarray]:
    """Micrographs' file names without folders, and coordinates (n, 2); none where a column is missing."""
    if not all(block.find_values(label) for label in _COORDINATES):
        return [], np.empty((0, 2))
    micrographs = [PurePosixPath(name).name for name in _strings(block, _COORDINATES[0])]
    return micrographs, np.column_stack([_numbers(path, block, label) for label in _COORDINATES[1:]])


def _names(block: gemmi.cif.Block, micrographs: list[str], coordinates: np.ndarray) -> dict[str, list[str]]:
    """Name the particles in every way the columns allow, the most trustworthy first."""
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
    """Split `000012@stack.mrcs` into 12 and the stack, so that the width of the number does not matter."""
    index, at, stack = text.partition("@")
    return (int(index), stack) if at and index.isdigit() else (None, text)


def _strings(block: gemmi.cif.Block, label: str) -> list[str]:
    return [gemmi.cif.as_string(value) for value in block.find_values(label)]


def _numbers(path: Path, block: gemmi.cif.Block, label: str) -> np.ndarray:
    values = _strings(block, label)
    name = label.removeprefix("_")
    if not values:
        lacks = "no rows" if block.find_loop(label) else f"no column {name}"
        raise DataError(f"{path}: the table data_{block.name} has {lacks}; give the *_data.star of a refinement")
    for row, value in enumerate(values):
        try:
            finite = np.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            raise DataError(f"{path}: {name} of row {row + 1} is {value!r}; expected a number")
    return np.array(values, dtype=np.float64)
