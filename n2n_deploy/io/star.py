"""`read_micrographs`: a micrograph table read from STAR or cryoSPARC, or made of MRC files."""

import math
from collections.abc import Sequence
from pathlib import Path

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.cryosparc import is_cryosparc, read_cryosparc
from n2n_deploy.io.micrograph_files import describe_files, find_files, is_table
from n2n_deploy.io.micrograph_names import Folders, HalfNames, is_stack
from n2n_deploy.io.micrograph_rows import RowReader, states_ctf
from n2n_deploy.io.micrograph_table import MicrographTable
from n2n_deploy.io.mrc import read_headers
from n2n_deploy.io.read_options import Headers, ReadOptions
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table
from n2n_deploy.io.tilt_series import is_tilt_series, read_tilt_series, series_files

__all__ = ["MicrographTable", "has_ctf", "listed_names", "read_micrographs"]


def read_micrographs(
    source: Path | str | Sequence[Path | str] | StarDocument,
    naming: NamingOptions | None = None,
    *,
    need_ctf: bool = True,
    need_halves: bool = False,
    pixel_size: float | None = None,
    voltage: float | None = None,
    spherical_aberration: float | None = None,
    amplitude_contrast: float | None = None,
    exclude: Path | None = None,
    headers: Headers = read_headers,
) -> MicrographTable:
    """Read a micrograph table, or describe MRC files that come without one.

    RELION 3.0 tables (pixel size from magnification and detector pixel), 3.1 and later (optics groups), RELION 5
    tilt series (one of them, or the global table of all) and cryoSPARC's exposures are read. Relative names start
    at the project folder or at the table's own, whichever has the file.

    Args:
        source: a STAR file or cryoSPARC's .cs file of exposures; or MRC files, globs or text files of names,
            where no CTF is needed; or a document that was not read from a file, whose names start at the current
            folder.
        naming: the project folder, and how halves are named where the table does not say it.
        need_ctf: every micrograph must have a CTF, and not be phase-flipped yet.
        need_halves: every micrograph must have even and odd halves.
        pixel_size: Å, for tables without one, and for files given without a table. A table's value wins over it;
            it wins over the files' headers.
        voltage: kV, for tables and files without one.
        spherical_aberration: mm, for tables and files without one.
        amplitude_contrast: fraction, for tables and files without one.
        exclude: a folder whose files no glob matches, such as the output folder.
        headers: how the headers of files are read where their pixel sizes are needed.

    Returns:
        One record for each row. What is wrong with a single row is in `problems` and affects that row only; what
        the user should know of the whole, such as values that contradict the given ones, is in `notes`. Files are
        not looked for, unless the pixel size must come from them.

    Raises:
        DataError: the file is missing, is not a STAR file, or lists no micrographs; a needed label is missing; a
            value is out of range; a row names an optics group that is not there.
        UsageError: MRC files where a CTF is needed; invalid suffixes, templates or optics.
    """
    naming = naming or NamingOptions()
    project = naming.project
    if project is not None and not project.is_dir():
        raise UsageError(f"{project}: is not a folder; give the project folder that names start at")
    options = ReadOptions(
        half_names=HalfNames(naming.suffixes, naming.even_template, naming.odd_template),
        need_ctf=need_ctf,
        need_halves=need_halves,
        fallback=Optics(
            math.nan if pixel_size is None else pixel_size, voltage, spherical_aberration, amplitude_contrast
        ),
        headers=headers,
    )
    if (document := _document(source)) is not None:
        return _read_table(document, project, options)
    sources = _files(source)
    tables = [str(source) for source in sources if is_table(source)]
    if tables:
        raise UsageError(f"{tables[0]}: is not an MRC file; give one STAR table alone, or MRC files only")
    names, notes = find_files(sources, options.half_names, exclude)
    if need_ctf:
        advice = (
            "RELION 5's table of tilt series with the CTF of each image"
            if is_stack(Path(names[0]))
            else ("a STAR table with CTF parameters")
        )
        raise UsageError(
            f"{names[0]}: an MRC file has no CTF parameters, which phase flipping needs; "
            f"give {advice}, or a model trained with --no-phase-flip"
        )
    if need_halves and not options.half_names:
        raise UsageError(f"{names[0]}: name the halves of the micrographs with --suffixes DW,EVN,ODD or with templates")
    folders = Folders(None, project)
    micrographs, problems, more = describe_files(names, folders, options)
    return MicrographTable(None, micrographs, problems, folders.project, notes=notes + more)


def has_ctf(source: Path | str | Sequence[Path | str] | StarDocument, naming: NamingOptions | None = None) -> bool:
    """Whether a source, as `read_micrographs` takes it, is a table with columns for the CTF, whatever its rows hold.

    Raises:
        DataError: the table is missing, is not a STAR file, or lists no micrographs.
    """
    if (document := _document(source)) is None:
        return False
    if not is_tilt_series(document):
        return states_ctf(micrograph_table(document)[0])
    folders = Folders(document.path.parent, naming.project if naming else None)
    images = (StarDocument.read(file) for file in series_files(document, folders).values())
    return any(states_ctf(micrograph_table(each)[0]) for each in images)


def listed_names(path: Path) -> frozenset[str]:
    """The names (`Micrograph.name`) of the micrographs that a table lists, without looking at anything else.

    Args:
        path: a STAR file, such as the `failed.star` of an earlier run; also the global table of tilt series.

    Raises:
        DataError: the file is missing, is not a STAR file, or lists no micrographs.
    """
    document = StarDocument.read(path)
    if not is_tilt_series(document):
        return frozenset(document.columns(micrograph_table(document)[0], (NAME,))[NAME])
    names: set[str] = set()
    for series, file in series_files(document, Folders(path.parent)).items():
        images = StarDocument.read(file)
        names |= {f"{series}/{name}" for name in images.columns(micrograph_table(images)[0], (NAME,))[NAME]}
    return frozenset(names)


def _document(source: Path | str | Sequence[Path | str] | StarDocument) -> StarDocument | None:
    """The table that a source means; None where it means MRC files."""
    if isinstance(source, StarDocument):
        return source
    sources = _files(source)
    if len(sources) != 1 or not is_table(sources[0]):
        return None
    path = Path(sources[0])
    return read_cryosparc(path) if is_cryosparc(path) else StarDocument.read(path)


def _files(source: Path | str | Sequence[Path | str] | StarDocument) -> list[Path | str]:
    assert not isinstance(source, StarDocument)
    return [source] if isinstance(source, (str, Path)) else list(source)


def _read_table(document: StarDocument, project: Path | None, options: ReadOptions) -> MicrographTable:
    path = document.path
    if is_tilt_series(document):
        return read_tilt_series(path, document, project, options)
    table, groups = micrograph_table(document)
    folders = Folders(path.parent, project)
    rows = RowReader(document, table, groups, folders, options)
    return MicrographTable(path, rows.micrographs, rows.problems, folders.project, document, rows.notes)
