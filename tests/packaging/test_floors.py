"""The house of CONTRIBUTING.md: a room imports only from its own floor and those below."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def floors() -> dict[str, int]:
    """Room → floor, read from the table in CONTRIBUTING.md."""
    found = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        if row := re.match(r"\| (\d) \| ([^|]*) \|", line):
            for place in re.findall(r"`([^`]+)`", row[2]):
                found[place.removeprefix("n2n_deploy").strip("/.").removesuffix(".py")] = int(row[1])
    return found


def rooms() -> dict[str, list[Path]]:
    """Room → its files, as git's folders have them."""
    found = {name: sorted((ROOT / name).glob("*.py")) for name in ("train", "export")}
    for path in (ROOT / "n2n_deploy").iterdir():
        if path.is_dir() and not path.is_symlink() and path.name != "__pycache__":
            found[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and not path.name.startswith("__"):
            found[path.stem] = [path]
    return found


def imported(path: Path) -> set[str]:
    """The rooms that a file imports from, at its top or within functions."""
    names = [node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[1] for name in names if name.startswith("n2n_deploy.")}


@pytest.mark.parametrize("room", sorted(rooms()))
def test_nothing_runs_back_up(room: str) -> None:
    floor = floors()
    assert room in floor, f"CONTRIBUTING.md gives {room} no floor"
    for path in rooms()[room]:
        for other in imported(path):
            assert floor[other] <= floor[room], f"{path.relative_to(ROOT)} imports from {other}"
