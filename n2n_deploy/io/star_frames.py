"""Tables as pandas DataFrames and as new STAR text, by the package `starfile`; both are imported when first needed.

What a user's own table says is never read and written again in this way: see `star_document`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.star_text import quoted

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    Block: TypeAlias = DataFrame | Mapping[str, Any]
    """A loop, or the values of a list of label-value pairs."""

    Frames: TypeAlias = DataFrame | Mapping[str, Block]
    """The micrographs alone, or the blocks of a STAR file by name."""

GIVEN = Path("DataFrame")
"""What messages call a table that did not come from a file."""

_VERSION = "\n# version 30001\n"
"""By this line RELION 3.1 and later know their own dialect."""


def read_blocks(path: Path, parse_as_string: Sequence[str] = ()) -> "dict[str, Block]":
    """Read all blocks of a STAR file with `starfile`.

    Args:
        path: of the file.
        parse_as_string: labels whose values stay text; those with "Name" in them always do.

    Raises:
        DataError: it is missing, or is not a STAR file.
    """
    import starfile

    names = {label for table in StarDocument.read(path).tables for label in table.labels if "Name" in label}
    try:
        blocks: dict[str, Block] = starfile.read(path, always_dict=True, parse_as_string=[*names, *parse_as_string])
    except ValueError as error:
        raise DataError(f"{path}: starfile cannot read it: {error}; write the table again") from error
    return blocks


def document_of(frames: "Frames") -> StarDocument:
    """Return DataFrames as the STAR document that `star.read_micrographs` takes.

    Missing values become "nan" among numbers and "None" in text. Numbers have the digits that they need to be read
    as the same number again.

    Args:
        frames: the micrographs alone, or the blocks of a STAR file by name.

    Raises:
        UsageError: these are no DataFrames.
        DataError: a value has no place in a STAR file.
    """
    import pandas

    if isinstance(frames, pandas.DataFrame):
        blocks: dict[str, Block] = {"micrographs": frames}
    elif isinstance(frames, Mapping):
        blocks = {str(name): block for name, block in frames.items()}
    else:
        raise UsageError(
            f"micrographs: is a {type(frames).__name__}, expected the path of a table, MRC files, a DataFrame or a "
            "dict of DataFrames"
        )
    for name, block in blocks.items():
        if not isinstance(block, pandas.DataFrame | Mapping):
            raise UsageError(
                f"micrographs: {name!r} is a {type(block).__name__}, expected a DataFrame for each block, such as "
                "{'optics': …, 'micrographs': …}"
            )
    document = StarDocument(GIVEN, _text(blocks), {})
    rows = {table.block: len(table) for table in document.tables}
    for name, block in blocks.items():
        if isinstance(block, pandas.DataFrame) and rows.get(name) != len(block):
            raise DataError(f"{GIVEN}: {name!r} has {len(block)} rows, and as a STAR file {rows.get(name, 0)}")
    return document


def star_text(*loops: tuple[str, Sequence[str], Sequence[Sequence[object]]], float_format: str | None = None) -> str:
    """Write a new STAR file, of RELION 3.1 or later.

    Args:
        loops: block, labels without the underscore, and rows of each.
        float_format: of numbers, such as "%.6f"; by default as many digits as they need.

    Raises:
        DataError: a value has no place in a STAR file.
    """
    from pandas import DataFrame

    return _text({block: DataFrame(rows, columns=list(labels)) for block, labels, rows in loops}, float_format)


def _text(blocks: "Mapping[str, Block]", float_format: str | None = None) -> str:
    import starfile
    from pandas import DataFrame

    written = {
        name: DataFrame({str(label): _column(block[label]) for label in block})
        if isinstance(block, DataFrame)
        else {label: quoted(str(value)) for label, value in block.items()}
        for name, block in blocks.items()
    }
    try:  # quoted() knows more values that need quotes than starfile does, which therefore adds none
        text: str = starfile.to_string(written, float_format=float_format, na_rep="nan", quote_character="")
    except csv.Error as error:
        raise DataError(f"a value has a tab or a new line in it, which a STAR file cannot hold: {error}") from error
    # The first line has the time in it: what is made twice would differ.
    _, _, body = text.partition("\n")
    return f"{_VERSION}\n{body.lstrip()}"


def _column(column: "Series[Any]") -> "Series[Any]":
    """Return a column that pandas writes as RELION reads it."""
    from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype

    if is_bool_dtype(column):
        return column.astype(int)
    if is_float_dtype(column):  # of float32 only its own digits, not those of the nearest float64
        return column if column.dtype == float else column.astype(str).astype(float)
    if is_integer_dtype(column):
        return column
    return column.astype(object).where(column.notna(), "None").map(lambda value: quoted(str(value)))
