"""MRC files read into arrays and written from them, with what their headers say."""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, HostError, N2NError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.mrc_header import HEADER_BYTES, MRCHeader, parse_header
from n2n_deploy.io.mrc_output import Statistics, as_stored, compose_header

Empty = Callable[[tuple[int, ...], np.dtype[Any]], npt.NDArray[Any]]
"""Makes a C-contiguous array of a shape and a type; what is in it does not matter."""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
_UNPACKING_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class MRCImage:
    """One file's pixels and what its header says of them.

    Attributes:
        data: (ny, nx), or (nz, ny, nx) of a volume; the file's own type, in native byte order, writable.
        header: of the file.
        extended: the extended header's bytes.
        warnings: one line for each oddity of header or file.
    """

    data: npt.NDArray[Any]
    header: MRCHeader
    extended: bytes
    warnings: list[str]

    @property
    def pixel_size(self) -> float | None:
        """Å per pixel; None where the header does not say."""
        return self.header.pixel_size


def read_header(path: Path | str, *, ndim: Literal[2, 3] = 2) -> MRCHeader:
    """Read what a file says of itself, from its first kilobyte.

    Args:
        path: an MRC file, plain or packed with gzip or bzip2.
        ndim: 2 for a micrograph, which has one section; 3 for anything.

    Raises:
        DataError: missing, unreadable, not an MRC file, of a mode that is not real pixels, a stack where a
            micrograph was asked for, or (plain files) too short for what the header says.
    """
    path = Path(path)
    with _opened(path) as (file, compression):
        return _checked_header(path, file, compression, ndim)


def read_headers(paths: Sequence[Path]) -> Sequence[MRCHeader | N2NError]:
    """Read the headers of micrographs, one after the other; where one cannot be used, say why in its place."""
    found: list[MRCHeader | N2NError] = []
    for path in paths:
        try:
            found.append(read_header(path))
        except N2NError as error:
            found.append(error)
    return found


def read_mrc(path: Path | str, *, ndim: Literal[2, 3] = 2, empty: Empty = np.empty) -> MRCImage:
    """Read a micrograph, or with `ndim=3` a volume or stack.

    Modes 0, 1, 2, 6 and 12 come as int8 (uint8 where the header's statistics say so), int16, float32, uint16
    and float16. A plain file costs one read into the array that is returned. Headers are read leniently: an
    odd one is told of in `warnings`.

    Args:
        path: an MRC file, plain or packed with gzip or bzip2.
        ndim: 2 → data (ny, nx), and a file of several sections is refused; 3 → data (nz, ny, nx).
        empty: makes the array to read into, such as one in memory that a GPU reads faster.

    Raises:
        DataError: as for `read_header`, or a packed file is damaged or too short.
        HostError: not enough memory for the pixels.
    """
    path = Path(path)
    with _opened(path) as (file, compression):
        header = _checked_header(path, file, compression, ndim)
        sections = (header.sections,) if ndim == 3 else ()
        try:
            extended = bytearray(header.extended_bytes)
            data = empty(sections + header.shape, header.dtype)
        except MemoryError as error:
            raise HostError(
                f"{path}: its pixels take {header.data_bytes} bytes of memory, more than there is"
            ) from error
        found = HEADER_BYTES + _fill(file, memoryview(extended))
        if found == header.data_offset:
            found += _fill(file, data.reshape(-1).view(np.uint8).data)
        if found < header.file_bytes:
            raise _too_short(header, found)
        warnings = list(header.warnings)
        if file.read(1):
            warnings.append(f"the file goes on after the {header.file_bytes} bytes that its header tells of")
    if not header.native:
        data = data.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    return MRCImage(data, header, bytes(extended), warnings)


def write_mrc(
    path: Path | str,
    image: npt.ArrayLike,
    *,
    like: MRCImage | None = None,
    label: str,
    pixel_size: float | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    statistics: Statistics | None = None,
) -> None:
    """Write a micrograph (ny, nx) or volume (nz, ny, nx) as MRC2014, mode 2 or 12; see `atomic_write`.

    Args:
        path: the final name.
        image: finite values.
        like: voxel size, origin, start, labels and extended header are taken from it.
        label: provenance, at most 80 characters; the oldest of ten labels makes room for it.
        pixel_size: Å; needed without `like`, and wins over it.
        dtype: float16 halves the file and keeps 11 significant bits.
        statistics: of the image, where they are known; they are found otherwise.

    Raises:
        DataError: values that are not finite, or that float16 cannot hold.
        HostError: the folder cannot be written to or has no room.
    """
    path = Path(path)
    stored, found = as_stored(path, image, dtype, statistics)
    extended = like.extended if like is not None and _carries_extended(like.header) else b""
    fields = compose_header(stored, found, like.header if like else None, len(extended), label, pixel_size)
    with atomic_write(path, size=HEADER_BYTES + len(extended) + stored.nbytes) as file:
        file.write(fields.tobytes())
        file.write(extended)
        file.write(stored.reshape(-1).view(np.uint8).data)


def _carries_extended(header: MRCHeader) -> bool:
    """Whether the extended header still means the same in a file of native byte order.

    Its numbers have the byte order of the file, and only some types say what they are.
    """
    known = {b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5"}
    return header.native and bytes(header.fields["exttyp"]) in known


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, str | None]]:
    """The file, unpacked on the way, and how it is packed; the system's refusals as one line each."""
    try:
        with path.open("rb", buffering=0) as file:
            compression = _MAGIC.get(file.read(2))
            file.seek(0)
            if compression == "gzip":
                with gzip.open(file) as unpacked:
                    yield cast(BinaryIO, unpacked), compression
            elif compression == "bzip2":
                with bz2.open(file) as unpacked:
                    yield cast(BinaryIO, unpacked), compression
            else:
                yield cast(BinaryIO, file), None
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; check the name, and the folder that names are relative to") from error
    except _UNPACKING_ERRORS as error:
        raise DataError(f"{path}: the packed file is damaged or cut short ({error}); copy it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _checked_header(path: Path, file: BinaryIO, compression: str | None, ndim: int) -> MRCHeader:
    """The header, once it is sure that the file can be what it says."""
    block = bytearray(HEADER_BYTES)
    header = parse_header(path, bytes(block[: _fill(file, memoryview(block))]), compression)
    if compression is None:
        found = os.fstat(file.fileno()).st_size
        if found < header.file_bytes:
            raise _too_short(header, found)
    if ndim == 2 and header.sections != 1:
        raise DataError(
            f"{path}: holds {header.sections} sections, and a micrograph has one; "
            "give motion-corrected sums, not movies, stacks or volumes"
        )
    return header


def _too_short(header: MRCHeader, found: int) -> DataError:
    ny, nx = header.shape
    what = "holds a header and no pixels" if found <= header.data_offset else "is cut short"
    return DataError(
        f"{header.path}: {what}: {header.sections} × {ny} × {nx} pixels of mode {header.mode} take "
        f"{header.file_bytes} bytes, found {found}; copy or write it again"
    )


def _fill(file: BinaryIO, buffer: memoryview) -> int:
    """Read into all of the buffer; return how many bytes there were."""
    filled = 0
    # One call of the operating system returns at most 2 GB, and a pipe or packed file less.
    while filled < len(buffer):
        count = cast(Any, file).readinto(buffer[filled:])
        if not count:
            break
        filled += count
    return filled
