"""`Micrograph`: where the images of one micrograph are, and how they were taken."""

from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.imaging.ctf import CTFParameters, Optics


@dataclass(frozen=True, slots=True)
class Micrograph:
    """One row of a micrograph table.

    Attributes:
        name: `rlnMicrographName`, of a tilt image after the name of its series; outputs mirror its folders.
        path: the dose-weighted sum, resolved against the project directory or the table's folder.
        optics: pixel size, and voltage, spherical aberration and amplitude contrast where known.
        ctf: defocus and phase shift; None where the table has none (phase flipping is then impossible).
        even: the sum of the even frames, where there is one.
        odd: the sum of the odd frames, where there is one.
        row: index of the row in the table.
    """

    name: str
    path: Path
    optics: Optics
    ctf: CTFParameters | None = None
    even: Path | None = None
    odd: Path | None = None
    row: int = 0
