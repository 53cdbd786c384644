"""How much memory this process holds, may still take, and is allowed to take."""

import ctypes
import os
import re
from collections.abc import Mapping
from contextlib import suppress

import psutil

from n2n_deploy.device.cgroups import cgroup_memory

_SHARE_OF_HOST = 0.8

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def process_memory() -> int:
    """Bytes this process holds in memory now."""
    return int(psutil.Process().memory_info().rss)


def available_memory() -> int:
    """Bytes this process could still take: of the machine without swapping, of its control groups, of its SLURM job."""
    limits = (int(psutil.virtual_memory().available), cgroup_memory(), slurm_memory(os.environ))
    return min(limit for limit in limits if limit is not None)


def slurm_memory(environment: Mapping[str, str]) -> int | None:
    """Return the bytes of a SLURM job's memory on this node that its processes here have not taken; None without limit.

    SLURM kills a job that takes more than it asked for, where it is set to, and not only through control groups.

    Args:
        environment: of the process; SLURM_MEM_PER_NODE, or SLURM_MEM_PER_CPU and the job's CPUs on the node, in MiB.
            0 is all of the node's.
    """
    per_node, per_cpu = (environment.get(name, "") for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"))
    if per_node.isdigit():
        limit = int(per_node)
    elif per_cpu.isdigit():
        limit = int(per_cpu) * _slurm_cpus(environment)
    else:
        limit = 0
    if not limit:
        return None
    return max(limit * 2**20 - _job_memory(), 0)


def _slurm_cpus(environment: Mapping[str, str]) -> int:
    """CPUs of the job on this node; where only the list of all nodes tells, as "4(x2),3", the fewest; 0 if unknown."""
    if (cpus := environment.get("SLURM_CPUS_ON_NODE", "")).isdigit():
        return int(cpus)
    counts = re.findall(r"(?:^|,)(\d+)", environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return min(map(int, counts), default=0)


def _job_memory() -> int:
    """Bytes held by this process and those that it started."""
    process, held = psutil.Process(), process_memory()
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            held += int(child.memory_info().rss)
    return held


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
