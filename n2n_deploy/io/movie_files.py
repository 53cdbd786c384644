"""Movies, read one frame at a time: MRC stacks here, TIFF and EER through `tiff_movies`.

Rows are in the order that RELION, IMOD and MotionCor use: an MRC file's first row is the lowest y. TIFF files begin
with the highest row, so those programs, and this one, turn them upside down; EER movies are not turned (RELION's
`rwTIFF.h` and `renderEER.cpp`). A gain reference or a motion table that fits RELION's frames therefore fits these.
"""

import struct
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc import read_header, read_mrc
from n2n_deploy.io.mrc_header import HEADER_BYTES, parse_header

Frame = npt.NDArray[Any]

MOVIE_ENDINGS = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".ecc")
_TIFF_ENDINGS = (".tif", ".tiff")
_EER_ENDINGS = (".eer", ".ecc")
_PACKED = 101
_MODE_OFFSET = 12


class Movie(Closing):
    """An open movie; a context manager.

    Attributes:
        path: the file.
        frames: number of frames; of an EER movie, of fractions.
        shape: (ny, nx) of a frame.
        pixel_size: Å, where the file says it.
        itemsize: bytes per pixel of what `read` returns.
        is_flipped: whether the rows are in the reverse order of the file's.
        is_eer: whether frames are rendered from electron events.
        notes: what a user should know of the file, one line each.
    """

    is_flipped = False
    is_eer = False

    def __init__(
        self, path: Path, frames: int, shape: tuple[int, int], pixel_size: float | None, itemsize: int
    ) -> None:
        self.path, self.frames, self.shape, self.pixel_size, self.itemsize = path, frames, shape, pixel_size, itemsize
        self.notes: list[str] = []

    @abstractmethod
    def read(self, frame: int) -> Frame:
        """Read a frame, counted from 0: (ny, nx) in a type of the file's precision.

        Raises:
            DataError: the frame is damaged or cut short.
        """

    def close(self) -> None:
        """Close the file."""


def open_movie(path: Path, *, eer_grouping: int = 40, eer_upsampling: int = 1) -> Movie:
    """Open a movie by the ending of its name.

    Args:
        path: .mrc, .mrcs (modes 0, 1, 2, 6, 12 and 101, which packs two 4-bit pixels into a byte), .tif, .tiff, .eer
            or .ecc.
        eer_grouping: EER frames in a fraction; frames that do not fill the last fraction are left out, as in RELION.
        eer_upsampling: 1 renders EER events on the detector's pixels (4K), 2 on half pixels (8K).

    Raises:
        DataError: the file is missing, of another format, or shorter than it says.
        HostError: a library to read it is not installed.
    """
    ending = path.suffix.lower()
    if ending in (*_TIFF_ENDINGS, *_EER_ENDINGS):
        from n2n_deploy.io.tiff_movies import EERMovie, TIFFMovie

        return EERMovie(path, eer_grouping, eer_upsampling) if ending in _EER_ENDINGS else TIFFMovie(path)
    if ending not in MOVIE_ENDINGS:
        raise DataError(f"{path}: is not a movie by its name; give files that end in {', '.join(MOVIE_ENDINGS)}")
    return _packed_movie(path) or MRCMovie(path)


class MRCMovie(Movie):
    """An MRC stack."""

    def __init__(self, path: Path) -> None:
        header = read_header(path, ndim=3)
        super().__init__(path, header.sections, header.shape, header.pixel_size, header.dtype.itemsize)

    def read(self, frame: int) -> Frame:
        """See `Movie.read`."""
        return read_mrc(self.path, section=frame).data


class PackedMovie(Movie):
    """An MRC stack of mode 101: two pixels of 4 bits in each byte, the left one in the low bits (IMOD's layout).

    A row of odd width takes a whole number of bytes.
    """

    def __init__(self, path: Path, block: bytes, order: str) -> None:
        header = parse_header(path, block[:_MODE_OFFSET] + struct.pack(order + "i", 0) + block[_MODE_OFFSET + 4 :])
        super().__init__(path, header.sections, header.shape, header.pixel_size, 1)
        ny, nx = header.shape
        self._offset, self._row_bytes = header.data_offset, (nx + 1) // 2
        expected = self._offset + header.sections * ny * self._row_bytes
        if (found := path.stat().st_size) < expected:
            raise DataError(
                f"{path}: is cut short: {header.sections} × {ny} × {nx} pixels of 4 bits take {expected} bytes, "
                f"found {found}; copy it again"
            )

    def read(self, frame: int) -> Frame:
        """See `Movie.read`."""
        ny, nx = self.shape
        packed = np.fromfile(
            self.path, np.uint8, ny * self._row_bytes, offset=self._offset + frame * ny * self._row_bytes
        ).reshape(ny, self._row_bytes)
        pixels = np.empty((ny, 2 * self._row_bytes), np.uint8)
        np.bitwise_and(packed, 15, out=pixels[:, 0::2])
        np.right_shift(packed, 4, out=pixels[:, 1::2])
        return pixels[:, :nx]


def _packed_movie(path: Path) -> PackedMovie | None:
    """The movie, where its header says mode 101 in either byte order."""
    try:
        with path.open("rb") as file:
            block = file.read(HEADER_BYTES)
    except OSError:
        return None  # MRCMovie says what is wrong
    for order in "<>":
        if len(block) == HEADER_BYTES and struct.unpack_from(order + "i", block, _MODE_OFFSET)[0] == _PACKED:
            return PackedMovie(path, block, order)
    return None
