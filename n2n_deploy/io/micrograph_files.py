"""Micrographs given as MRC files without a table: found by name, described by their headers, put into a table."""

import functools
import glob
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.micrograph_names import Folders, HalfNames, split_name
from n2n_deploy.io.read_options import ReadOptions
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star_frames import star_text

_MRC_ENDINGS = (".mrc", ".mrcs", ".map", ".rec", ".st")
_LIST_ENDINGS = (".txt", ".lst", ".list")

_HALF_SUFFIXES = ("_EVN", "_ODD", "_even", "_odd", "_Even", "_Odd")
_SUM_SUFFIXES = ("_DW", "_DWS")
"""MotionCor writes x.mrc (unweighted), x_DW.mrc (dose-weighted) and x_DWS.mrc (dose-weighted, some frames left out)."""

_PIXEL_SIZE_TOLERANCE = 0.01


def is_table(source: Path | str) -> bool:
    """Whether one argument means a STAR or cryoSPARC table, and not MRC files, a glob of them or a list."""
    name = str(source)
    plain = name.removesuffix(".gz").removesuffix(".bz2")
    is_glob = glob.has_magic(name) and not Path(name).exists()
    return not is_glob and not plain.endswith((*_MRC_ENDINGS, *_LIST_ENDINGS)) and not Path(name).is_dir()


def find_files(
    sources: Sequence[Path | str], half_names: HalfNames, exclude: Path | None = None
) -> tuple[list[str], list[str]]:
    """Expand globs and lists to file names.

    Args:
        sources: MRC files, globs (`**` for any depth), or text files (.txt, .lst, .list) with a name on each line.
        half_names: with suffixes, halves that a glob matches are left out.
        exclude: a folder whose files no glob matches, such as the output folder; files named outright count.

    Returns:
        The files, each once and in a fixed order; and what a user should know before these files are denoised, one
        line each.

    Raises:
        DataError: a glob matches nothing, a source is a folder, or a list cannot be read.
    """
    matched: list[str] = []
    notes: list[str] = []

    def expand(source: str) -> list[str]:
        names = _expand(source, half_names, exclude, notes)
        matched.extend(names)
        return names

    names = expand_sources(sources, expand, "micrographs", "a STAR table, MRC files", "*.mrc")
    return names, notes + _versions(matched)


def expand_sources(
    sources: Sequence[Path | str], expand: Callable[[str], list[str]], what: str, instead: str, pattern: str
) -> list[str]:
    """Return the files that names, globs and lists stand for, each once.

    Args:
        sources: files, globs, or text files (.txt, .lst, .list) with a name on each line.
        expand: finds the files that a glob matches, at least one.
        what: they are, for messages.
        instead: what to give in place of a folder.
        pattern: of their names.

    Raises:
        DataError: there are none, a source is a folder, or a list cannot be read.
    """
    found: list[str] = []
    for source in map(str, sources):
        path = Path(source)
        if path.is_dir():
            raise DataError(f"{source}: is a folder; give {instead}, or a glob such as '{source}/{pattern}'")
        if path.suffix in _LIST_ENDINGS:
            found += _read_list(source)
        elif glob.has_magic(source) and not path.exists():
            found += expand(source)
        else:
            found.append(source)
    if not found:
        raise DataError(f"{', '.join(map(str, sources)) or 'nothing'}: no {what} given; name at least one file")
    return list(dict.fromkeys(found))


def _read_list(source: str) -> list[str]:
    try:
        lines = Path(source).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{source}: cannot be read as a list of file names: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _expand(source: str, half_names: HalfNames, exclude: Path | None, notes: list[str]) -> list[str]:
    """The files that a glob matches, apart from excluded ones and halves, which are counted in notes."""
    everything = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    outside = everything
    if exclude is not None:
        inside = f"{os.path.realpath(exclude)}/"
        real = functools.cache(os.path.realpath)  # a round trip to the file system for a folder, not for a file
        outside = [name for name in everything if not f"{real(os.path.dirname(name))}/".startswith(inside)]  # noqa: PTH120
    wholes = [name for name in outside if not half_names.is_half(Path(name))]
    left_out = []
    if len(outside) < len(everything):
        left_out.append(f"{_files(len(everything) - len(outside))} in the output folder {exclude}")
    if len(wholes) < len(outside):
        left_out.append(f"{_files(len(outside) - len(wholes))} with the suffixes of even and odd halves")
    if not wholes:
        but = f" apart from {' and '.join(left_out)}" if left_out else ""
        raise DataError(f"{source}: no file matches{but}; check the pattern and the folder it starts in")
    if left_out:
        notes.append(f"{source}: {' and '.join(left_out)} left out")
    return wholes


def _versions(names: Sequence[str]) -> list[str]:
    """Notes about files that seem to be halves, or several sums of one movie, by the suffixes of MotionCor."""
    sums: dict[str, set[str]] = defaultdict(set)
    halves = 0
    for name in names:
        stem, ending = split_name(Path(name))
        if stem.endswith(_HALF_SUFFIXES):
            halves += 1
            continue
        suffix = next((each for each in _SUM_SUFFIXES if stem.endswith(each)), "")
        sums[f"{Path(name).parent}/{stem.removesuffix(suffix)}{ending}"].add(suffix)
    notes = []
    if halves:
        notes.append(
            f"{_files(halves)} of {len(names)} seem to be even or odd halves (_EVN, _ODD); "
            "leave them out with --suffixes DW,EVN,ODD or a narrower pattern"
        )
    if several := [found for found in sums.values() if len(found) > 1]:
        kinds = ", ".join(sorted({suffix or "no suffix" for found in several for suffix in found}))
        notes.append(
            f"{len(several)} micrographs are there as several sums of the same movie ({kinds}), and each is taken "
            "for a micrograph of its own; choose one with a narrower pattern such as '*_DW.mrc'"
        )
    return notes


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def describe_files(
    names: Sequence[str], folders: Folders, options: ReadOptions
) -> tuple[list[Micrograph], dict[int, str], list[str]]:
    """Make records of files from their headers; they have no CTF.

    Args:
        names: of files.
        folders: where relative names start.
        options: how halves are named, how headers are read, and optics: a pixel size that is given there is taken
            for every file, whatever the header says, as many programs write none or a wrong one.

    Returns:
        The records, one for each name; why a file cannot be used, by index; and notes.
    """
    micrographs = []
    problems: dict[int, str] = {}
    paths = [folders.locate(name) for name in names]
    given, contradicted = options.fallback.pixel_size, 0
    example = ""
    for row, (name, path, header) in enumerate(zip(names, paths, options.headers(paths), strict=True)):
        size = given
        if isinstance(header, N2NError):
            problems[row] = str(header)
        elif math.isnan(given):
            if header.pixel_size is None:
                problems[row] = f"{path}: the header has no pixel size; give --pixel-size or a STAR table"
            else:
                size = header.pixel_size
        elif header.pixel_size is not None and abs(header.pixel_size / given - 1) > _PIXEL_SIZE_TOLERANCE:
            contradicted += 1
            example = example or f"{path} has {header.pixel_size:g} Å"
        even, odd = options.half_names.of(path, folders) if options.half_names else (None, None)
        optics = Optics(
            size,
            options.fallback.voltage,
            options.fallback.spherical_aberration,
            options.fallback.amplitude_contrast,
        )
        micrographs.append(Micrograph(name, path, optics, None, even, odd, row))
    notes = []
    if contradicted:
        notes.append(
            f"the headers of {_files(contradicted)} contradict the given pixel size of {given:g} Å ({example}); "
            f"{given:g} Å is used"
        )
    return micrographs, problems, notes


def make_table(micrographs: Sequence[Micrograph], names: Mapping[int, str]) -> str:
    """Write a RELION 3.1 table of files that came without one, an optics group for each pixel size.

    RELION needs voltage and spherical aberration in every optics group; 0 means that they are not known.

    Args:
        micrographs: as `describe_files` made them.
        names: the rows to list and the names to list them by.

    Returns:
        The text of a STAR file. Where a pixel size is not known there are no optics groups, so that whoever reads
        that table asks the headers again.
    """
    kept = [micrograph for micrograph in micrographs if micrograph.row in names]
    every_optics = list(dict.fromkeys(micrograph.optics for micrograph in kept))
    if any(math.isnan(optics.pixel_size) for optics in every_optics):
        return star_text(("micrographs", ["rlnMicrographName"], [[names[micrograph.row]] for micrograph in kept]))
    with_contrast = all(optics.amplitude_contrast is not None for optics in every_optics)
    groups = []
    for number, optics in enumerate(every_optics, 1):
        values = [optics.pixel_size, optics.pixel_size, optics.voltage or 0.0, optics.spherical_aberration or 0.0]
        values += [optics.amplitude_contrast or 0.0] * with_contrast
        groups.append([f"opticsGroup{number}", str(number), *(f"{value:.7g}" for value in values)])
    labels = ["rlnOpticsGroupName", "rlnOpticsGroup", "rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"]
    labels += ["rlnVoltage", "rlnSphericalAberration", *["rlnAmplitudeContrast"] * with_contrast]
    group_of = {optics: str(number) for number, optics in enumerate(every_optics, 1)}
    rows = [[names[micrograph.row], group_of[micrograph.optics]] for micrograph in kept]
    return star_text(("optics", labels, groups), ("micrographs", ["rlnMicrographName", "rlnOpticsGroup"], rows))
