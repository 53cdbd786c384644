"""Small STAR files to read and to damage.

A module's tests are in the file of its name, or by theme: `test_star_read` and `test_star_write` test star,
micrograph_table, micrograph_rows, micrograph_names, star_document and star_text; `test_optics_groups` also tests
read_options; `test_mrc_read`, `test_mrc_write` and `test_mrc_stack` test mrc, mrc_header, mrc_output and other_formats.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from star_builder import star_loop

OPTICS = star_loop(
    "optics",
    {
        "rlnOpticsGroupName": ["first", "second"],
        "rlnOpticsGroup": [1, 2],
        "rlnMicrographOriginalPixelSize": [0.425, 0.655],
        "rlnVoltage": [300.0, 200.0],
        "rlnSphericalAberration": [2.7, 1.4],
        "rlnAmplitudeContrast": [0.1, 0.07],
        "rlnMicrographPixelSize": [0.85, 1.31],
    },
)
MICROGRAPHS = star_loop(
    "micrographs",
    {
        "rlnMicrographName": [f"Movies/{name}_DW.mrc" for name in "abc"],
        "rlnOpticsGroup": [1, 2, 1],
        "rlnDefocusU": [10000.5, 20000.5, 15000.5],
        "rlnDefocusV": [9000.25, 19000.25, 14000.25],
        "rlnDefocusAngle": [30.0, -30.0, 0.0],
        "rlnPhaseShift": [90.0, 0.0, 45.0],
    },
)


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
