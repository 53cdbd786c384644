"""How much memory this process holds, may still take, and is allowed to take."""

import ctypes
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")

_SHARE_OF_HOST = 0.8

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def process_memory() -> int:
    """Bytes this process holds in memory now."""
    return int(psutil.Process().memory_info().rss)


def available_memory() -> int:
    """Bytes this process could still take without swapping: of the machine, or of its cgroup if that has less."""
    available = int(psutil.virtual_memory().available)
    limit = _cgroup_bytes("memory.max")
    used = _cgroup_bytes("memory.current")
    if limit is not None and used is not None:
        available = min(available, max(limit - used, 0))
    return available


def host_budget(memory: int | None) -> int:
    """Bytes of host memory that this process may hold: `memory`, or what it holds now and a share of what is free."""
    return memory if memory is not None else process_memory() + int(_SHARE_OF_HOST * available_memory())


def keep_freed_memory() -> None:
    """Let this process keep what it frees for what it will take next; for a training, whose steps are all alike.

    As it is, glibc gives large blocks back to the system at once, and each step gets them anew, page by page. Other C
    libraries are left alone.
    """
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _cgroup_bytes(name: str) -> int | None:
    """A figure of this process's own cgroup (version 2), None where there is none or no limit."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        text = (_CGROUP / own / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
