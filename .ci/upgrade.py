"""Raise every pin in constraints.txt to the newest release with which pip can install all extras together.

    python .ci/upgrade.py PIP_REPORT

PIP_REPORT is what `pip install --dry-run --ignore-installed --report` wrote. Pins are never lowered: where torch brings
an older CUDA library than the one pinned, `make gpu-test` leaves the choice to torch. torch's own pin is not raised:
its newest build may be one with gigabytes of CUDA. Packages that became needed are appended, those of torch's CUDA
excepted.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
HELD = {"torch"}
NOT_PINNED = ("cuda-", "n2n-deploy", "nvidia-", "setuptools", "triton")
"""Beginnings of names: this package, what only builds of torch with CUDA need, and what comes with every environment."""


def raised(pins: Sequence[str], newest: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The lines of constraints.txt with newer versions, and a line for each change.

    Args:
        pins: lines `name==version`.
        newest: version by canonical name, as pip would install it.
    """
    lines, changes = [], []
    known = {canonicalize_name(pin.partition("==")[0]) for pin in pins}
    for pin in pins:
        name, _, version = pin.partition("==")
        found = newest.get(canonicalize_name(name), version)
        if name not in HELD and Version(found) > Version(version):
            changes.append(f"{name}: {version} -> {found}")
            version = found
        lines.append(f"{name}=={version}")
    for name in sorted(set(newest) - known):
        if not name.startswith(NOT_PINNED):
            changes.append(f"{name}: new, {newest[name]}")
            lines.append(f"{name}=={newest[name]}")
    return sorted(lines, key=str.lower), changes


def main() -> None:
    """Rewrite constraints.txt and print what changed."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    packages = [package["metadata"] for package in report["install"]]
    newest = {canonicalize_name(package["name"]): package["version"].partition("+")[0] for package in packages}
    lines, changes = raised(CONSTRAINTS.read_text(encoding="utf-8").splitlines(), newest)
    CONSTRAINTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(changes) or "every pin is the newest that fits")


if __name__ == "__main__":
    main()
