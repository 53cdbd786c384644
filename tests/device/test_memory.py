"""How much memory there is and is kept, against what the system says."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from n2n_deploy.device.cgroups import cgroup_memory
from n2n_deploy.device.memory import available_memory, process_memory, slurm_memory

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


GIB = 2**30
UNIFIED = "30 1 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 1 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "32 1 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 1 0:29 / /sys/fs/cgroup/memory rw shared:7 - cgroup cgroup rw,memory\n"
)
JOB = "system.slice/slurmstepd.scope/job_7"


def system(root: Path, membership: str, mounts: str, files: dict[str, str]) -> Path:
    """A tree with what /proc and /sys say."""
    files = {"proc/self/cgroup": membership, "proc/self/mountinfo": mounts} | files
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(path: str, limit: str, used: int, inactive: int = 0, *, version: int = 2) -> dict[str, str]:
    """The files of one control group."""
    if version == 2:
        names, key = ("memory.max", "memory.current"), "inactive_file"
    else:
        names, key = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
    stat = (
        f"anon {used - inactive}\ninactive_file 1\n{key} {inactive}\n"
        if key != "inactive_file"
        else f"{key} {inactive}\n"
    )
    return {
        f"sys/fs/cgroup/{path}/{names[0]}": f"{limit}\n",
        f"sys/fs/cgroup/{path}/{names[1]}": f"{used}\n",
        f"sys/fs/cgroup/{path}/memory.stat": stat,
    }


def test_a_limit_on_the_job_binds_though_the_levels_below_say_max(tmp_path: Path) -> None:
    files = {
        **group(JOB, str(32 * GIB), 10 * GIB, 4 * GIB),
        **group(f"{JOB}/step_0", "max", 9 * GIB),
        **group(f"{JOB}/step_0/user/task_0", "max", 8 * GIB),
        **group("system.slice", str(500 * GIB), 400 * GIB),
    }
    root = system(tmp_path, f"0::/{JOB}/step_0/user/task_0\n", UNIFIED.format(root="/"), files)
    assert cgroup_memory(root) == 26 * GIB


def test_the_least_of_all_levels_is_what_is_left(tmp_path: Path) -> None:
    files = {**group("a", str(8 * GIB), 7 * GIB), **group("a/b", str(4 * GIB), GIB), **group("a/b/c", "max", GIB)}
    assert cgroup_memory(system(tmp_path, "0::/a/b/c\n", UNIFIED.format(root="/"), files)) == GIB
    (tmp_path / "sys/fs/cgroup/a/memory.current").write_text(f"{9 * GIB}\n")
    assert cgroup_memory(tmp_path) == 0


def test_a_hybrid_system_limits_through_version_1(tmp_path: Path) -> None:
    unlimited = str(0x7FFFFFFFFFFFF000)
    files = {
        **group("memory/slurm/uid_0/job_7", str(3 * GIB), 2 * GIB, GIB, version=1),
        **group("memory/slurm/uid_0/job_7/step_batch", unlimited, 2 * GIB, GIB, version=1),
        **group("memory", unlimited, 90 * GIB, version=1),
    }
    membership = "9:memory:/slurm/uid_0/job_7/step_batch\n4:cpu,cpuacct:/\n0::/system.slice/slurmd.service\n"
    assert cgroup_memory(system(tmp_path, membership, HYBRID, files)) == 2 * GIB


@pytest.mark.parametrize(
    ("membership", "mounted"),
    [
        ("0::/\n", "/"),  # a namespace of its own
        ("0::/../../elsewhere\n", "/.."),  # outside of what is mounted
        ("0::/docker/abc\n", "/docker/abc"),  # the host's path, of which only the group itself is mounted
        ("0::/kubepods/pod1\n", "/docker/abc"),
    ],
)
def test_in_a_container_what_is_mounted_binds(tmp_path: Path, membership: str, mounted: str) -> None:
    files = group(".", str(4 * GIB), 3 * GIB)
    assert cgroup_memory(system(tmp_path, membership, UNIFIED.format(root=mounted), files)) == GIB


def test_without_a_limit_or_without_control_groups_there_is_none(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path) is None
    root = system(tmp_path, f"0::/{JOB}\n", UNIFIED.format(root="/"), group(JOB, "max", GIB))
    assert cgroup_memory(root) is None
    (root / f"sys/fs/cgroup/{JOB}/memory.max").unlink()
    assert cgroup_memory(root) is None


@pytest.mark.parametrize(
    ("environment", "mebibytes"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "4"}, 8000),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_JOB_CPUS_PER_NODE": "8(x3),3"}, 6000),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "4"}, None),
        ({"SLURM_MEM_PER_CPU": "2000"}, None),
        ({}, None),
    ],
)
def test_the_memory_of_a_slurm_job_is_what_it_asked_for(environment: dict[str, str], mebibytes: int | None) -> None:
    found = slurm_memory(environment)
    if mebibytes is None:
        assert found is None
    else:
        assert found == pytest.approx(mebibytes * 2**20 - process_memory(), abs=2**26)


def test_what_is_free_is_no_more_than_the_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    free = available_memory()
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert available_memory() <= min(free, 2**31) - process_memory() / 2
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert available_memory() == 0
