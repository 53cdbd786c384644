"""`Motion`: how each frame of a movie is to be moved, and its readers for MotionCor and cryoSPARC.

A shift is a correction: the content of the frame moves by it, in pixels of the unbinned frame, along x and y as
`movie_files` orders them. RELION (`shiftNonSquareImageInFourierTransform`) and MotionCor3 (`CCorrectFullShift`) apply
the numbers in their tables in this sense. cryoSPARC's trajectory is the motion itself, in the row order of the file:
the correction is its negative, and along y it changes sign again where rows are flipped (pyem's `star.py` and cs2relion
do the same for TIFF movies). Its unit is taken to be the pixel of the movie.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError

Floats = npt.NDArray[np.float64]

COEFFICIENTS = 18
"""Of RELION's local motion model, for each axis."""


@dataclass(frozen=True)
class Motion:
    """The motion of one movie, and what its table says of the movie.

    Attributes:
        path: the table.
        shifts: (frames, 2) x, y; NaN for a frame that was not aligned.
        local: (2, 18) coefficients of RELION's third-order polynomial for x and y, in unbinned pixels; None without.
        start: number, from 1, of the frame at which the local model's time is 0.
        shape: (ny, nx) of the frames that were aligned, where the table says it.
        hot_pixels: (n, 2) x, y of pixels to treat as defects.
        movie: name of the movie.
        gain: name of the gain reference, already in the orientation of the frames.
        defects: name of the defect file.
        binning: of the sums that were written.
        pixel_size: Å of the unbinned frames.
        dose_per_frame: electrons per Å².
        pre_exposure: electrons per Å² before the first frame.
        voltage: kV.
        eer_grouping: EER frames in a fraction.
        eer_upsampling: 1 or 2.
    """

    path: Path
    shifts: Floats
    local: Floats | None = None
    start: int = 1
    shape: tuple[int, int] | None = None
    hot_pixels: npt.NDArray[np.intp] | None = None
    movie: str | None = None
    gain: str | None = None
    defects: str | None = None
    binning: float = 1.0
    pixel_size: float | None = None
    dose_per_frame: float | None = None
    pre_exposure: float | None = None
    voltage: float | None = None
    eer_grouping: int | None = None
    eer_upsampling: int | None = None


def read_motion(path: Path, *, is_flipped: bool) -> Motion:
    """Read a motion table by the ending of its name.

    Args:
        path: RELION's or MotionCor's .star, MotionCor's -Full.log or .aln, or cryoSPARC's rigid-motion .npy.
        is_flipped: whether the movie's rows are in the reverse order of its file's, as of TIFF movies.

    Raises:
        DataError: it is none of these, or damaged.
    """
    match path.suffix.lower():
        case ".star":
            from n2n_deploy.io.relion_motion import read_relion_motion

            return read_relion_motion(path)
        case ".log":
            return _read_full_log(path)
        case ".aln":
            return _read_aln(path)
        case ".npy":
            return _read_trajectory(path, is_flipped)
    raise DataError(
        f"{path}: not a motion table by its name; give RELION's .star, MotionCor's -Full.log or .aln, or cryoSPARC's "
        ".npy"
    )


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; check the name of the motion table") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); give a motion table") from error


def _rows(path: Path, lines: list[str], first: int) -> Floats:
    """(frames, 2) from lines of frame number, x and y, whose numbers count up from `first`."""
    rows: list[tuple[float, float]] = []
    for line in lines:
        words = line.split()
        try:
            number, x, y = int(words[0]), float(words[1]), float(words[2])
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}: {line.strip()!r} is not a line of frame number, x and y; write it again"
            ) from error
        if number != first + len(rows):
            raise DataError(f"{path}: frame {number} follows frame {first + len(rows) - 1}; the table is damaged")
        rows.append((x, y))
    if not rows:
        raise DataError(f"{path}: lists no shifts; run the motion correction again")
    return np.array(rows)


def _read_full_log(path: Path) -> Motion:
    """MotionCor2's and 3's -Full.log: `# full frame alignment`, then a line for each frame, from 1."""
    lines = read_text(path).splitlines()
    if not lines or "full frame alignment" not in lines[0]:
        raise DataError(f"{path}: does not begin with '# full frame alignment'; give MotionCor's -Full.log")
    return Motion(path, _rows(path, [line for line in lines[1:] if line.strip() and line[0] != "#"], 1))


def _read_aln(path: Path) -> Motion:
    """MotionCor3's .aln: the settings, and under `globalShift` a line for each frame, from 0; patches are left out.

    Frames that were thrown away at the beginning and the end have no line.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    fields = {name.rstrip(":"): rest.split() for name, _, rest in (line.partition(" ") for line in lines)}
    try:
        width, height, count = (int(value) for value in fields["stackSize"][:3])
        before, after = (int(value) for value in fields["throw"][:2])
        start = lines.index("globalShift") + 1
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: has no stackSize, throw or globalShift; give MotionCor3's .aln") from error
    end = next(
        (index for index in range(start, len(lines)) if lines[index].startswith(("#", "localShift"))), len(lines)
    )
    aligned = _rows(path, [line for line in lines[start:end] if line and not line.startswith("stackID")], 0)
    if len(aligned) != count - before - after:
        raise DataError(
            f"{path}: lists {len(aligned)} frames, expected {count - before - after} of {count}; the table is damaged"
        )
    shifts = np.full((count, 2), np.nan)
    shifts[before : before + len(aligned)] = aligned
    return Motion(path, shifts, start=before + 1, shape=(height, width))


def _read_trajectory(path: Path, is_flipped: bool) -> Motion:
    """Rigid motion of cryoSPARC: an array (1, frames, 2) or (frames, 2) of x, y."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; check the name of the motion table") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a NumPy array ({error})") from error
    if found.ndim not in (2, 3) or found.shape[-1] != 2 or found.size != 2 * found.shape[-2] or not found.size:
        raise DataError(
            f"{path}: has the shape {found.shape}, expected (1, frames, 2); give the file of rigid motion, not of "
            "local motion (spline)"
        )
    trajectory = np.asarray(found, np.float64).reshape(-1, 2)
    return Motion(path, trajectory * (-1.0, 1.0 if is_flipped else -1.0))
