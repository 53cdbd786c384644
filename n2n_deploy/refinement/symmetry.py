"""Point groups by name, with their axes where RELION puts them.

RELION's `--sym I` is I2. SciPy's groups agree with RELION's except for two: SciPy's T has its two-fold axes
on x, y and z where RELION has a three-fold on z, and SciPy's I is RELION's I1. The tests compare every group
with what `relion_particle_symmetry_expand` does.
"""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import UsageError

_FIVE_FOLD = float(np.degrees(np.arctan(2.0 / (1.0 + np.sqrt(5.0)))))
"""Angle in degrees between a two-fold axis of the icosahedron and the nearest five-fold axis."""

_TURNS: dict[str, Rotation] = {
    "T": Rotation.from_euler("zx", [-135.0, -np.degrees(np.arctan(np.sqrt(2.0)))], degrees=True),
    "I2": Rotation.from_euler("z", 90.0, degrees=True),
    "I3": Rotation.from_euler("zy", [90.0, -_FIVE_FOLD], degrees=True),
    "I4": Rotation.from_euler("zy", [90.0, _FIVE_FOLD], degrees=True),
}
"""What turns SciPy's group of the same letter into RELION's setting of it."""


def point_group(name: str) -> Rotation:
    """Return the rotations of a point group, the identity among them, in RELION's setting.

    Args:
        name: C1, C2, …, D1, D2, …, T, O, I (RELION's: I2), I1, I2, I3 or I4; upper or lower case.

    Raises:
        UsageError: the name is none of these. Groups with mirrors (Cnv, Dnh, Td, Oh, Ih, …) are among the
            refused: a mirror image is no rotation, and proteins have none.
    """
    key = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9][0-9]{0,2}|T|O|I[1-4]?", key):
        raise UsageError(
            f"symmetry {name!r} is not known; give C1, C2, …, D1, D2, …, T, O, I1, I2, I3, I4 or I"
            " (which is I2, as in RELION)"
        )
    if key == "I":
        key = "I2"
    # SciPy's stubs know no more of the names than their first letters.
    group: Rotation = Rotation.create_group("I" if key.startswith("I") else key)  # type: ignore[arg-type]
    turn = _TURNS.get(key)
    return group if turn is None else turn * group * turn.inv()
