"""Point groups by name, with the axes in RELION's orientation.

RELION's `--sym I` is I2. SciPy's groups agree with RELION's except for two: SciPy's T has two-fold axes on x, y and
z, RELION's T a three-fold axis on z; and SciPy's I is RELION's I1. The tests compare every group with the output of
`relion_particle_symmetry_expand`.
"""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from n2n_deploy.core.errors import UsageError

_FIVE_FOLD = float(np.degrees(np.arctan(2.0 / (1.0 + np.sqrt(5.0)))))
"""Angle in degrees between a two-fold axis of the icosahedron and the nearest five-fold axis."""

_TO_RELION: dict[str, Rotation] = {
    "T": Rotation.from_euler("zx", [-135.0, -np.degrees(np.arctan(np.sqrt(2.0)))], degrees=True),
    "I2": Rotation.from_euler("z", 90.0, degrees=True),
    "I3": Rotation.from_euler("zy", [90.0, -_FIVE_FOLD], degrees=True),
    "I4": Rotation.from_euler("zy", [90.0, _FIVE_FOLD], degrees=True),
}
"""Rotation from SciPy's setting of a group to RELION's."""


def point_group(name: str) -> Rotation:
    """Return the rotations of a point group, including the identity, in RELION's setting.

    Args:
        name: C1, C2, …, D1, D2, …, T, O, I (RELION's: I2), I1, I2, I3 or I4; upper or lower case.

    Raises:
        UsageError: the name is unknown. Groups with mirrors (Cnv, Dnh, Td, Oh, Ih, …) are refused, because a mirror
            image is not a rotation, and proteins have no mirror symmetry.
    """
    key = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9][0-9]{0,2}|T|O|I[1-4]?", key):
        raise UsageError(
            f"unknown symmetry {name!r}; use C1, C2, …, D1, D2, …, T, O, I1, I2, I3, I4 or I"
            " (which is I2, as in RELION)"
        )
    if key == "I":
        key = "I2"
    # SciPy's stubs list only the first letters of the names.
    group: Rotation = Rotation.create_group("I" if key.startswith("I") else key)  # type: ignore[arg-type]
    rotation = _TO_RELION.get(key)
    return group if rotation is None else rotation * group * rotation.inv()
