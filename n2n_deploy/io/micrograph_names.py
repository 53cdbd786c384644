"""From the names in a table to files: the folders that names start at, and the even and odd halves of a sum."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.core.errors import UsageError

_ENDINGS = (".gz", ".bz2")
_FIELDS = "{folder}, {stem}, {name} and {ending}"


class Folders:
    """The folders that a table's relative names may start at.

    Args:
        table_folder: folder of the table, if there is one.
        project: the project folder; None to try the current folder, the table's and each folder above it.
        known: a folder at which other names of the same data start; it is tried first.
    """

    def __init__(self, table_folder: Path | None, project: Path | None = None, *, known: Path | None = None) -> None:
        start = [] if known is None else [known]
        start.append(project if project is not None else Path.cwd())
        if table_folder is not None:
            table_folder = table_folder.absolute()
            start += [table_folder, *(() if project is not None else table_folder.parents[:-1])]
        # Not resolve(): a project reached through a link keeps the name that the user knows.
        self.bases = list(dict.fromkeys(os.path.abspath(base) for base in start))  # noqa: PTH100
        self._places: dict[str, list[_Place]] = {}
        self._used = ""

    @property
    def project(self) -> Path:
        """Folder that names are relative to: the first that a file was found from, or else the first one."""
        return Path(self._used or self.bases[0])

    def locate(self, name: str) -> Path:
        """Return the path that a name means; where no such file exists, the path where it should be.

        Each folder is listed once for all names in it: a table may have 100 000 rows, and the file system may be
        at the other end of a network.
        """
        if name.startswith("/"):
            return Path(name)
        folder, _, file = name.rpartition("/")
        places = self._places.get(folder)
        if places is None:
            places = self._places[folder] = self._look(folder)
        for place in places:
            if file in place.files:
                self._used = self._used or place.base
                return place.folder / file
        return places[0].folder / file

    def _look(self, folder: str) -> list["_Place"]:
        """All existing folders of this name below the bases; if there are none, the first base's, without files."""
        places = []
        for base in self.bases:
            with suppress(OSError):
                path = Path(base, folder)
                places.append(_Place(base, path, frozenset(os.listdir(path))))  # noqa: PTH208
        return places or [_Place(self.bases[0], Path(self.bases[0], folder), frozenset())]


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder below one of the bases, and the names of its files."""

    base: str
    folder: Path
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class HalfNames:
    """How the files of the even and odd halves are named after the whole sum.

    Attributes:
        suffixes: (whole, even, odd), such as ("DW", "EVN", "ODD"): `x_DW.mrc` and `x.mrc` have the halves
            `x_EVN.mrc` and `x_ODD.mrc` beside them. A suffix that starts with a letter or digit is set off
            by "_".
        even_template: name of the even half, with {folder}, {stem}, {name} and {ending} of the whole sum; the stem
            lacks the first suffix where suffixes are given too. Relative results are located like other names.
        odd_template: name of the odd half.
    """

    suffixes: tuple[str, str, str] | None = None
    even_template: str | None = None
    odd_template: str | None = None

    def __post_init__(self) -> None:
        if (self.even_template is None) != (self.odd_template is None):
            raise UsageError("give a template for both halves, even and odd, or for neither")
        for template in (self.even_template, self.odd_template):
            if template is not None:
                self._filled(template, Path("folder/stem.mrc"))
        if self.even_template is not None and self.even_template == self.odd_template:
            raise UsageError(f"the templates of the even and the odd half are the same: {self.even_template}")
        if self.suffixes is not None and (len(self.suffixes) != 3 or len(set(self.suffixes)) != 3):
            raise UsageError(f"invalid suffixes {','.join(self.suffixes)}; give three different ones, e.g. DW,EVN,ODD")

    def __bool__(self) -> bool:
        return self.suffixes is not None or self.even_template is not None

    def of(self, whole: Path, folders: Folders) -> tuple[Path, Path]:
        """Return the paths of the even and the odd half."""
        if self.even_template is not None and self.odd_template is not None:
            even = self._filled(self.even_template, whole)
            odd = self._filled(self.odd_template, whole)
            return folders.locate(even), folders.locate(odd)
        _, even_suffix, odd_suffix = self.suffixes or ("", "", "")
        stem, ending = self._stem(whole)
        return (
            whole.with_name(f"{stem}{_set_off(even_suffix)}{ending}"),
            whole.with_name(f"{stem}{_set_off(odd_suffix)}{ending}"),
        )

    def is_half(self, path: Path) -> bool:
        """Whether a file has the suffix of an even or odd half."""
        stem = split_name(path)[0]
        return self.suffixes is not None and stem.endswith(tuple(_set_off(suffix) for suffix in self.suffixes[1:]))

    def _stem(self, whole: Path) -> tuple[str, str]:
        stem, ending = split_name(whole)
        return (stem.removesuffix(_set_off(self.suffixes[0])) if self.suffixes else stem), ending

    def _filled(self, template: str, whole: Path) -> str:
        stem, ending = self._stem(whole)
        try:
            return template.format(folder=whole.parent, stem=stem, name=whole.name, ending=ending)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UsageError(f"invalid template {template}; its fields are {_FIELDS}") from error


def is_stack(path: Path) -> bool:
    """Whether a file is a stack of images, such as a tilt series, by its ending: .mrcs or .st."""
    return split_name(path)[1].removesuffix(".gz").removesuffix(".bz2") in (".mrcs", ".st")


def _set_off(suffix: str) -> str:
    return f"_{suffix}" if suffix[:1].isalnum() else suffix


def split_name(path: Path) -> tuple[str, str]:
    """Split a file's name before its ending: x.mrc.gz gives x and .mrc.gz."""
    name = path.name
    packed = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    stem, dot, ending = name.removesuffix(packed).rpartition(".")
    return (stem, f".{ending}{packed}") if dot and stem else (name.removesuffix(packed), packed)
