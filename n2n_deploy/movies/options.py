"""`HalvesOptions`: how movies are summed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from n2n_deploy.core.errors import UsageError

NO_GAIN = Path("none")
"""As `HalvesOptions.gain`: apply no gain reference, not even one that a motion table names."""


@dataclass(frozen=True, slots=True)
class HalvesOptions:
    """How movies are summed. None means: as the movie's motion table says, or else the usual default.

    Attributes:
        gain: the gain reference; `NO_GAIN` for none.
        gain_rotation: times 90°, RELION's --gain_rot and MotionCor's -RotGain.
        gain_flip: 0, 1 (rows) or 2 (columns), RELION's --gain_flip and MotionCor's -FlipGain.
        defects: text file or map of bad pixels.
        first: first frame to sum, from 1; of an EER movie, fraction.
        last: last frame to sum.
        dose_weighting: weight frames by dose.
        dose_per_frame: electrons per Å² in a frame; of an EER movie, in a fraction.
        pre_exposure: electrons per Å² before the first frame.
        binning: factor of Fourier cropping; by default that of the motion table, or 1.
        pixel_size: Å of the frames.
        voltage: kV.
        spherical_aberration: mm, for the table that is written.
        amplitude_contrast: fraction, for the table that is written.
        eer_grouping: EER frames in a fraction; 40 by default, as in RELION.
        eer_upsampling: 1 for 4K, 2 for 8K.
        dtype: of the sums.

    Raises:
        UsageError: a value is out of range.
    """

    gain: Path | None = None
    gain_rotation: int = 0
    gain_flip: int = 0
    defects: Path | None = None
    first: int | None = None
    last: int | None = None
    dose_weighting: bool = False
    dose_per_frame: float | None = None
    pre_exposure: float | None = None
    binning: float | None = None
    pixel_size: float | None = None
    voltage: float | None = None
    spherical_aberration: float | None = None
    amplitude_contrast: float | None = None
    eer_grouping: int | None = None
    eer_upsampling: int | None = None
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        for name, value, valid, expected in (
            ("gain rotation", self.gain_rotation, self.gain_rotation in range(4), "0, 1, 2 or 3"),
            ("gain flip", self.gain_flip, self.gain_flip in range(3), "0, 1 or 2"),
            ("first frame", self.first, self.first is None or self.first >= 1, "1 or more"),
            ("last frame", self.last, self.last is None or self.last > (self.first or 1), "more than the first"),
            ("dose per frame", self.dose_per_frame, _is_positive(self.dose_per_frame), "more than 0"),
            ("pre-exposure", self.pre_exposure, self.pre_exposure is None or self.pre_exposure >= 0, "0 or more"),
            ("binning", self.binning, self.binning is None or self.binning >= 1, "1 or more"),
            ("pixel size", self.pixel_size, _is_positive(self.pixel_size), "more than 0 Å"),
            ("EER grouping", self.eer_grouping, _is_positive(self.eer_grouping), "1 or more"),
            ("EER upsampling", self.eer_upsampling, self.eer_upsampling in (None, 1, 2), "1 or 2"),
            ("type", self.dtype, self.dtype in ("float32", "float16"), "float32 or float16"),
        ):
            if not valid:
                raise UsageError(f"halves: the {name} is {value}, expected {expected}")


def _is_positive(value: float | None) -> bool:
    return value is None or value > 0
