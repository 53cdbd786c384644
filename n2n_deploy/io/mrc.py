"""MRC files, read into arrays and written from them together with their headers: micrographs, volumes and stacks."""

import bz2
import gzip
import lzma
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, HostError, N2NError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.micrograph_names import is_stack
from n2n_deploy.io.mrc_header import HEADER_BYTES, MRCHeader, parse_header
from n2n_deploy.io.mrc_output import Statistics, as_stored, compose_header, join_statistics

Empty = Callable[[tuple[int, ...], np.dtype[Any]], npt.NDArray[Any]]
"""Makes a C-contiguous array of a shape and a type with any content."""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
_UNPACKING_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class MRCImage:
    """One file's pixels and its header.

    Attributes:
        data: (ny, nx), or (nz, ny, nx) of a volume; the file's own type, in native byte order, writable.
        header: of the file; of the whole stack where one section was read.
        extended: the extended header's bytes.
        warnings: one line for each deviation of header or file from the standard.
    """

    data: npt.NDArray[Any]
    header: MRCHeader
    extended: bytes
    warnings: list[str]

    @property
    def pixel_size(self) -> float | None:
        """Å per pixel; None where the header has no pixel size."""
        return self.header.pixel_size


def read_header(path: Path | str, *, ndim: Literal[2, 3] = 2) -> MRCHeader:
    """Read the header of a file from its first kilobyte.

    Args:
        path: an MRC file, plain or compressed with gzip or bzip2.
        ndim: 2 for a micrograph, which has one section; 3 for any number of sections.

    Raises:
        DataError: the file is missing, unreadable, not MRC, of a mode other than real pixels, a stack where a
            micrograph is expected, or (uncompressed files) shorter than its header says.
    """
    path = Path(path)
    with _opened(path) as (file, compression):
        return _checked_header(path, file, compression, ndim)


def read_image_header(path: Path) -> MRCHeader:
    """Read the header of a micrograph, which has one section, or of a stack of them (.mrcs, .st), which has any number.

    Raises:
        DataError: as for `read_header`.
    """
    with _opened(path) as (file, compression):
        return _checked_header(path, file, compression, 3 if is_stack(path) else 2)


def read_headers(paths: Sequence[Path]) -> Sequence[MRCHeader | N2NError]:
    """Read the headers of micrographs and stacks one by one; an error takes the place of one that cannot be used."""
    found: list[MRCHeader | N2NError] = []
    for path in paths:
        try:
            found.append(read_image_header(path))
        except N2NError as error:
            found.append(error)
    return found


def read_mrc(
    path: Path | str, *, ndim: Literal[2, 3] = 2, section: int | None = None, empty: Empty = np.empty
) -> MRCImage:
    """Read a micrograph, with `section` one image of a stack, or with `ndim=3` a whole volume or stack.

    Modes 0, 1, 2, 6 and 12 become int8 (uint8 where the header's statistics indicate it), int16, float32, uint16
    and float16. An uncompressed file is read once, into the array that is returned. Headers are read leniently;
    deviations from the standard are in `warnings`.

    Args:
        path: an MRC file, plain or compressed with gzip or bzip2.
        ndim: 2 → data (ny, nx), and a file with several sections is refused; 3 → data (nz, ny, nx).
        section: of a stack such as a tilt series, counted from 0; data (ny, nx).
        empty: makes the array to read into, for example in pinned memory.

    Raises:
        DataError: as for `read_header`; a compressed file is damaged or too short; there is no such section.
        HostError: not enough memory for the pixels.
    """
    path = Path(path)
    with _opened(path) as (file, compression):
        header = _checked_header(path, file, compression, ndim if section is None else 3)
        if section is not None and not 0 <= section < header.sections:
            raise DataError(f"{path}: has no section {section}; its {header.sections} sections are counted from 0")
        sections = (header.sections,) if ndim == 3 and section is None else ()
        try:
            extended = bytearray(header.extended_bytes)
            data = empty(sections + header.shape, header.dtype)
        except MemoryError as error:
            raise HostError(
                f"{path}: its pixels take {header.data_bytes} bytes of memory, more than there is"
            ) from error
        found = HEADER_BYTES + _fill(file, memoryview(extended))
        end = header.file_bytes
        if section is not None and found == header.data_offset:
            found = file.seek(header.data_offset + section * data.nbytes)
            end = found + data.nbytes
        if found >= header.data_offset:
            found += _fill(file, data.reshape(-1).view(np.uint8).data)
        if found < end:
            raise _too_short(header, found)
        warnings = list(header.warnings)
        if section is None and file.read(1):
            warnings.append(f"the file continues after the {header.file_bytes} bytes that its header describes")
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
    """Write a micrograph (ny, nx) or volume (nz, ny, nx) as MRC2014, mode 2 or 12, atomically; see `atomic_write`.

    Args:
        path: the final name.
        image: finite values.
        like: voxel size, origin, start, labels and extended header are taken from it.
        label: provenance, at most 80 characters; the oldest of ten labels makes room for it.
        pixel_size: Å per pixel that was used. Needed without `like`; where the header of `like` has the same size
            (to rounding) its cell is kept as it is, where it has none or another one this size is written.
        dtype: float16 halves the file and keeps 11 significant bits.
        statistics: of the image, where they are known; they are computed otherwise.

    Raises:
        DataError: values that are not finite, or that float16 cannot hold.
        HostError: the folder cannot be written to or has no room.
    """
    path = Path(path)
    stored, found = as_stored(path, image, dtype, statistics)
    extended = like.extended if like is not None and _carries_extended(like.header) else b""
    fields = compose_header(
        stored.shape, stored.dtype, found, like.header if like else None, len(extended), label, pixel_size
    )
    with atomic_write(path, size=HEADER_BYTES + len(extended) + stored.nbytes) as file:
        file.write(fields.tobytes())
        file.write(extended)
        file.write(stored.reshape(-1).view(np.uint8).data)


def write_stack(
    path: Path | str,
    sections: Iterable[npt.ArrayLike],
    *,
    like: MRCImage,
    label: str,
    pixel_size: float | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write the images of a stack, such as a tilt series, one by one into a file that appears when it is complete.

    The header is that of the stack that the images came from: number of sections, space group, sampling along z,
    origin, labels and the extended header, where SerialEM and others keep tilt angles. (An extended header of the
    other byte order is left out: its numbers could not be read.)

    Args:
        path: the final name.
        sections: images (ny, nx) of finite values, in order; they may be computed while they are written.
        like: any section of the original stack.
        label: provenance, at most 80 characters.
        pixel_size: as for `write_mrc`.
        dtype: as for `write_mrc`.

    Raises:
        DataError: as for `write_mrc`; the images differ from the original's in shape or number.
        HostError: the folder cannot be written to or has no room.
    """
    path, header = Path(path), like.header
    extended = like.extended if header.native else b""
    shape = (header.sections, *header.shape)
    size = HEADER_BYTES + len(extended) + math.prod(shape) * np.dtype(dtype).itemsize
    found: list[Statistics] = []
    with atomic_write(path, size=size) as file:
        file.seek(HEADER_BYTES + len(extended))
        for section in sections:
            stored, statistics = as_stored(path, section, dtype)
            if stored.shape != header.shape:
                raise DataError(
                    f"{path}: section {len(found)} has the shape {stored.shape}, expected {header.shape} as in "
                    f"{header.path}"
                )
            file.write(stored.reshape(-1).view(np.uint8).data)
            found.append(statistics)
            del section, stored  # the next image is made while nothing holds this one
        if len(found) != header.sections:
            raise DataError(f"{path}: {len(found)} sections to write, expected {header.sections} as in {header.path}")
        known = join_statistics(found)
        fields = compose_header(shape, np.dtype(dtype), known, header, len(extended), label, pixel_size, is_stack=True)
        file.seek(0)
        file.write(fields.tobytes())
        file.write(extended)


def _carries_extended(header: MRCHeader) -> bool:
    """Whether the extended header keeps its meaning in a file of native byte order.

    Its numbers have the byte order of the file, and only some types define them.
    """
    known = {b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5"}
    return header.native and bytes(header.fields["exttyp"]) in known


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, str | None]]:
    """Open a file, decompressing it while it is read; yields the stream and the kind of compression."""
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
        raise DataError(f"{path}: not found; check the name and the folder that names are relative to") from error
    except _UNPACKING_ERRORS as error:
        raise DataError(f"{path}: the compressed file is damaged or cut short ({error}); copy it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _checked_header(path: Path, file: BinaryIO, compression: str | None, ndim: int) -> MRCHeader:
    """Read the header and check that the file is long enough for it."""
    block = bytearray(HEADER_BYTES)
    header = parse_header(path, bytes(block[: _fill(file, memoryview(block))]), compression)
    if compression is None:
        found = os.fstat(file.fileno()).st_size
        if found < header.file_bytes:
            raise _too_short(header, found)
    if ndim == 2 and header.sections != 1:
        raise DataError(
            f"{path}: holds {header.sections} sections, but a micrograph has one; "
            "give motion-corrected sums, not movies or volumes; a tilt stack is known by its ending, .st or .mrcs"
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
    """Fill the buffer from the file; return how many bytes there were."""
    filled = 0
    # One system call returns at most 2 GB, and a pipe or compressed file less.
    while filled < len(buffer):
        count = cast(Any, file).readinto(buffer[filled:])
        if not count:
            break
        filled += count
    return filled
