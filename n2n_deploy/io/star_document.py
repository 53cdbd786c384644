"""A STAR file that can be edited value by value and keeps every other byte.

The dialect is RELION's: a row of a loop is one line. Numbers are never parsed and formatted again: lines stay as they
were read, and a change replaces one value within its line.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path

from n2n_deploy.core.errors import DataError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.star_text import is_plain, matches, quoted, values_in

NAME = "rlnMicrographName"
_PARTICLE_LABELS = ("rlnImageName", "rlnCoordinateX")


@dataclass(slots=True)
class StarTable:
    """A loop, or a block's list of label-value pairs, which is treated as a table of one row.

    Attributes:
        block: name of the block, without "data_".
        labels: names of the columns, without the underscore.
        rows: line numbers (from 0) of a loop's rows; of a list of pairs, one for each label.
        is_loop: False for a list of pairs.
        header_end: line number of the last label.
    """

    block: str
    labels: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    is_loop: bool = True
    header_end: int = -1

    def __len__(self) -> int:
        return len(self.rows) if self.is_loop else 1


class StarDocument:
    """The lines of a STAR file and where its tables lie in them.

    Args:
        path: named in messages.
        text: the whole file.
        terms: names that the user knows the labels by, where the text was made from a file of another format.

    Raises:
        DataError: a line is neither block, label, row nor comment.
    """

    def __init__(self, path: Path, text: str, terms: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._terms = terms
        # Not splitlines(), which also splits at form feeds and the like, within a value.
        self._lines = text.split("\n")
        self._dropped: set[int] = set()
        self.tables = list(_tables(path, self._lines))

    @classmethod
    def read(cls, path: Path) -> "StarDocument":
        """Read a file.

        Raises:
            DataError: it is missing, cannot be read or is not a STAR file.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{path}: not found; give the path of a STAR file") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give the path of a STAR file") from error
        if b"\0" in content[:4096]:
            raise DataError(f"{path}: not a STAR file, its content is binary; give a STAR file or MRC files")
        return cls(path, content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))

    def copy(self) -> "StarDocument":
        """Return a copy that can be changed without changing this document."""
        twin = object.__new__(StarDocument)
        twin.path = self.path
        twin._terms = self._terms
        twin._lines = list(self._lines)
        twin._dropped = set(self._dropped)
        twin.tables = [
            StarTable(old.block, list(old.labels), list(old.rows), old.is_loop, old.header_end) for old in self.tables
        ]
        return twin

    @property
    def is_star(self) -> bool:
        """Whether the user's file is STAR, and not one that this text was made from."""
        return self._terms is None

    def where(self, table: StarTable, row: int) -> str:
        """Name the place of a row for messages: its line as an editor counts it, or its row in another format."""
        if self._terms is not None:
            return f"row {row + 1}"
        return f"line {table.rows[row if table.is_loop else 0] + 1}"

    def term(self, label: str) -> str:
        """Name a label as the user's file does."""
        return (self._terms or {}).get(label, label)

    def columns(self, table: StarTable, labels: Iterable[str]) -> dict[str, list[str]]:
        """Read the values of some columns, without quotes; labels missing from the table are left out.

        Raises:
            DataError: a row has more or fewer values than there are labels.
        """
        wanted = [label for label in dict.fromkeys(labels) if label in table.labels]
        if not wanted:
            return {}
        if not table.is_loop:
            pairs = [values_in(self._lines[number]) for number in table.rows]
            found = {pair[0].removeprefix("_"): [" ".join(pair[1:])] for pair in pairs}
            return {label: found[label] for label in wanted}
        if not table.rows:
            return {label: [] for label in wanted}
        picked = itemgetter(*(table.labels.index(label) for label in wanted))
        values = map(picked, self._rows(table))
        if len(wanted) == 1:
            return {wanted[0]: list(values)}
        return {label: list(column) for label, column in zip(wanted, zip(*values, strict=True), strict=True)}

    def keep_rows(self, table: StarTable, rows: Iterable[int]) -> None:
        """Keep only these rows of a loop; comments between rows stay. A list of pairs keeps its one row."""
        if not table.is_loop:
            return
        kept = [table.rows[row] for row in rows]
        self._dropped.update(set(table.rows) - set(kept))
        table.rows = kept

    def append_rows(self, table: StarTable, rows: Iterable[Sequence[str]]) -> None:
        """Append rows to a loop, their values in the order of its labels."""
        place = (table.rows[-1] if table.rows else table.header_end) + 1
        lines = [" ".join(map(quoted, row)) for row in rows]
        self._lines[place:place] = lines
        self._dropped = {number + len(lines) * (number >= place) for number in self._dropped}
        for other in self.tables:
            other.rows = [number + len(lines) * (number >= place) for number in other.rows]
            other.header_end += len(lines) * (other.header_end >= place)
        table.rows += range(place, place + len(lines))

    def set_column(self, table: StarTable, label: str, values: Mapping[int, str] | str) -> None:
        """Replace values of a column, or add the column at the end.

        Args:
            table: of this document.
            label: without the underscore.
            values: by row, or one for all rows; a new column needs a value for every row.
        """
        if isinstance(values, str):
            values = dict.fromkeys(range(len(table)), values)
        if not table.is_loop:
            self._set_pair(table, label, values[0])
            return
        if label in table.labels:
            column = table.labels.index(label)
            for row, value in values.items():
                self._replace(table.rows[row], column, value)
            return
        table.labels.append(label)
        self._append_line(table, f"_{label} #{len(table.labels)}")
        for row, number in enumerate(table.rows):
            self._append_value(number, quoted(values[row]))

    def text(self) -> str:
        """Return the whole text; bytes that are not UTF-8 are surrogates in it."""
        lines: Iterable[str] = self._lines
        if self._dropped:
            lines = (line for number, line in enumerate(self._lines) if number not in self._dropped)
        return "\n".join(lines)

    def content(self) -> bytes:
        """Return the whole text as `write` writes it."""
        return self.text().encode("utf-8", "surrogateescape")

    def write(self, path: Path) -> None:
        """Write the document atomically; see `atomic_write`.

        Raises:
            HostError: the folder cannot be written to or has no room.
        """
        content = self.content()
        with atomic_write(path, size=len(content)) as file:
            file.write(content)

    def _rows(self, table: StarTable) -> Iterator[list[str]]:
        expected = len(table.labels)
        for number in table.rows:
            values = values_in(self._lines[number])
            if len(values) != expected:
                raise DataError(
                    f"{self.path}: line {number + 1} has {len(values)} values for {expected} labels; "
                    "the table is damaged or truncated; write it again"
                )
            yield values

    def _replace(self, number: int, column: int, value: str) -> None:
        """Replace one value of a line; an equal value keeps its spelling."""
        line = self._lines[number]
        match = next(islice(matches(line), column, None))
        if match[match.lastindex or 0] != value:
            self._lines[number] = line[: match.start()] + quoted(value) + line[match.end() :]

    def _append_value(self, number: int, value: str) -> None:
        line = self._lines[number]
        end = len(line.rstrip())
        if not is_plain(line):
            end = [match.end() for match in matches(line)][-1]
        self._lines[number] = f"{line[:end]} {value}{line[end:]}"

    def _append_line(self, table: StarTable, text: str) -> None:
        """Insert a line after the table's labels, with their line ending, without renumbering the others."""
        before = self._lines[table.header_end]
        ending = before[len(before.rstrip()) :]
        self._lines[table.header_end] = f"{before}\n{text}{ending}"

    def _set_pair(self, table: StarTable, label: str, value: str) -> None:
        if label in table.labels:
            self._replace(table.rows[table.labels.index(label)], 1, value)
        else:
            # The new pair shares the list entry of the last pair's line, so no other line is renumbered.
            self._append_line(table, f"_{label} {quoted(value)}")


def micrograph_table(document: StarDocument) -> tuple[StarTable, StarTable | None]:
    """Find the table of micrographs and the table of optics groups.

    Raises:
        DataError: there is no table of micrographs or more than one, it is empty, or it lists particles.
    """
    groups = next((table for table in document.tables if table.block == "optics"), None)
    for table in document.tables:
        if table.block == "particles" or any(label in table.labels for label in _PARTICLE_LABELS):
            raise DataError(
                f"{document.path}: lists particles (data_{table.block}), not micrographs; "
                "give the micrograph table, such as micrographs_ctf.star"
            )
    found = [table for table in document.tables if NAME in table.labels]
    found = [table for table in found if table.block == "micrographs"] or found
    if not found:
        blocks = ", ".join(f"data_{table.block}" for table in document.tables) or "no table"
        raise DataError(f"{document.path}: has {blocks} and no {NAME}; give a micrograph table")
    if len(found) > 1:
        blocks = " and ".join(f"data_{table.block}" for table in found)
        raise DataError(f"{document.path}: both {blocks} list micrographs; split the file into one per table")
    if not len(found[0]):
        raise DataError(f"{document.path}: data_{found[0].block} has no rows; give a table with micrographs")
    return found[0], groups


def _tables(path: Path, lines: list[str]) -> Iterator[StarTable]:
    """Find the tables of a file."""
    table: StarTable | None = None
    block: str | None = None
    after_blank = awaits_text = in_text = False
    for number, line in enumerate(lines):
        text = line.strip()
        if in_text or (awaits_text and line.startswith(";")):
            # Text between lines that start with a semicolon is the value of the label above it.
            in_text, awaits_text = not (in_text and line.startswith(";")), False
            continue
        if not text or text[0] == "#":
            after_blank |= not text
            continue
        in_loop = table is not None and table.is_loop and bool(table.labels)
        words = text.split(None, 2)
        if text.startswith("data_") and len(words) == 1:
            if table is not None:
                yield table
            table, block = None, text.removeprefix("data_")
        elif block is not None and words[0] == "loop_":
            if table is not None:
                yield table
            table = StarTable(block)
        # RELION ends a table at an empty line; only after one can a label follow rows.
        elif block is not None and text[0] == "_" and (after_blank or not (table and table.is_loop and table.rows)):
            has_value = len(words) > 1 and words[1][0] != "#"
            if table is None or (table.is_loop and (table.rows or has_value)):
                if table is not None:
                    yield table
                table = StarTable(block, is_loop=False)
            table.labels.append(words[0].removeprefix("_"))
            table.header_end = number
            if not table.is_loop:
                table.rows.append(number)
                awaits_text = not has_value
        elif in_loop and table is not None:
            table.rows.append(number)
        else:
            raise DataError(f"{path}: line {number + 1} is not valid STAR: {text[:40]!r}; give a STAR file")
        after_blank = False
    if table is not None:
        yield table
