"""How much memory there is and is kept, against what the system says."""

import mmap
import subprocess
import sys

import pytest

from n2n_deploy.device.memory import process_memory

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


def test_process_memory_grows_by_what_is_written() -> None:
    held = process_memory()
    with mmap.mmap(-1, 2**28) as block:
        block.write(b"\1" * 2**28)
        assert 2**28 <= process_memory() - held < 2**29
