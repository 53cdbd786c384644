"""Particle orientations as RELION's tables hold them, and which rows of two tables are the same particle."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from n2n_deploy.errors import DataError

_ANGLES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
_COORDINATES = ("_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY")


@dataclass(frozen=True, slots=True)
class Orientations:
    """The particles of one table.

    Attributes:
        path: the table.
        euler: (n, 3) degrees: rlnAngleRot, rlnAngleTilt, rlnAnglePsi.
        names: by each way of telling particles apart that this table's columns allow, n names.
    """

    path: Path
    euler: np.ndarray
    names: dict[str, list[str]]


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
    names = _names(path, block)
    if not names:
        raise DataError(
            f"{path}: nothing tells its particles apart; expected rlnImageName, rlnTomoParticleName, or"
            " rlnMicrographName with rlnCoordinateX and rlnCoordinateY"
        )
    return Orientations(Path(path), euler, names)


def match(a: Orientations, b: Orientations) -> tuple[np.ndarray, np.ndarray, str]:
    """Find the particles that both tables have.

    Particles are told apart by image name (rlnImageName), else by rlnTomoParticleName, else by the file name
    of the micrograph and the coordinates, else by the image's file name without folders: the first of these
    that both tables have and that matches any. The later ones serve particles that were extracted twice.

    Returns:
        The rows of `a`, the same particles' rows of `b`, and what matched them.

    Raises:
        DataError: a particle occurs twice in a table, or the tables share none.
    """
    tried = []
    for kind in a.names:
        if kind not in b.names:
            continue
        tried.append(kind)
        places = []
        for table in (a, b):
            name, count = Counter(table.names[kind]).most_common(1)[0]
            if count > 1:
                raise DataError(
                    f"{table.path}: {name} occurs {count} times; each particle may occur once, so give the"
                    " table before symmetry expansion, and without duplicates"
                )
            places.append({name: row for row, name in enumerate(table.names[kind])})
        common = [name for name in places[0] if name in places[1]]
        if common:
            rows = [np.array([place[name] for name in common]) for place in places]
            return rows[0], rows[1], kind
    looked = " or ".join(tried) or f"{' or '.join(a.names)} in one, {' or '.join(b.names)} in the other"
    raise DataError(f"{a.path} and {b.path} share no particle (looked at: {looked}); give two tables of the same ones")


def _names(path: Path, block: gemmi.cif.Block) -> dict[str, list[str]]:
    """Name the particles in every way the columns allow, the most trustworthy first."""
    images = [_image(text) for text in _strings(block, "_rlnImageName")]
    names = {
        "image name": [f"{index}@{stack}" if index else stack for index, stack in images],
        "rlnTomoParticleName": _strings(block, "_rlnTomoParticleName"),
    }
    if all(block.find_values(label) for label in _COORDINATES):
        micrographs = _strings(block, _COORDINATES[0])
        x, y = (_numbers(path, block, label) for label in _COORDINATES[1:])
        names["micrograph and coordinates"] = [
            f"{PurePosixPath(micrograph).name} at ({cx:.2f}, {cy:.2f})"
            for micrograph, cx, cy in zip(micrographs, x, y, strict=True)
        ]
    names["image file name"] = [
        f"{index}@{PurePosixPath(stack).name}" if index else PurePosixPath(stack).name for index, stack in images
    ]
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
        raise DataError(f"{path}: the table data_{block.name} has no column {name}, or no rows")
    for row, value in enumerate(values):
        try:
            finite = np.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            raise DataError(f"{path}: {name} of row {row + 1} is {value!r}; expected a number")
    return np.array(values, dtype=np.float64)
