"""Micrographs given as MRC files, without a table: what their headers say, and a table made of it."""

import glob
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_names import Folders, HalfNames
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import quoted

Headers = Callable[[Sequence[Path]], Sequence[MRCHeader | N2NError]]
"""Reads the headers of files; in place of one that cannot be read, why."""

_MRC_ENDINGS = (".mrc", ".mrcs", ".map", ".rec")
_LIST_ENDINGS = (".txt", ".lst", ".list")

# RELION reads no optics group without voltage and Cs; zeros say that they are not known.
_OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnMicrographPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
"""
_MICROGRAPHS = """
# version 30001

data_micrographs

loop_
_rlnMicrographName #1
"""


def is_table(source: Path | str) -> bool:
    """Whether one argument means a STAR table, and not MRC files, a glob of them or a list."""
    name = str(source)
    plain = name.removesuffix(".gz").removesuffix(".bz2")
    is_glob = glob.has_magic(name) and not Path(name).exists()
    return not is_glob and not plain.endswith((*_MRC_ENDINGS, *_LIST_ENDINGS)) and not Path(name).is_dir()


def find_files(sources: Sequence[Path | str], half_names: HalfNames) -> list[str]:
    """Expand globs and lists to file names, each once, in a fixed order.

    Args:
        sources: MRC files, globs (`**` for any depth), or text files (.txt, .lst, .list), a name a line.
        half_names: with suffixes, files found by a glob that are halves themselves are left out.

    Raises:
        DataError: a glob matches nothing, a source is a folder, or a list cannot be read.
    """
    names: list[str] = []
    for source in map(str, sources):
        path = Path(source)
        if path.is_dir():
            raise DataError(f"{source}: is a folder; give a STAR table, MRC files or a glob such as '{source}/*.mrc'")
        if path.suffix in _LIST_ENDINGS:
            try:
                lines = path.read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{source}: cannot be read as a list of file names: {error}") from error
            names += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        elif glob.has_magic(source) and not path.exists():
            found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
            found = [name for name in found if not half_names.is_half(Path(name))]
            if not found:
                raise DataError(f"{source}: no file matches; check the pattern and the folder it starts in")
            names += found
        else:
            names.append(source)
    if not names:
        raise DataError(f"{', '.join(map(str, sources)) or 'nothing'}: no micrographs given; name at least one file")
    return list(dict.fromkeys(names))


def describe_files(
    names: Sequence[str], folders: Folders, half_names: HalfNames, *, pixel_size: float | None, headers: Headers
) -> tuple[list[Micrograph], dict[int, str]]:
    """Make records of files from their headers; they have no CTF.

    Args:
        names: of files.
        folders: where relative names start.
        half_names: how halves are named, if they are.
        pixel_size: Å, for files that do not say it.
        headers: reads them.

    Returns:
        The records, one for each name, and for those that cannot be used the reason by index.
    """
    micrographs = []
    problems: dict[int, str] = {}
    paths = [folders.locate(name) for name in names]
    for row, (name, path, header) in enumerate(zip(names, paths, headers(paths), strict=True)):
        size: float | None = None
        if isinstance(header, N2NError):
            problems[row] = str(header)
        else:
            size = header.pixel_size or pixel_size
            if size is None:
                problems[row] = f"{path}: the header does not say the pixel size; give a STAR table that does"
        even, odd = half_names.of(path, folders) if half_names else (None, None)
        micrographs.append(Micrograph(name, path, Optics(math.nan if size is None else size), None, even, odd, row))
    return micrographs, problems


def make_table(micrographs: Sequence[Micrograph], names: Mapping[int, str]) -> str:
    """Write a RELION 3.1 table of files that came without one, an optics group for each pixel size.

    Args:
        micrographs: as `describe_files` made them.
        names: the rows to list and the names to list them by.

    Returns:
        The text of a STAR file. Where a pixel size is not known there are no optics groups: whoever reads
        that table asks the headers again.
    """
    kept = [micrograph for micrograph in micrographs if micrograph.row in names]
    sizes = list(dict.fromkeys(micrograph.optics.pixel_size for micrograph in kept))
    if any(math.isnan(size) for size in sizes):
        rows = "".join(f"{quoted(names[micrograph.row])}\n" for micrograph in kept)
        return f"{_MICROGRAPHS}{rows}\n"
    groups = "".join(f"opticsGroup{index} {index} {size:.7g} {size:.7g} 0 0\n" for index, size in enumerate(sizes, 1))
    group_of = {size: index for index, size in enumerate(sizes, 1)}
    rows = "".join(f"{quoted(names[micrograph.row])} {group_of[micrograph.optics.pixel_size]}\n" for micrograph in kept)
    return _OPTICS + groups + "\n" + _MICROGRAPHS + "_rlnOpticsGroup #2\n" + rows + "\n"
