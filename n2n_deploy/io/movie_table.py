"""The movies of a run: files, globs and lists of names, or a RELION table of movies or motion-corrected micrographs."""

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_files import expand_sources
from n2n_deploy.io.micrograph_names import Folders, HalfNames
from n2n_deploy.io.movie_files import MOVIE_ENDINGS
from n2n_deploy.io.mrc import read_headers
from n2n_deploy.io.optics_groups import ROW_LABELS, OpticsReader
from n2n_deploy.io.read_options import ReadOptions
from n2n_deploy.io.star_document import NAME, StarDocument, StarTable

MOVIE, METADATA = "rlnMicrographMovieName", "rlnMicrographMetadata"
_ORIGINAL_SIZE, _GROUP = "rlnMicrographOriginalPixelSize", "rlnOpticsGroup"


@dataclass(frozen=True, slots=True)
class MovieRecord:
    """One movie of a run.

    Attributes:
        name: as the user or the table names it; outputs mirror its folders.
        path: the movie; None where its motion table names it.
        motion: the motion table, where one is known.
        optics: voltage, spherical aberration and amplitude contrast where known; the pixel size is that of the frames,
            NaN where it is not known.
        row: index in the table, or among the files.
    """

    name: str
    path: Path | None
    motion: Path | None
    optics: Optics
    row: int


@dataclass(frozen=True)
class MovieTable:
    """The movies of a run.

    Attributes:
        movies: in order.
        folders: where names start.
        document: the table of micrographs that outputs are to be entered into; None for files and tables of movies.
        table: within the document.
        notes: what a user should know, one line each.
    """

    movies: list[MovieRecord]
    folders: Folders
    document: StarDocument | None = None
    table: StarTable | None = None
    notes: list[str] = field(default_factory=list)


def read_movies(
    sources: Sequence[Path | str],
    *,
    motion: str | None = None,
    project: Path | None = None,
    fallback: Optics | None = None,
) -> MovieTable:
    """Find the movies that sources stand for.

    Args:
        sources: movie files, globs, lists of names (.txt, .lst, .list); or one STAR file that lists movies
            (`rlnMicrographMovieName`) or micrographs with their motion (`rlnMicrographMetadata`).
        motion: template of the motion tables' names with {folder}, {stem} and {name} of the movie; it may be a glob
            that matches one file. It wins over the table's own.
        project: folder that relative names start at; None to try the current one, the table's and those above it.
        fallback: optics where the table has none.

    Raises:
        DataError: nothing is found, or the table cannot be used.
        UsageError: a table beside other sources, or an invalid template.
    """
    fallback = fallback or Optics(math.nan)
    tables = [Path(source) for source in sources if Path(source).suffix == ".star"]
    if tables and len(sources) > 1:
        raise UsageError(f"{tables[0]}: give one STAR table alone, or movie files only")
    if tables:
        return _from_star(tables[0], motion, project, fallback)
    folders = Folders(None, project)
    names = expand_sources(sources, _expand, "movies", "movies", "*.tiff")
    paths = [folders.locate(name) for name in names]
    movies = [
        MovieRecord(name, path, _motion_of(motion, path, folders), fallback, row)
        for row, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    return MovieTable(movies, folders)


def _expand(source: str) -> list[str]:
    """The movies that a glob matches."""
    found = [name for name in sorted(glob.glob(source, recursive=True)) if name.lower().endswith(MOVIE_ENDINGS)]  # noqa: PTH207
    if not found:
        raise DataError(f"{source}: no movie matches; check the pattern and the folder it starts in")
    return found


def _from_star(path: Path, motion: str | None, project: Path | None, fallback: Optics) -> MovieTable:
    document = StarDocument.read(path)
    groups = next((table for table in document.tables if table.block == "optics"), None)
    table = next((found for found in document.tables if {MOVIE, METADATA} & set(found.labels)), None)
    if table is None or not len(table):
        raise DataError(
            f"{path}: lists no {MOVIE} and no {METADATA}; give the table of imported movies, or of motion-corrected "
            "micrographs"
        )
    columns = document.columns(table, {NAME, MOVIE, METADATA, *ROW_LABELS})
    options = ReadOptions(HalfNames(), need_ctf=False, need_halves=False, fallback=fallback, headers=read_headers)
    reader = OpticsReader(document, table, groups, {}, options)
    optics = [
        Optics(size, each.voltage, each.spherical_aberration, each.amplitude_contrast)
        for each, size in zip(reader.read(columns), _frame_sizes(document, groups, columns, fallback), strict=True)
    ]
    folders = Folders(path.parent, project)
    movies = []
    for row, each in enumerate(optics):
        movie = folders.locate(columns[MOVIE][row]) if MOVIE in columns else None
        name = (columns[NAME] if NAME in columns else columns.get(MOVIE, columns.get(METADATA, [])))[row]
        found = _motion_of(motion, movie or Path(name), folders)
        if found is None and METADATA in columns:
            found = folders.locate(columns[METADATA][row])
        movies.append(MovieRecord(name, movie, found, each, row))
    is_micrographs = NAME in columns
    return MovieTable(
        movies, folders, document if is_micrographs else None, table if is_micrographs else None, reader.notes
    )


def _frame_sizes(
    document: StarDocument, groups: StarTable | None, columns: dict[str, list[str]], fallback: Optics
) -> list[float]:
    """The frames' pixel size of each row, from its optics group; NaN where it has none."""
    count = len(next(iter(columns.values())))
    if groups is None or _ORIGINAL_SIZE not in groups.labels:
        return [fallback.pixel_size] * count
    values = document.columns(groups, (_GROUP, _ORIGINAL_SIZE))
    numbers = values.get(_GROUP, [str(index + 1) for index in range(len(groups))])
    try:
        sizes = {number: float(size) for number, size in zip(numbers, values[_ORIGINAL_SIZE], strict=True)}
    except ValueError as error:
        raise DataError(f"{document.path}: {_ORIGINAL_SIZE} is not a number ({error}); correct the table") from error
    rows = columns.get(_GROUP, [numbers[0]] * count)
    return [sizes.get(row, fallback.pixel_size) for row in rows]


def _motion_of(template: str | None, movie: Path, folders: Folders) -> Path | None:
    """The motion table of a movie by the template; None without a template."""
    if template is None:
        return None
    try:
        name = template.format(folder=movie.parent, stem=movie.stem, name=movie.name)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UsageError(f"invalid template {template}; its fields are {{folder}}, {{stem}} and {{name}}") from error
    if not glob.has_magic(name):
        return folders.locate(name)
    # A stem with brackets would be taken for a pattern.
    pattern = template.format(
        folder=glob.escape(str(movie.parent)), stem=glob.escape(movie.stem), name=glob.escape(movie.name)
    )
    found = sorted(glob.glob(pattern))  # noqa: PTH207
    return Path(found[0]) if len(found) == 1 else Path(name)
