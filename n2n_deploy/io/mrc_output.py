"""The parts of a written MRC file: pixels in their stored type, and a header that describes them correctly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.mrc_header import MRCHeader, label_bytes

Statistics = tuple[float, float, float, float]
"""Minimum, maximum, mean and standard deviation of an image, in float64."""

_MODES = {"float32": 2, "float16": 12}
_LABELS, LABEL_LENGTH = 10, 80
_CHUNK = 1 << 16
_SAME_SIZE = 1e-4
"""Relative difference up to which two pixel sizes are one, rounded in a table or in float32."""
_MACHINE_STAMP = {"little": (0x44, 0x44, 0, 0), "big": (0x11, 0x11, 0, 0)}


def as_stored(
    path: Path, image: npt.ArrayLike, dtype: str, known: Statistics | None = None
) -> tuple[npt.NDArray[Any], Statistics]:
    """Return the image, C-contiguous, in the type that the file will have, and its statistics in that type.

    Args:
        path: named in messages.
        image: (ny, nx) or (nz, ny, nx).
        dtype: "float32" or "float16".
        known: statistics of the image, where they are known.

    Raises:
        DataError: values that are not finite, or that float16 cannot hold.
        UsageError: another number of dimensions or another type.
    """
    array = np.asarray(image)
    if dtype not in _MODES:
        raise UsageError(f"{path}: invalid type {dtype}; outputs are float32 or float16")
    if array.ndim not in (2, 3) or not array.size:
        raise UsageError(f"{path}: only images (ny, nx) and volumes (nz, ny, nx) can be written, not {array.shape}")
    if known is None and array.dtype == dtype:
        known = statistics(array)
    found = (float(array.min()), float(array.max())) if known is None else known
    if not np.isfinite(found).all():
        raise DataError(f"{path}: not written, as the image has values that are not finite; check the input")
    largest = max(map(abs, found[:2]))
    with np.errstate(over="ignore"):
        limit = np.dtype(dtype).type(largest)
    if not np.isfinite(limit):
        advice = "write float32" if dtype == "float16" else "rescale the input"
        raise DataError(f"{path}: the largest value, {largest:g}, exceeds the range of {dtype}; {advice}")
    if dtype == "float16" and 0 < largest < np.finfo(np.float16).tiny:
        raise DataError(f"{path}: the largest value, {largest:g}, is too small for float16; write float32")
    stored = np.ascontiguousarray(array, dtype)
    return stored, known if known is not None and stored.dtype == array.dtype else statistics(stored)


def compose_header(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    known: Statistics,
    like: MRCHeader | None,
    extended_bytes: int,
    label: str,
    pixel_size: float | None,
    *,
    is_stack: bool = False,
) -> np.ndarray[Any, Any]:
    """Return all fields of the header (0-dimensional `HEADER_DTYPE`).

    Args:
        shape: (ny, nx) or (nz, ny, nx) of the pixels.
        dtype: of the stored pixels, float32 or float16.
        known: statistics of the stored pixels.
        like: where voxel size, origin, start and labels come from.
        extended_bytes: size of the extended header that follows; 0 for none.
        label: provenance, at most 80 characters.
        pixel_size: Å per pixel that was used; None for that of `like`.
        is_stack: the sections are images, not a volume: space group and sampling along z stay those of `like`.
    """
    if len(label) > LABEL_LENGTH:
        raise ValueError(f"an MRC label has at most {LABEL_LENGTH} characters, not {len(label)}: {label}")
    fields = np.zeros((), HEADER_DTYPE)
    if like is not None:
        fields[...] = like.fields
        if not like.native:
            # Only the program that wrote them knows their types, so their bytes cannot be swapped.
            fields["extra1"] = fields["extra2"] = b""
    nz, ny, nx = (1, *shape)[-3:]
    fields["nx"], fields["ny"], fields["nz"], fields["mode"] = nx, ny, nz, _MODES[dtype.name]
    if is_stack:
        nz = max(1, int(fields["mz"]))
    else:
        fields["ispg"] = 1 if len(shape) == 3 else 0
    _set_cell(fields, (nz, ny, nx), like, pixel_size)
    if sorted((int(fields["mapc"]), int(fields["mapr"]), int(fields["maps"]))) != [1, 2, 3]:
        fields["mapc"], fields["mapr"], fields["maps"] = 1, 2, 3
    if not all(float(fields["cellb"][angle]) > 0 for angle in ("alpha", "beta", "gamma")):
        fields["cellb"] = (90, 90, 90)
    fields["dmin"], fields["dmax"], fields["dmean"], fields["rms"] = known
    fields["nsymbt"] = extended_bytes
    if not extended_bytes:
        fields["exttyp"] = b""
    fields["nversion"] = 20141
    fields["map"] = b"MAP "
    fields["machst"] = _MACHINE_STAMP["little" if np.little_endian else "big"]
    _set_labels(fields, label)
    return fields


@np.errstate(invalid="ignore")  # ∞ − ∞; the mean shows it
def statistics(pixels: npt.NDArray[Any]) -> Statistics:
    """Compute statistics in one pass over memory; with values that are not finite, mean and deviation are not."""
    flat = pixels.reshape(-1)
    # The variance is summed about a value near the mean: about 0 it would be lost to rounding when the mean is large.
    about = float(flat[:_CHUNK].mean(dtype=np.float64))
    total = squares = 0.0
    low, high = np.inf, -np.inf
    chunk = np.empty(min(_CHUNK, flat.size), np.float64)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        if part.dtype == np.float16:
            # Exact, and several times as fast as float16 arithmetic.
            part = part.astype(np.float32)
        # Cast, then subtract: NumPy crashes the process when a ufunc that casts gets no memory for its buffers.
        values = chunk[: part.size]
        values[:] = part
        values -= about
        total += float(values.sum())
        squares += float(values @ values)
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    mean = total / flat.size
    return low, high, about + mean, float(np.sqrt(max(squares / flat.size - mean**2, 0.0)))


def join_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of several images of one size together."""
    low, high, means, deviations = (np.array(values) for values in zip(*parts, strict=True))
    variance = np.mean(deviations**2) + means.var()
    return float(low.min()), float(high.max()), float(means.mean()), float(np.sqrt(variance))


def _set_cell(
    fields: np.ndarray[Any, Any],
    shape: tuple[int, int, int],
    like: MRCHeader | None,
    pixel_size: float | None,
) -> None:
    """Set cell and sampling to a pixel size, or keep those of `like` where they are valid and have that size."""
    stated = None if like is None else like.pixel_size
    if stated is not None and (pixel_size is None or abs(pixel_size / stated - 1) < _SAME_SIZE):
        sampling = (int(fields["mz"]), int(fields["my"]), int(fields["mx"]))
        if sampling == shape and _valid_cell(fields):
            return
        pixel_size = stated
    nz, ny, nx = shape
    fields["mx"], fields["my"], fields["mz"] = nx, ny, nz
    size = pixel_size or 0.0
    fields["cella"] = (size * nx, size * ny, size * nz)


def _valid_cell(fields: np.ndarray[Any, Any]) -> bool:
    sides = [float(fields["cella"][axis]) for axis in "xyz"]
    return all(np.isfinite(side) and side > 0 for side in sides)


def _set_labels(fields: np.ndarray[Any, Any], label: str) -> None:
    """Close the gaps between the labels and add one; the oldest is dropped when there are too many."""
    labels = [old.decode("ascii", "replace").replace("�", "?").encode() for old in label_bytes(fields)]
    labels = [*labels, label.encode("ascii", "replace")][-_LABELS:]
    fields["label"] = labels + [b""] * (_LABELS - len(labels))
    fields["nlabl"] = len(labels)
