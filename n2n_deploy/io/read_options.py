"""`ReadOptions`: what a caller needs of the micrographs, and what it knows where table and headers are silent."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.core.errors import N2NError, UsageError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_names import HalfNames
from n2n_deploy.io.mrc_header import MRCHeader

Headers = Callable[[Sequence[Path]], Sequence[MRCHeader | N2NError]]
"""Reads the headers of files; an error takes the place of a header that cannot be read."""

LARGEST_PIXEL = 1e4  # Å
VOLTAGES = (1.0, 3000.0)  # kV; a value in volts would silently give a wrong wavelength
ABERRATIONS = (-100.0, 100.0)  # mm
AMPLITUDE_CONTRASTS = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How micrographs are read.

    Attributes:
        half_names: how the even and odd halves are named; wins over the table's own labels.
        need_ctf: every micrograph must have a CTF and must not be phase-flipped yet.
        need_halves: every micrograph must have even and odd halves.
        fallback: optics for tables and files that lack them; a pixel size of NaN and None mean "not given".
        headers: reads headers where pixel sizes come from them.

    Raises:
        UsageError: a fallback value is out of range.
    """

    half_names: HalfNames
    need_ctf: bool
    need_halves: bool
    fallback: Optics
    headers: Headers

    def __post_init__(self) -> None:
        size = self.fallback.pixel_size
        for name, value, (low, high), unit in (
            ("pixel size", None if math.isnan(size) else size, (math.ulp(0.0), LARGEST_PIXEL), "Å"),
            ("voltage", self.fallback.voltage, VOLTAGES, "kV"),
            ("spherical aberration", self.fallback.spherical_aberration, ABERRATIONS, "mm"),
            ("amplitude contrast", self.fallback.amplitude_contrast, AMPLITUDE_CONTRASTS, "as a fraction"),
        ):
            if value is not None and not low <= value <= high:
                bounds = f"above 0 and up to {high:g}" if name == "pixel size" else f"from {low:g} to {high:g}"
                raise UsageError(f"invalid {name} {value:g}; expected a number {bounds} ({unit})")
