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
    return {"amx_tile", "amx_bf16"} <= _flags()


@functools.cache
def multiplies_int8() -> bool:
    """Whether the processor sums products of 8-bit integers in 32 bits: VNNI (with AVX-512 or AVX2) or AMX.

    Processors without it add pairs of products in 16 bits, which overflow.
    """
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & _flags())


def _flags() -> set[str]:
    """What the kernel says the first core can do."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
