"""The text of STAR files in RELION's dialect: the values of one line, and a value as it is written."""

import math
import re
from collections.abc import Iterator

# A quote ends only before white space: 5'-end is one unquoted value.
_TOKEN = re.compile(r""""((?:[^"]|"(?=\S))*)"(?=\s|$)|'((?:[^']|'(?=\S))*)'(?=\s|$)|(\S+)""")


def matches(line: str) -> Iterator[re.Match[str]]:
    """Find the values of a line up to a comment; the last group of each match is the value without quotes."""
    for match in _TOKEN.finditer(line):
        if match[0][0] == "#":
            return
        yield match


def is_plain(line: str) -> bool:
    """Whether a line has neither quotes nor a comment, so that `str.split` finds its values."""
    return '"' not in line and "'" not in line and "#" not in line


def values_in(line: str) -> list[str]:
    """Read the values of a line, without their quotes."""
    if is_plain(line):
        return line.split()
    return [match[match.lastindex or 0] for match in matches(line)]


def number(value: str) -> float:
    """Return the number that a value means; NaN where it is not a number."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def quoted(value: str) -> str:
    """Write a value, in quotes where white space or its first character would be misread."""
    if value and not re.search(r"\s", value) and value[0] not in "\"'#_;":
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'
