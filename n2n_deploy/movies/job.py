"""One movie, from its file to three: the even, the odd and the whole sum."""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.io.defects import read_defects
from n2n_deploy.io.gain import Gain, read_gain
from n2n_deploy.io.movie_files import Movie
from n2n_deploy.io.mrc import read_header, write_mrc
from n2n_deploy.movies.dose import DoseWeights, equivalent_dose
from n2n_deploy.movies.frames import FrameReader
from n2n_deploy.movies.memory import MemoryGate, memory_needed
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.settings import Files, Settings
from n2n_deploy.movies.sums import HalfSums

EVEN, ODD = 0, 1
_SUFFIXES = ("_EVN", "_ODD")


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files that a movie becomes.

    Attributes:
        whole: the sum of all frames.
        even: of the 1st, 3rd, 5th … frame that is summed; counted from 0, as MotionCor does, these are even.
        odd: of the others.
    """

    whole: Path
    even: Path
    odd: Path

    @classmethod
    def of(cls, whole: Path) -> "Outputs":
        """The halves beside a whole sum, with RELION's and MotionCor's suffixes."""
        even, odd = (whole.with_name(f"{whole.stem}{suffix}.mrc") for suffix in _SUFFIXES)
        return cls(whole, even, odd)

    def are_finished(self, label: str) -> bool:
        """Whether all three are there and have this label, whatever version of the program wrote it."""
        work = label.partition(": ")[2]
        with suppress(DataError, OSError):
            return all(
                any(found.partition(": ")[2] == work for found in read_header(path).labels)
                for path in (self.even, self.odd, self.whole)
            )
        return False

    def are_in_the_way(self) -> Path | None:
        """One of the files, where it is there already."""
        return next((path for path in (self.whole, self.even, self.odd) if os.path.lexists(path)), None)


class Gains:
    """Gain references, each read once and shared by all movies that it fits.

    Args:
        options: say how a gain that no motion table has turned already is turned.
    """

    def __init__(self, options: HalvesOptions) -> None:
        self._options = options
        self._gains: dict[tuple[Path, bool], Gain] = {}
        self._factors: dict[tuple[Path, bool, bool, tuple[int, int]], npt.NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def factor(self, files: Files, movie: Movie) -> npt.NDArray[np.float32] | None:
        """What frames are multiplied by; None without a gain reference.

        Raises:
            DataError: the gain cannot be used, or does not fit the frames.
        """
        if files.gain is None:
            return None
        key = files.gain, files.is_turned
        with self._lock:
            if key not in self._gains:
                turn = (0, 0) if files.is_turned else (self._options.gain_rotation, self._options.gain_flip)
                self._gains[key] = read_gain(files.gain, rotation=turn[0], flip=turn[1])
            place = (*key, movie.is_eer, movie.shape)
            if place not in self._factors:
                self._factors[place] = self._gains[key].factor(movie)
            return self._factors[place]


def sum_movie(
    movie: Movie,
    files: Files,
    settings: Settings,
    options: HalvesOptions,
    gains: Gains,
    outputs: Outputs,
    label: str,
    gate: MemoryGate,
    stop: threading.Event,
) -> None:
    """Sum a movie and write its three files, the whole sum last.

    Args:
        movie: open.
        files: its input files.
        settings: how it is summed.
        options: of the run.
        gains: shared.
        outputs: where to write.
        label: provenance, for all three files.
        gate: admits the work when there is memory for it.
        stop: ends the work before the next frame, when set.

    Raises:
        DataError: a frame is damaged, or gain or defects do not fit.
        HostError: there is not enough memory, the outputs cannot be written, or the work was stopped.
    """
    needed = memory_needed(
        movie.shape,
        settings.out_shape,
        movie.itemsize,
        has_gain=files.gain is not None,
        is_moved=settings.is_moved,
        is_weighted=settings.doses is not None,
        is_local=settings.local is not None,
    )
    with gate.room_for(needed, str(movie.path)):
        reader = FrameReader(movie, gains.factor(files, movie), _defects(movie, files))
        sums = _add_up(reader, movie, settings, stop)
        even = sums.result(EVEN)
        _write(outputs.even, even, settings, options, label)
        odd = sums.result(ODD)
        _write(outputs.odd, odd, settings, options, label)
        even += odd
        del odd
        _write(outputs.whole, even, settings, options, label)


def _add_up(reader: FrameReader, movie: Movie, settings: Settings, stop: threading.Event) -> HalfSums:
    weights = None
    if settings.doses is not None:
        doses = [equivalent_dose(dose, settings.optics.voltage or 0.0) for dose in settings.doses]
        halves = [index % 2 for index in range(len(doses))]
        weights = DoseWeights(settings.out_shape, settings.optics.pixel_size, doses, halves)
    sums = HalfSums(movie.shape, settings.out_shape, weights)
    for index, (frame, shift) in enumerate(zip(settings.frames, settings.shifts, strict=True)):
        if stop.is_set():
            raise HostError(f"{movie.path}: stopped before frame {frame + 1}")
        local = None if settings.local is None else (settings.local, float(frame - settings.local_start))
        sums.add(reader.read(frame), index, index % 2, shift, local)
    return sums


def _defects(movie: Movie, files: Files) -> npt.NDArray[np.bool_] | None:
    """All pixels that are known to be bad."""
    mask: npt.NDArray[np.bool_] | None = None
    for path in files.defects:
        found = read_defects(path, movie.shape)
        mask = found if mask is None else mask | found
    hot = files.motion.hot_pixels if files.motion is not None else None
    if hot is not None:
        mask = np.zeros(movie.shape, np.bool_) if mask is None else mask
        x, y = hot.T
        inside = (x >= 0) & (y >= 0) & (x < movie.shape[1]) & (y < movie.shape[0])
        mask[y[inside], x[inside]] = True
    return mask


def _write(path: Path, image: npt.NDArray[np.float32], settings: Settings, options: HalvesOptions, label: str) -> None:
    write_mrc(path, image, label=label, pixel_size=settings.optics.pixel_size, dtype=options.dtype)
