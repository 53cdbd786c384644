"""The contrast transfer function, in RELION's conventions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Optics:
    """One optics group: what all its micrographs share.

    Attributes:
        pixel_size: Å per pixel of the micrograph.
        voltage: acceleration voltage in kV; None where unknown.
        spherical_aberration: Cs in mm; None where unknown.
        amplitude_contrast: fraction, 0 to 1; None where unknown.
    """

    pixel_size: float
    voltage: float | None = None
    spherical_aberration: float | None = None
    amplitude_contrast: float | None = None


@dataclass(frozen=True, slots=True)
class CTFParameters:
    """One micrograph's fit.

    Attributes:
        defocus_u: Å along `defocus_angle`, positive for underfocus.
        defocus_v: Å at right angles to it.
        defocus_angle: degrees from the x axis.
        phase_shift: degrees, of a phase plate.
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    phase_shift: float = 0.0
