"""How much memory there is and is kept, against what the system says."""

import mmap
import subprocess
import sys

import pytest

from n2n_deploy.core.errors import UsageError
from n2n_deploy.device.memory import parse_bytes, process_memory, size_text

KEPT = """
import sys, numpy, psutil
from n2n_deploy.device.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
before = psutil.Process().memory_info().rss
for _ in range(2):
    blocks = [numpy.ones(2**22) for _ in range(4)]
    del blocks
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_only_on_request() -> None:
    def left(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", KEPT, how], capture_output=True, text=True, check=True).stdout)

    taken = 4 * 2**22 * 8
    assert left("give back") < taken / 4
    assert taken * 0.9 < left("keep") < taken * 1.5


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
def test_invalid_sizes_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="3GB or 500MB"):
        parse_bytes(text)


def test_process_memory_grows_by_what_is_written() -> None:
    held = process_memory()
    with mmap.mmap(-1, 2**28) as block:
        block.write(b"\1" * 2**28)
        assert 2**28 <= process_memory() - held < 2**29
