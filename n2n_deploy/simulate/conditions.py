"""What one micrograph was recorded with, drawn from the range of published data sets."""

from dataclasses import dataclass

import numpy as np

from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.simulate.detectors import DETECTORS, Detector
from n2n_deploy.simulate.potential import REST_ENERGY

_VOLTAGES, _VOLTAGE_WEIGHTS = (300.0, 200.0, 120.0, 100.0, 80.0), (0.6, 0.25, 0.05, 0.07, 0.03)

_MEAN_FREE_PATH = 2030.0  # Å, inelastic, of vitreous ice at 120 kV: Grimm et al. (1996), J. Microscopy 183, 60

CONTRASTS = (0.35, 1.0)
"""Range of `Conditions.contrast`. Bonds and hydration lower a protein's potential below that of free atoms, and images
keep about half of the contrast that is expected (Henderson & McMullan 2013, Microscopy 62, 43)."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one exposure.

    Attributes:
        optics: pixel size of the image, voltage, spherical aberration, amplitude contrast.
        ctf: defocus, astigmatism, phase plate.
        dose: electrons recorded per Å² of empty ice.
        thickness: Å of ice.
        b_factor: Å², of the envelope exp(−B s²/4).
        contrast: what the specimen scatters over what free atoms at rest would.
        drift: Å, standard deviation of the blur along `drift_direction` (degrees from the x axis).
        drift_direction: degrees.
        detector: its DQE lowers the signal.
        detector_pixel: Å per physical pixel.
        energy_filter: whether inelastically scattered electrons are removed; otherwise they add background.
        ice_gradient: relative difference in transmitted intensity between the frame's thin and thick side.
        gradient_direction: degrees from the x axis towards the thin side.
    """

    optics: Optics
    ctf: CTFParameters
    dose: float
    thickness: float
    b_factor: float
    contrast: float
    drift: float
    drift_direction: float
    detector: Detector
    detector_pixel: float
    energy_filter: bool
    ice_gradient: float
    gradient_direction: float

    @property
    def coherent_fraction(self) -> float:
        """Fraction of the recorded electrons that carry contrast: the others lost energy in the ice."""
        if self.energy_filter:
            return 1.0
        return float(np.exp(-self.thickness / mean_free_path(self.optics.voltage or 0.0)))


def mean_free_path(voltage: float) -> float:
    """Return the inelastic mean free path of vitreous ice in Å; it grows as the square of the electrons' speed."""

    def speed_squared(kilovolts: float) -> float:
        return 1 - 1 / (1 + kilovolts / REST_ENERGY) ** 2

    return _MEAN_FREE_PATH * speed_squared(voltage) / speed_squared(120.0)


def draw_conditions(rng: np.random.Generator, pixel_size: float) -> Conditions:
    """Draw the conditions of one exposure whose image has pixels of `pixel_size` Å, after any Fourier cropping."""
    voltage = float(rng.choice(_VOLTAGES, p=_VOLTAGE_WEIGHTS))
    aberration = float(rng.choice([2.7, 2.26, 1.4, 0.01]))
    optics = Optics(pixel_size, voltage, aberration, float(rng.uniform(0.07, 0.1)))
    detectors = [detector for name, detector in DETECTORS.items() if name != "perfect"]
    return Conditions(
        optics,
        _draw_ctf(rng),
        dose=log_uniform(rng, 15, 70),
        thickness=log_uniform(rng, 100, 1000),
        b_factor=log_uniform(rng, 30, 200),
        contrast=log_uniform(rng, *CONTRASTS),
        drift=_draw_drift(rng),
        drift_direction=float(rng.uniform(0, 180)),
        detector=detectors[rng.integers(len(detectors))],
        detector_pixel=min(pixel_size, log_uniform(rng, 0.5, 2.0)),
        energy_filter=bool(rng.uniform() < 0.5),
        ice_gradient=float(rng.beta(1, 8)),
        gradient_direction=float(rng.uniform(0, 360)),
    )


def _draw_ctf(rng: np.random.Generator) -> CTFParameters:
    """Draw 0.3 to 4 µm of underfocus; one in ten has a phase plate, and less defocus."""
    plate = rng.uniform() < 0.1
    mean = log_uniform(rng, 3000, 12000) if plate else log_uniform(rng, 3000, 40000)
    half = min(float(rng.exponential(150)), 0.15 * mean)
    shift = float(rng.uniform(30, 130)) if plate else 0.0
    return CTFParameters(mean + half, mean - half, float(rng.uniform(0, 180)), shift)


def _draw_drift(rng: np.random.Generator) -> float:
    """Draw about 1 Å where the frames were aligned well, and up to 5 Å for the fifth of the images where not."""
    return float(rng.uniform(1, 5)) if rng.uniform() < 0.2 else abs(float(rng.normal(0, 1)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
