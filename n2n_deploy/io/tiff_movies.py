"""TIFF and EER movies, read through tifffile and imagecodecs (the extra `movies`).

An EER file (Guo et al., IUCrJ 7, 2020) is a BigTIFF file with a page for each frame of the detector. A page lists
electron events: the number of pixels to skip (8 bits, 7 bits, or as its tags say) and the position within the pixel on
a 4 × 4 grid. Codecs 65000, 65001 and 65002 are these three. The largest number of skipped pixels means that no event
follows; with 8 bits a position that means nothing follows all the same, as RELION's `renderEER.cpp` reads it, while
imagecodecs reads none. Codec 65000 is therefore decoded here.
"""

import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.io.movie_files import Frame, Movie

_FIXED, _SEVEN_BITS, _VARIABLE = 65000, 65001, 65002
_BIT_TAGS = (65007, 65008, 65009)
_EXTRA = "pip install 'n2n-deploy[movies]'"
_RESOLUTION_UNITS = {2: 2.54e8, 3: 1.0e8}
"""Å in an inch and in a centimetre."""

# tifffile reports damage on standard error through the last-resort handler; here it becomes a DataError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TIFFMovie(Movie):
    """A TIFF or BigTIFF movie with a page for each frame, compressed or not; its rows are flipped."""

    is_flipped = True

    def __init__(self, path: Path) -> None:
        self._file = open_tiff(path)
        try:
            _check_complete(path, self._file)
            pages = self._file.pages
            frames, first = len(pages), pages[0]
            if first.ndim != 2 or first.dtype is None or first.dtype.kind not in "uif":
                raise DataError(
                    f"{path}: its pages are {first.axes} {first.shape} of type {first.dtype}; expected grey images of "
                    "integers or floats"
                )
            super().__init__(path, frames, first.shape, _pixel_size(first), first.dtype.itemsize)
        except BaseException:
            self._file.close()
            raise

    def read(self, frame: int) -> Frame:
        """See `Movie.read`."""
        page = self._file.pages[frame]
        if page.shape != self.shape:
            raise DataError(f"{self.path}: frame {frame + 1} has the shape {page.shape}, the first one {self.shape}")
        return read_page(self.path, page, f"frame {frame + 1}")[::-1]

    def close(self) -> None:
        """See `Movie.close`."""
        self._file.close()


class EERMovie(Movie):
    """An EER movie, rendered into fractions.

    Args:
        path: the file.
        grouping: frames in a fraction.
        upsampling: 1 for the detector's pixels, 2 for half pixels.
    """

    is_eer = True

    def __init__(self, path: Path, grouping: int, upsampling: int) -> None:
        try:
            import imagecodecs
        except ModuleNotFoundError as error:
            raise HostError(f"{path}: reading EER movies needs imagecodecs; {_EXTRA} brings it") from error
        self._decode = imagecodecs.eer_decode
        self._file = open_tiff(path)
        self._grouping, self._level = grouping, upsampling - 1
        try:
            _check_complete(path, self._file)
            pages = self._file.pages
            # Some programs put the sum of all frames, uncompressed, before the frames.
            self._first = 1 if int(pages[0].compression) == 1 and len(pages) > 1 else 0
            page = pages[self._first]
            codec = int(page.compression)
            if codec not in (_FIXED, _SEVEN_BITS, _VARIABLE):
                raise DataError(
                    f"{path}: its pages have TIFF compression {codec}, expected EER's 65000, 65001 or 65002; "
                    "rename it to .tif if it is a TIFF movie"
                )
            self._is_fixed = codec == _FIXED
            self._bits: tuple[int, ...] = (7, 2, 2)
            if codec == _VARIABLE:
                self._bits = tuple(int(page.tags[tag].value) for tag in _BIT_TAGS)
            raw = len(pages) - self._first
            if raw < grouping:
                raise DataError(
                    f"{path}: has {raw} EER frames, fewer than a fraction of {grouping}; lower --eer-grouping"
                )
            shape = page.imagelength << self._level, page.imagewidth << self._level
            super().__init__(path, raw // grouping, shape, None, 2)
            if rest := raw % grouping:
                self.notes.append(
                    f"{path}: {raw} EER frames make {self.frames} fractions of {grouping}; the last {rest} are left out"
                )
        except BaseException:
            self._file.close()
            raise

    def read(self, frame: int) -> Frame:
        """Count the electrons of a fraction in each pixel: (ny, nx) uint16."""
        counts = np.zeros(self.shape, np.uint16)
        start = self._first + frame * self._grouping
        for index in range(start, start + self._grouping):
            page = self._file.pages[index]
            for offset, size in _strips(page):
                self._file.filehandle.seek(offset)
                events = self._file.filehandle.read(size)
                try:
                    if self._is_fixed:
                        _add_fixed(events, self._level, counts)
                        continue
                    # The decoder wants whole 16-bit words; what follows the last event is not looked at.
                    self._decode(events + bytes(size % 2), self.shape, *self._bits, superres=self._level, out=counts)
                except (ValueError, RuntimeError) as error:
                    raise DataError(
                        f"{self.path}: EER frame {index - self._first + 1} is damaged ({error}); copy the movie again"
                    ) from error
        return counts

    def close(self) -> None:
        """See `Movie.close`."""
        self._file.close()


def _add_fixed(events: bytes, level: int, counts: npt.NDArray[np.uint16]) -> None:
    """Add the events of codec 65000, 12 bits each (8 of skipped pixels, 2 of x, 2 of y, from the lowest), to counts.

    Raises:
        ValueError: they do not end with the frame.
    """
    low, middle, high = np.frombuffer(events + bytes(-len(events) % 3), np.uint8).astype(np.uint16).reshape(-1, 3).T
    codes = np.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], axis=1).reshape(-1)
    skipped = (codes & 255).astype(np.int64)
    is_event = skipped < 255
    pixels = np.cumsum(skipped + is_event) - is_event
    width = counts.shape[1] >> level
    frame = width * (counts.shape[0] >> level)
    end = int(np.searchsorted(pixels, frame))
    if end == len(pixels) or pixels[end] != frame:
        raise ValueError("its events do not end with the frame")
    pixels, codes = pixels[:end][is_event[:end]], codes[:end][is_event[:end]]
    x = (pixels % width << level) | ((codes >> 8 & 3 ^ 2) >> 2 - level)
    y = (pixels // width << level) | ((codes >> 10 ^ 2) >> 2 - level)
    counts[y, x] += 1  # a pixel has at most one event in a frame


def open_tiff(path: Path) -> Any:
    """Open a file with tifffile.

    Raises:
        DataError: it is missing or not TIFF.
        HostError: tifffile is not installed.
    """
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise HostError(f"{path}: reading TIFF and EER files needs tifffile; {_EXTRA} brings it") from error
    try:
        file = tifffile.TiffFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found; check the name and the folder that names are relative to") from error
    except (OSError, tifffile.TiffFileError, ValueError, struct.error) as error:
        raise DataError(f"{path}: cannot be read as TIFF ({error}); copy it again") from error
    if not len(file.pages):
        file.close()
        raise DataError(f"{path}: is a TIFF file without a page; copy it again")
    return file


def read_page(path: Path, page: Any, what: str) -> Frame:
    """Read the pixels of a page.

    Raises:
        DataError: they are damaged.
        HostError: the library for its compression is not installed.
    """
    try:
        pixels: Frame = page.asarray()
    except (ValueError, RuntimeError, OSError, struct.error) as error:
        if "imagecodecs" in str(error):
            raise HostError(
                f"{path}: its compression ({page.compression!r}) needs imagecodecs; {_EXTRA} brings it"
            ) from error
        raise DataError(f"{path}: {what} is damaged ({error}); copy it again") from error
    return pixels


def _check_complete(path: Path, file: Any) -> None:
    """Refuse a file that ends before its last page does.

    A page says where the next one begins, the last one says 0: after a cut the chain leads out of the file, or into
    tags that are not all there.
    """
    size = path.stat().st_size
    spans: list[list[int]] = []
    with suppress(Exception):  # whatever tifffile raises for the page that was cut
        spans += ([start + count for start, count in _strips(page)] for page in file.pages)
    whole = sum(max(ends, default=0) <= size for ends in spans)
    file.filehandle.seek(file.pages.next_page_offset)
    following = file.filehandle.read(8 if file.is_bigtiff else 4)
    if whole < len(file.pages) or any(following) or not following:
        raise DataError(f"{path}: is cut short after {size} bytes, with {whole} whole frames; copy it again")


def _strips(page: Any) -> Iterator[tuple[int, int]]:
    """Where the parts of a page's pixels begin in the file, and how many bytes they have."""
    return zip(page.dataoffsets, page.databytecounts, strict=True)


def _pixel_size(page: Any) -> float | None:
    """Å per pixel from the resolution tags, as RELION and SerialEM write them; None where they hold no such size."""
    if not {"XResolution", "ResolutionUnit"} <= {tag.name for tag in page.tags}:
        return None
    numerator, denominator = page.tags["XResolution"].value
    unit = _RESOLUTION_UNITS.get(int(page.tags["ResolutionUnit"].value))
    if unit is None or not numerator or not denominator:
        return None
    size = unit * denominator / numerator
    # 72 dots per inch, which many programs write by default, would be a third of a millimetre.
    return float(f"{size:.6g}") if size < 100 else None
