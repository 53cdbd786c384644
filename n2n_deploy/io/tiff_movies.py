"""TIFF and EER movies, read through tifffile and imagecodecs (the extra `movies`).

An EER file (Guo et al., IUCrJ 7, 2020) is a BigTIFF file with a page for each frame of the detector. A page lists
electron events: the number of pixels to skip (8 bits, 7 bits, or as its tags say) and the position within the pixel on
a 4 × 4 grid. Codecs 65000, 65001 and 65002 are these three.
"""

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy.core.errors import DataError, HostError
from n2n_deploy.io.movie_files import Frame, Movie

_PACKINGS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_VARIABLE = 65002
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
            pages = self._file.pages
            frames, first = len(pages), pages[0]
            if first.ndim != 2 or first.dtype is None or first.dtype.kind not in "uif":
                raise DataError(
                    f"{path}: its pages are {first.axes} {first.shape} of type {first.dtype}; expected grey images of "
                    "integers or floats"
                )
            _check_complete(path, self._file)
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
            pages = self._file.pages
            # Some programs put the sum of all frames, uncompressed, before the frames.
            self._first = 1 if int(pages[0].compression) == 1 and len(pages) > 1 else 0
            page = pages[self._first]
            codec = int(page.compression)
            if codec not in (*_PACKINGS, _VARIABLE):
                raise DataError(
                    f"{path}: its pages have TIFF compression {codec}, expected EER's 65000, 65001 or 65002; "
                    "rename it to .tif if it is a TIFF movie"
                )
            self._bits = _PACKINGS.get(codec) or tuple(int(page.tags[tag].value) for tag in _BIT_TAGS)
            _check_complete(path, self._file)
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
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                self._file.filehandle.seek(offset)
                events = self._file.filehandle.read(size)
                try:
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

    A page says where the next one begins, the last one says 0: after a cut the chain leads out of the file.
    """
    size = path.stat().st_size
    pages = file.pages
    file.filehandle.seek(pages.next_page_offset)
    following = file.filehandle.read(8 if file.is_bigtiff else 4)
    ends = [start + count for page in pages for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if any(following) or not following or max(ends) > size:
        whole = sum(
            all(start + count <= size for start, count in zip(page.dataoffsets, page.databytecounts, strict=True))
            for page in pages
        )
        raise DataError(f"{path}: is cut short after {size} bytes, with {whole} whole frames; copy it again")


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
