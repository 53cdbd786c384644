"""The contrast transfer function, in RELION's conventions."""

import math
from dataclasses import astuple, dataclass
from typing import Any, overload

import numpy
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of
from n2n_deploy.device.device import Device
from n2n_deploy.device.host import HOST


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

    @property
    def mean_defocus(self) -> float:
        """Å, the mean over all directions."""
        return 0.5 * (self.defocus_u + self.defocus_v)


def wavelength(voltage: float) -> float:
    """Return the relativistic electron wavelength in Å for `voltage` in kV."""
    volts = voltage * 1e3
    return 12.2643247 / math.sqrt(volts * (1.0 + 0.978466e-6 * volts))


@overload
def ctf(
    shape: tuple[int, int], spacing: tuple[float, float], optics: Optics, parameters: CTFParameters
) -> NDArray[numpy.float32]: ...
@overload
def ctf(
    shape: tuple[int, int], spacing: tuple[float, float], optics: Optics, parameters: CTFParameters, device: Device
) -> Array: ...
def ctf(
    shape: tuple[int, int],
    spacing: tuple[float, float],
    optics: Optics,
    parameters: CTFParameters,
    device: Device = HOST,
) -> Array:
    """Return the contrast transfer function sin γ on the rfft grid of an image.

    γ(s, θ) = π λ Δz(θ) s² − ½ π Cs λ³ s⁴ + phase shift + asin(amplitude contrast), with
    Δz(θ) = ½[(U + V) + (U − V) cos 2(θ − defocus angle)], θ from the x axis. It is positive at low frequency
    for underfocus. These are RELION's conventions (`relion_ctf_toolbox --simulate`). In the Nyquist column of
    an even width, where +x and −x are one, y and −y have the same value, as in every real image's spectrum.

    Args:
        shape: (ny, nx) of the image in real space.
        spacing: Å per pixel along (y, x); the two differ a little on a Fourier-cropped grid.
        optics: voltage, spherical aberration and amplitude contrast must be known.
        parameters: the micrograph's fit.
        device: where the result is wanted.

    Returns:
        (ny, nx//2+1) float32.

    Raises:
        DataError: the voltage, spherical aberration or amplitude contrast is unknown.
    """
    aberration, xp = _Aberration(shape, spacing, optics, parameters, device), device.xp

    def values(rows: slice) -> Any:
        half_turns = aberration(rows)
        half_turns *= math.pi
        return xp.sin(half_turns)

    return device.from_rows(values, (shape[0], shape[1] // 2 + 1), xp.float32)


def flip_phases(
    spectrum: Array,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    optics: Optics,
    parameters: CTFParameters,
) -> None:
    """Multiply a spectrum, (ny, nx//2+1) of an image of `shape`, by the sign of its CTF in place (S2.1).

    Doing it twice undoes it. Arguments and errors as for `ctf`.
    """
    device = device_of(spectrum)
    aberration, xp = _Aberration(shape, spacing, optics, parameters, device), device.xp

    def flip(rows: slice) -> None:
        # sin γ < 0 exactly where γ/π rounds down to an odd number, which costs less than a sine.
        odd = xp.floor(aberration(rows)).astype(xp.int64)
        odd &= 1
        odd *= -2
        odd += 1
        spectrum[rows] *= odd.astype(spectrum.dtype)

    device.map_rows(flip, spectrum.shape)


@dataclass(frozen=True, slots=True)
class AberrationTerms:
    """γ/π = fourth·s⁴ + (mean + difference·cos(2θ − angle))·s² + constant; s in 1/Å, angle in radians."""

    fourth: float
    mean: float
    difference: float
    angle: float
    constant: float


def aberration_terms(optics: Optics, parameters: CTFParameters) -> AberrationTerms:
    """Return the numbers that γ of `ctf` is made of.

    Raises:
        DataError: the voltage, spherical aberration or amplitude contrast is unknown, or a number is not
            finite.
    """
    voltage, cs_mm, contrast = _required(optics)
    lam = wavelength(voltage)
    terms = AberrationTerms(
        fourth=-0.5 * cs_mm * 1e7 * lam**3,
        mean=lam * parameters.mean_defocus,
        difference=0.5 * lam * (parameters.defocus_u - parameters.defocus_v),
        angle=2.0 * math.radians(parameters.defocus_angle),
        constant=parameters.phase_shift / 180.0 + math.asin(contrast) / math.pi,
    )
    if not all(map(math.isfinite, astuple(terms))):
        raise DataError(f"the CTF parameters must be finite numbers, not {parameters} with {optics}")
    return terms


class _Aberration:
    """γ/π on blocks of rows of an rfft grid.

    γ reaches hundreds of radians and its sign changes are sharp, so this is float64. For a given row it is a
    polynomial in the frequency along x: c₄x⁴ + c₂x² + c₁x + c₀.

    A component in the Nyquist column of an even width stands for +x and −x alike, and a real image has
    conjugate ones at y and −y there. γ is taken for |y|, so that an astigmatic CTF keeps that symmetry.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        spacing: tuple[float, float],
        optics: Optics,
        parameters: CTFParameters,
        device: Device,
    ) -> None:
        xp = device.xp
        terms = aberration_terms(optics, parameters)
        spherical, mean, difference, angle = terms.fourth, terms.mean, terms.difference, terms.angle
        y = xp.fft.fftfreq(shape[0], spacing[0]).astype(xp.float64)[:, None]
        self.x = xp.fft.rfftfreq(shape[1], spacing[1]).astype(xp.float64)[None, :]
        self.x_squared = self.x**2
        self.fourth = spherical * self.x_squared + (mean + difference * math.cos(angle))
        self.second = 2.0 * spherical * y**2
        oblique = 2.0 * difference * math.sin(angle)
        self.first = oblique * y
        self.at_nyquist = oblique * (xp.abs(y) - y) * (self.x[0, -1] if shape[1] % 2 == 0 else 0.0)
        self.zeroth = (mean - difference * math.cos(angle)) * y**2 + spherical * y**4 + terms.constant
        self.astigmatic = difference != 0.0

    def __call__(self, rows: slice) -> Array:
        values: Array = self.fourth + self.second[rows]
        values *= self.x_squared
        if self.astigmatic:
            values += self.first[rows] * self.x
            values[:, -1:] += self.at_nyquist[rows]
        values += self.zeroth[rows]
        return values


def _required(optics: Optics) -> tuple[float, float, float]:
    """Return voltage, Cs and amplitude contrast, or say which of them the CTF lacks."""
    voltage, cs_mm, contrast = optics.voltage, optics.spherical_aberration, optics.amplitude_contrast
    if voltage is None or cs_mm is None or contrast is None:
        named = {"voltage": voltage, "spherical aberration": cs_mm, "amplitude contrast": contrast}
        missing = " and ".join(name for name, value in named.items() if value is None)
        raise DataError(f"the CTF needs the {missing}: add it to the table, or use a model with phase_flip off")
    if not voltage > 0 or not 0 <= contrast <= 1:
        raise DataError(
            f"the CTF needs a voltage above 0 kV and an amplitude contrast of 0 to 1, not {voltage:g} and {contrast:g}"
        )
    return voltage, cs_mm, contrast
