"""Micrograph tables: read from STAR or cryoSPARC or made of MRC files, and written again with other names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from n2n_deploy.core.errors import UsageError
from n2n_deploy.io.cryosparc import is_cryosparc, read_cryosparc
from n2n_deploy.io.micrograph_files import Headers, describe_files, find_files, is_table, make_table
from n2n_deploy.io.micrograph_names import Folders, HalfNames
from n2n_deploy.io.micrograph_rows import RowReader
from n2n_deploy.io.mrc import read_headers
from n2n_deploy.io.optics_groups import FLIPPED, is_set
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table


class MicrographTable:
    """Micrographs as read from a table, and the table itself, to be written again with other names.

    Attributes:
        path: the STAR or .cs file; None where MRC files were given.
        micrographs: one for each row, in order; `micrographs[row].row == row`.
        problems: why a row cannot be used, by row; missing files are not looked for.
        project: folder that relative names start at.
        document: the STAR file; None where MRC files were given.
    """

    def __init__(
        self,
        path: Path | None,
        micrographs: list[Micrograph],
        problems: Mapping[int, str],
        project: Path,
        document: StarDocument | None = None,
    ) -> None:
        self.path = path
        self.micrographs = micrographs
        self.problems = problems
        self.project = project
        self.document = document

    def __len__(self) -> int:
        return len(self.micrographs)

    def name_of(self, path: Path | str) -> str:
        """Give the name by which a table refers to a file: relative to the project, or else absolute."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100
        if absolute.is_relative_to(self.project):
            return str(absolute.relative_to(self.project))
        return str(absolute)

    def write(self, path: Path | str, names: Mapping[int, str], *, phase_flipped: bool | None = None) -> None:
        """Write the table with some of its rows under other names; all else stays byte for byte; see `select`.

        Args:
            path: the STAR file to write.
            names: `rlnMicrographName` by row; rows that are not named are left out.
            phase_flipped: as for `select`.

        Raises:
            UsageError: the path is that of the table that was read.
            HostError: the folder cannot be written to or has no room.
        """
        path = Path(path)
        if self.path is not None and path.resolve() == self.path.resolve():
            raise UsageError(f"{path}: is the table that was read; write to another one")
        self.select(names, phase_flipped=phase_flipped).write(path)

    def select(self, names: Mapping[int, str], *, phase_flipped: bool | None = None) -> StarDocument:
        """Give the table with some of its rows under other names; all else stays byte for byte.

        Columns, optics groups, unknown blocks and comments are kept, numbers are not formatted anew. Where
        MRC files were given, a RELION 3.1 table is made, with an optics group for each pixel size.

        Args:
            names: `rlnMicrographName` by row; rows that are not named are left out.
            phase_flipped: whether the phases of what the names mean were flipped on the way, for
                `rlnCtfDataArePhaseFlipped` (in the optics groups, or in the rows before RELION 3.1); what was
                flipped before stays so. None leaves the label as it is.
        """
        rows = sorted(names)
        if self.document is None:
            document = StarDocument(self.project, make_table(self.micrographs, names))
            table, groups = micrograph_table(document)
        else:
            document = self.document.copy()
            table, groups = micrograph_table(document)
            document.keep_rows(table, rows)
            document.set_column(table, NAME, {index: names[row] for index, row in enumerate(rows)})
        if phase_flipped is not None:
            flagged = groups or table
            before = document.columns(flagged, (FLIPPED,)).get(FLIPPED, [""] * len(flagged))
            flags = {row: str(int(phase_flipped or is_set(value))) for row, value in enumerate(before)}
            document.set_column(flagged, FLIPPED, flags)
        return document


def read_micrographs(
    source: Path | str | Sequence[Path | str],
    *,
    project: Path | str | None = None,
    suffixes: tuple[str, str, str] | None = None,
    even_template: str | None = None,
    odd_template: str | None = None,
    need_ctf: bool = True,
    need_halves: bool = False,
    pixel_size: float | None = None,
    headers: Headers = read_headers,
) -> MicrographTable:
    """Read a micrograph table, or describe MRC files that come without one.

    RELION 3.0 tables (pixel size from magnification and detector pixel), 3.1 and later (optics groups) and
    tilt series are read. Relative names start at the project folder or at the table's own,
    whichever has the file.

    Args:
        source: a STAR file or cryoSPARC's .cs file of exposures; or MRC files, globs or text files of names,
            where no CTF is needed.
        project: the project folder; None to try the current folder, then the table's and each one above it.
        suffixes: (whole, even, odd) to find the halves by; see `HalfNames`. Wins over the table's own labels.
        even_template: of the even half's name, with {folder}, {stem}, {name} and {ending} of the whole sum.
        odd_template: of the odd half's.
        need_ctf: every micrograph must have a CTF, and not be phase-flipped yet.
        need_halves: every micrograph must have even and odd halves.
        pixel_size: Å, for micrographs whose table, or header, does not say it.
        headers: how the headers of files are read where their pixel sizes are needed.

    Returns:
        One record for each row. What is wrong with a single row is in `problems` and costs that row only.
        Whether the files exist is not looked into, unless the pixel size must come from them.

    Raises:
        DataError: the file is missing, no STAR file, or lists no micrographs; a needed label is missing; a
            pixel size is not above 0; a row names an optics group that is not there.
        UsageError: MRC files where a CTF is needed; suffixes or templates that make no sense.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    project = Path(project) if project is not None else None
    if project is not None and not project.is_dir():
        raise UsageError(f"{project}: is no folder; give the project folder that names start at")
    half_names = HalfNames(suffixes, even_template, odd_template)
    if len(sources) == 1 and is_table(sources[0]):
        return _read_star(
            Path(sources[0]),
            project,
            half_names,
            need_ctf=need_ctf,
            need_halves=need_halves,
            pixel_size=pixel_size,
            headers=headers,
        )
    tables = [str(source) for source in sources if is_table(source)]
    if tables:
        raise UsageError(f"{tables[0]}: is no MRC file; give one STAR table alone, or MRC files only")
    names = find_files(sources, half_names)
    if need_ctf:
        raise UsageError(
            f"{names[0]}: an MRC file says nothing of its CTF, which phase flipping needs; "
            "give a STAR table with CTF parameters, or a model trained with --no-phase-flip"
        )
    if need_halves and not half_names:
        raise UsageError(f"{names[0]}: name the halves of the micrographs with --suffixes DW,EVN,ODD or templates")
    folders = Folders(None, project)
    micrographs, problems = describe_files(names, folders, half_names, pixel_size=pixel_size, headers=headers)
    return MicrographTable(None, micrographs, problems, folders.project)


def _read_star(
    path: Path,
    project: Path | None,
    half_names: HalfNames,
    *,
    need_ctf: bool,
    need_halves: bool,
    pixel_size: float | None,
    headers: Headers,
) -> MicrographTable:
    document = read_cryosparc(path) if is_cryosparc(path) else StarDocument.read(path)
    table, groups = micrograph_table(document)
    folders = Folders(path.parent, project)
    rows = RowReader(
        document,
        table,
        groups,
        folders,
        half_names,
        need_ctf=need_ctf,
        need_halves=need_halves,
        pixel_size=pixel_size,
        headers=headers,
    )
    return MicrographTable(path, rows.micrographs, rows.problems, folders.project, document)
