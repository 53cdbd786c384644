"""Small STAR files to read and damage."""

from collections.abc import Callable
from pathlib import Path

import pytest

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
first            1     0.425000   300.000000     2.700000     0.100000     0.850000
second           2     0.655000   200.000000     1.400000     0.070000     1.310000


# version 30001

"""
MICROGRAPHS = """data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
Movies/a_DW.mrc            1 10000.500000  9000.250000    30.000000    90.000000
Movies/b_DW.mrc            2 20000.500000 19000.250000   -30.000000     0.000000
Movies/c_DW.mrc            1 15000.500000 14000.250000     0.000000    45.000000

"""


@pytest.fixture
def star(tmp_path: Path) -> Callable[..., Path]:
    """Write the table above with some texts replaced, and return its path."""

    def write(*replacements: tuple[str, str], optics: str = OPTICS, micrographs: str = MICROGRAPHS) -> Path:
        text = optics + micrographs
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "micrographs.star"
        path.write_bytes(text.encode())
        return path

    return write
