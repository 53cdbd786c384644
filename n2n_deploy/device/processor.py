"""What the processor of this machine can do."""

import functools
import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in hardware: AMX, in Intel's Xeons since 2023.

    AVX-512's bfloat16 alone (AMD since Zen 4) is not meant: training with it was seen to be no faster than in float32.
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return {"amx_tile", "amx_bf16"} <= set(flags.split())
