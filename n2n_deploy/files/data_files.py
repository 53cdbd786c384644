"""Numbers in files that other programs read: JSON documents and CSV tables, written whole or not at all."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from n2n_deploy.files.atomic import atomic_write


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document of plain values, indented, in UTF-8.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
        HostError: the file cannot be written.
    """
    with atomic_write(path) as stream:
        stream.write((json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with a header line; floating-point numbers get seven significant digits.

    Raises:
        HostError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(header)
    table.writerows([f"{cell:.7g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())
