"""What is to be done with one movie: as the options say, or else its motion table, or else defaults."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.version import RELEASE
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_names import Folders
from n2n_deploy.io.motion import Motion, read_motion
from n2n_deploy.io.movie_files import Movie, open_movie
from n2n_deploy.io.movie_table import MovieRecord
from n2n_deploy.movies.options import NO_GAIN, HalvesOptions
from n2n_deploy.movies.sums import binned_shape

_EER_GROUPING = 40
_FEWEST_FRAMES = 2


@dataclass(frozen=True)
class Files:
    """The input files of one movie, known before it is opened.

    Attributes:
        movie: the movie.
        motion: its motion; None without a table.
        gain: the gain reference; None for none.
        is_turned: whether the gain is already in the orientation of the frames.
        defects: of the options and of the motion table.
    """

    movie: Path
    motion: Motion | None
    gain: Path | None
    is_turned: bool
    defects: tuple[Path, ...]

    def label(self, record: MovieRecord, options: HalvesOptions) -> str:
        """The MRC label (at most 80 characters) by which a later run recognises these sums as finished.

        Its last part is a hash of everything that changes the pixels: options, pixel size and voltage, and the name,
        size and time of each input file.
        """
        inputs = [self.movie, self.motion.path if self.motion else None, self.gain, *self.defects]
        stamps = [_stamp(path) for path in inputs if path is not None]
        work = repr((options, record.optics.pixel_size, record.optics.voltage, stamps))
        return f"n2n-deploy {RELEASE} sum of frames: work {hashlib.sha256(work.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Settings:
    """How one movie is summed.

    Attributes:
        frames: frames to sum, counted from 0.
        shifts: (x, y) of each of them in pixels of the frames.
        local: (2, 18) coefficients in pixels of the sums; None without.
        local_start: the frame, counted from 0, at which the local model's time is 0.
        doses: electrons per Å² by the end of each frame, at the microscope's voltage; None without dose weights.
        out_shape: (ny, nx) of the sums.
        optics: of the sums.
        frame_size: Å per pixel of the frames.
        dose_per_frame: electrons per Å², where known.
        pre_exposure: electrons per Å², where known.
    """

    frames: list[int]
    shifts: list[tuple[float, float]]
    local: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None
    local_start: int
    doses: list[float] | None
    out_shape: tuple[int, int]
    optics: Optics
    frame_size: float
    dose_per_frame: float | None
    pre_exposure: float | None

    @property
    def is_moved(self) -> bool:
        """Whether frames are transformed one by one."""
        return self.doses is not None or self.local is not None or any(shift != (0.0, 0.0) for shift in self.shifts)


def find_files(record: MovieRecord, folders: Folders, options: HalvesOptions) -> Files:
    """Find the input files of a movie; reads its motion table.

    Raises:
        DataError: a file is not there, or the motion table cannot be used.
    """
    is_flipped = (record.path or Path()).suffix.lower() in (".tif", ".tiff")
    motion = read_motion(record.motion, is_flipped=is_flipped) if record.motion is not None else None
    movie = record.path
    if movie is None:
        if motion is None or motion.movie is None:
            raise DataError(f"{record.motion}: does not name its movie; give the movies and --motion")
        movie = folders.locate(motion.movie)
    gain, is_turned = options.gain, False
    if gain is None and motion is not None and motion.gain is not None:
        gain, is_turned = folders.locate(motion.gain), True
    if gain == NO_GAIN:
        gain = None
    defects = () if options.defects is None else (options.defects,)
    if options.defects is None and motion is not None and motion.defects is not None:
        defects = (folders.locate(motion.defects),)
    for path in (movie, gain, *defects):
        if path is not None and not path.is_file():
            what = "" if path in (movie, options.gain, options.defects) else f", which {record.motion} names,"
            remedy = "; give --gain FILE, or --gain none" if path == gain else "; check the name and the folder"
            raise DataError(f"{path}{what} is not there{remedy}")
    return Files(movie, motion, gain, is_turned, defects)


def open_with(files: Files, options: HalvesOptions) -> Movie:
    """Open the movie, an EER movie with the fractions that its motion was found for.

    Raises:
        DataError: the movie cannot be used, or the options contradict the motion table.
    """
    motion = files.motion
    found = (motion.eer_grouping, motion.eer_upsampling) if motion is not None else (None, None)
    given = (options.eer_grouping, options.eer_upsampling)
    for name, table, option in zip(("--eer-grouping", "--eer-upsampling"), found, given, strict=True):
        if motion is not None and table is not None and option is not None and table != option:
            raise DataError(
                f"{motion.path}: the motion is for {name} {table}, {option} was given; leave the option away"
            )
    grouping = given[0] or found[0] or _EER_GROUPING
    return open_movie(files.movie, eer_grouping=grouping, eer_upsampling=given[1] or found[1] or 1)


def settle(movie: Movie, files: Files, record: MovieRecord, options: HalvesOptions) -> Settings:
    """Decide how a movie is summed.

    Raises:
        DataError: something is missing, or the movie and its motion table do not fit.
        UsageError: the binning does not suit the frames.
    """
    motion = files.motion
    frames, shifts = _frames(movie, motion, options)
    binning = options.binning or (motion.binning if motion is not None else 1.0)
    out_shape = binned_shape(movie.shape, binning)
    size = _first(
        options.pixel_size,
        motion.pixel_size if motion else None,
        None if math.isnan(record.optics.pixel_size) else record.optics.pixel_size,
        movie.pixel_size,
    )
    if size is None:
        raise DataError(f"{movie.path}: nothing says its pixel size; give --pixel-size")
    voltage = _first(options.voltage, motion.voltage if motion else None, record.optics.voltage)
    dose = _first(options.dose_per_frame, motion.dose_per_frame if motion else None)
    before = _first(options.pre_exposure, motion.pre_exposure if motion else None)
    doses = None
    if options.dose_weighting:
        if dose is None or voltage is None:
            what, remedy = ("dose", "--dose-per-frame") if dose is None else ("voltage", "--voltage")
            raise DataError(f"{movie.path}: dose weights need the {what}; give {remedy}")
        doses = [(before or 0.0) + dose * (frame + 1) for frame in frames]
    local = None
    if motion is not None and motion.local is not None:
        scale = np.array([out_shape[1] / movie.shape[1], out_shape[0] / movie.shape[0]])
        local = motion.local * scale[:, None]
    out_size = float(f"{size * movie.shape[1] / out_shape[1]:.7g}")
    optics = Optics(
        out_size,
        voltage,
        _first(options.spherical_aberration, record.optics.spherical_aberration),
        _first(options.amplitude_contrast, record.optics.amplitude_contrast),
    )
    start = motion.start - 1 if motion is not None else 0
    return Settings(frames, shifts, local, start, doses, out_shape, optics, size, dose, before)


def _frames(movie: Movie, motion: Motion | None, options: HalvesOptions) -> tuple[list[int], list[tuple[float, float]]]:
    """The frames to sum and their shifts: those that were asked for, or else all that were aligned."""
    if options.last is not None and options.last > movie.frames:
        raise DataError(f"{movie.path}: has {movie.frames} frames, --last {options.last} asks for more")
    first, last = options.first or 1, options.last or movie.frames
    frames = list(range(first - 1, last))
    shifts = [(0.0, 0.0)] * len(frames)
    if motion is not None:
        if motion.shape is not None and motion.shape != movie.shape:
            raise DataError(
                f"{motion.path}: is for frames of {motion.shape[1]} × {motion.shape[0]} pixels, those of {movie.path} "
                f"have {movie.shape[1]} × {movie.shape[0]}; give the motion of this movie"
            )
        # A MotionCor log that threw frames away lists the others alone.
        is_part = motion.shape is None and len(motion.shifts) == len(frames) != movie.frames
        if len(motion.shifts) != movie.frames and not is_part:
            raise DataError(
                f"{motion.path}: lists {len(motion.shifts)} frames and {movie.path} has {movie.frames}; give the "
                "motion of this movie, and the --first and --last frame that were aligned"
            )
        found = motion.shifts if is_part else motion.shifts[first - 1 : last]
        aligned = ~np.isnan(found[:, 0] + found[:, 1])
        if not aligned.all() and (options.first is not None or options.last is not None):
            missing = frames[int(np.argmin(aligned))] + 1
            raise DataError(
                f"{motion.path}: frame {missing} was not aligned; leave --first and --last away, or align it"
            )
        frames = [frame for frame, known in zip(frames, aligned, strict=True) if known]
        shifts = [(float(x), float(y)) for x, y in found[aligned]]
    if len(frames) < _FEWEST_FRAMES:
        raise DataError(f"{movie.path}: {len(frames)} frame to sum; an even and an odd sum take two or more")
    return frames, shifts


def _first(*values: float | None) -> float | None:
    """The first value that is given."""
    return next((value for value in values if value is not None), None)


def _stamp(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns
