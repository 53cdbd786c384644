"""Sizes in bytes as people write them."""

import pytest

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.sizes import parse_bytes, size_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3GB", 3 * 10**9), ("500M", 500 * 10**6), (" 1.5 gb ", 1.5 * 10**9), (".5T", 5 * 10**11), ("1024", 1024)],
)
def test_sizes_are_read_in_decimal_units(text: str, expected: float) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("count", [74_300_000, 3_200_000_000, 1_000_000_000])
def test_sizes_are_written_as_they_are_read(count: int) -> None:
    assert parse_bytes(size_text(count)) == count


@pytest.mark.parametrize("text", ["", "0", "-1GB", "3 apples", "GB"])
def test_an_invalid_size_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="3GB or 500MB"):
        parse_bytes(text)
