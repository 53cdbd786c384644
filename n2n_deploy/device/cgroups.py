"""What the control groups of this process leave it of memory: of version 1, 2 or both, on every level.

A limit on any ancestor binds. SLURM sets it on the job, Kubernetes on the pod; the levels below say "max".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of the files of one version, and of the page cache that can be given up in `memory.stat`."""

    limit: str
    used: str
    inactive: str


_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")


def cgroup_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process may still take before a control group kills or reclaims; None without limit.

    It is the least of limit − (used − inactive page cache) over its own group and all ancestors that are visible here.

    Args:
        root: of the file system; another one than / for tests.
    """
    left = [
        room
        for top, own, files in _hierarchies(root)
        for group in _upwards(top, own)
        if (room := _room(group, files)) is not None
    ]
    return min(left, default=None)


def _hierarchies(root: Path) -> Iterator[tuple[Path, PurePosixPath, _Files]]:
    """Yield for each mounted hierarchy with memory limits where it is mounted, and this process's group below that."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    groups = {}
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = PurePosixPath(path)
    for mount in mounts:
        # "36 35 0:31 /mounted-part /where options… - type source options", see proc(5).
        place, _, kind = mount.partition(" - ")
        mounted, where = place.split()[3:5]
        filesystem, _, *options = kind.split()
        if filesystem == "cgroup2":
            controller, files = "", _VERSION_2
        elif filesystem == "cgroup" and "memory" in options[-1].split(","):
            controller, files = "memory", _VERSION_1
        else:
            continue
        if controller in groups:
            yield root / where.lstrip("/"), _below(groups[controller], PurePosixPath(mounted)), files


def _below(group: PurePosixPath, mounted: PurePosixPath) -> PurePosixPath:
    """Return a group's path below the one that is mounted.

    In a cgroup namespace the group may lie outside of it, as "/../job"; then the mounted one is the lowest to be seen.
    """
    if ".." not in group.parts and group.is_relative_to(mounted):
        return group.relative_to(mounted)
    return PurePosixPath()


def _upwards(top: Path, own: PurePosixPath) -> Iterator[Path]:
    """Yield a group and its ancestors, up to where the hierarchy is mounted."""
    for part in (own, *own.parents):
        yield top / part


def _room(group: Path, files: _Files) -> int | None:
    """Return what one group leaves, None where it has no limit or cannot be read."""
    try:
        limit, used = ((group / name).read_text().strip() for name in (files.limit, files.used))
    except OSError:
        return None
    if not limit.isdigit() or not used.isdigit():
        return None
    return max(int(limit) - max(int(used) - _inactive(group, files), 0), 0)


def _inactive(group: Path, files: _Files) -> int:
    """Return the bytes of page cache that a group gives up before it kills anybody."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [files.inactive]), 0)
