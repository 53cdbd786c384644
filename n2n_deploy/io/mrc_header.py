"""The 1024-byte MRC header, read leniently: deviations from the standard are warnings where the pixels are certain.

Sources: MRC2014 (Cheng et al., J. Struct. Biol. 192, 2015), and IMOD's conventions for older files.
"""

import math
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.other_formats import other_format

HEADER_BYTES: int = HEADER_DTYPE.itemsize

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
"""MRC modes that hold real pixels, and NumPy's codes for them."""

_FIELDS = {order: HEADER_DTYPE.newbyteorder(order) for order in "<>"}
_REFUSED_MODES = {3: "complex int16", 4: "complex float32", 16: "RGB", 101: "4-bit integers"}
_LARGEST_SIDE = 1 << 20
_LARGEST_EXTENDED = 1 << 30
_IMOD_STAMP = 1146047817
_UNEQUAL = 1e-3


@dataclass(frozen=True, slots=True)
class MRCHeader:
    """The header of one file.

    Attributes:
        path: the file.
        sections: number of sections (nz).
        shape: (ny, nx) of a section, in pixels.
        mode: MRC mode.
        dtype: of the pixels in the file, byte order included.
        native: whether the file has this machine's byte order.
        pixel_size: Å per pixel along x; None where the header has none.
        labels: the text labels, oldest first.
        extended_bytes: size of the extended header.
        compression: "gzip" or "bzip2"; None for a plain file.
        fields: all fields (`mrcfile.dtypes.HEADER_DTYPE`, 0-dimensional, native byte order).
        warnings: one line for each deviation from the standard.
    """

    path: Path
    sections: int
    shape: tuple[int, int]
    mode: int
    dtype: np.dtype[Any]
    native: bool
    pixel_size: float | None
    labels: tuple[str, ...]
    extended_bytes: int
    compression: str | None
    fields: np.ndarray[Any, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def data_offset(self) -> int:
        """Bytes before the first pixel."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def data_bytes(self) -> int:
        """Bytes of all pixels."""
        return self.sections * self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Size of the whole file in bytes, uncompressed."""
        return self.data_offset + self.data_bytes


def parse_header(path: Path, block: bytes, compression: str | None = None) -> MRCHeader:
    """Interpret the first 1024 bytes of a file.

    The byte order is the one in which size, mode and extended header are plausible. The machine stamp, which old
    programs left empty or wrong, only decides where both orders are.

    Args:
        path: named in messages.
        block: the file's first 1024 bytes, or all of it where it is shorter.
        compression: how the file is compressed, for the record.

    Raises:
        DataError: not an MRC file, or of a mode other than real pixels.
    """
    if (other := other_format(block)) is not None:
        raise DataError(f"{path}: is {other[0]}, not MRC; {other[1]}")
    if len(block) < HEADER_BYTES:
        raise DataError(
            f"{path}: an MRC file has a header of {HEADER_BYTES} bytes, this one ends after {len(block)}; "
            "copy or write it again"
        )
    warnings: list[str] = []
    order = _byte_order(path, block, warnings)
    stored = np.frombuffer(bytearray(block), _FIELDS[order], count=1)  # writable
    fields = stored.reshape(()).astype(HEADER_DTYPE, copy=False)
    mode = int(fields["mode"])
    if mode in _REFUSED_MODES:
        raise DataError(
            f"{path}: MRC mode {mode} ({_REFUSED_MODES[mode]}) does not hold real pixels; "
            "convert it to mode 0, 1, 2, 6 or 12"
        )
    if bytes(fields["map"]).rstrip(b"\0 ") != b"MAP":
        warnings.append("the header has no 'MAP ' identifier; the file may be older than MRC2014")
    code = MODES[mode]
    if mode == 0 and _unsigned_bytes(block, order, float(fields["dmax"])):
        code = "u1"
        warnings.append("mode 0 was read as unsigned bytes, following the header's statistics or its IMOD stamp")
    return MRCHeader(
        path=path,
        sections=int(fields["nz"]),
        shape=(int(fields["ny"]), int(fields["nx"])),
        mode=mode,
        dtype=np.dtype(code).newbyteorder(order),
        native=(order == "<") == (sys.byteorder == "little"),
        pixel_size=_pixel_size(fields, warnings),
        labels=tuple(label.decode("ascii", "replace").rstrip() for label in label_bytes(fields)),
        extended_bytes=int(fields["nsymbt"]),
        compression=compression,
        fields=fields,
        warnings=warnings,
    )


def label_bytes(fields: np.ndarray[Any, Any]) -> list[bytes]:
    """Return the labels that are not blank, oldest first."""
    return [label for label in fields["label"].tolist() if label.strip()]


def _byte_order(path: Path, block: bytes, warnings: list[str]) -> Literal["<", ">"]:
    """Little endian ('<') or big ('>')."""
    stamp = block[212:216]
    stamps: dict[bytes, Literal["<", ">"]] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
    stamped = stamps.get(stamp[:2])
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if stamped == ">" else ("<", ">")
    for order in orders:
        if _plausible(block, order):
            if stamped is None:
                warnings.append(f"invalid machine stamp {stamp.hex()}; the byte order was guessed")
            elif order != stamped:
                warnings.append(f"the machine stamp {stamp.hex()} contradicts the byte order of the header")
            return order
    nx, ny, nz, mode = struct.unpack((stamped or "<") + "4i", block[:16])
    raise DataError(
        f"{path}: not an MRC file: its header reads {nx} × {ny} × {nz} pixels of mode {mode}, "
        "expected mode 0, 1, 2, 6 or 12; give MRC micrographs"
    )


def _plausible(block: bytes, order: str) -> bool:
    nx, ny, nz, mode = struct.unpack(order + "4i", block[:16])
    (extended,) = struct.unpack(order + "i", block[92:96])
    sides = all(0 < side <= _LARGEST_SIDE for side in (nx, ny, nz))
    return sides and (mode in MODES or mode in _REFUSED_MODES) and 0 <= extended <= _LARGEST_EXTENDED


def _unsigned_bytes(block: bytes, order: str, largest: float) -> bool:
    """Whether mode 0 means 0 to 255, as before MRC2014, rather than −128 to 127."""
    stamp, flags = struct.unpack(order + "2i", block[152:160])
    if stamp == _IMOD_STAMP:
        return not flags & 1
    return largest > 127


def _pixel_size(fields: np.ndarray[Any, Any], warnings: list[str]) -> float | None:
    """Å per pixel along x."""
    cell = fields["cella"]
    x = float(cell["x"]) / (int(fields["mx"]) or math.nan)
    y = float(cell["y"]) / (int(fields["my"]) or math.nan)
    if not (math.isfinite(x) and x > 0):
        warnings.append("the header has no pixel size")
        return None
    if not abs(y / x - 1) < _UNEQUAL:
        warnings.append(f"the header says {x:g} Å per pixel along x and {y:g} along y; that along x is used")
    # Through float32, most sizes are off by up to 1e-7 of the number that was meant.
    return float(f"{x:.7g}")
