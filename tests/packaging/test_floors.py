"""The floors in CONTRIBUTING.md: a room imports only from rooms on strictly lower floors."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "n2n_deploy"
FACE = "the public face"
"""Stands for `import n2n_deploy` inside the package, which no room may import: it imports all rooms."""


def floors() -> dict[str, int]:
    """Floor of each room: the first column of CONTRIBUTING's table, and the rooms in the second."""
    found: dict[str, int] = {}
    rows = re.findall(r"^\| (\d+) \| ([^|]*)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    for floor, places in rows:
        for place in re.findall(r"`(?:n2n_deploy/)?(\w+)(?:\.py|/)`", places):
            assert place not in found, f"CONTRIBUTING.md names {place} twice"
            found[place] = int(floor)
    return found


def rooms() -> dict[str, list[Path]]:
    """Python files by room: a folder of the package, a module beside them, and `train` and `export`."""
    found = {name: sorted((ROOT / name).rglob("*.py")) for name in ("train", "export")}
    for path in (ROOT / PACKAGE).iterdir():
        if path.is_dir() and not path.is_symlink() and path.name != "__pycache__":
            found[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and not path.name.startswith("__"):
            found[path.stem] = [path]
    return found


def imported(code: str) -> set[str]:
    """The rooms that a module imports from, at its top or within functions, in every form of import."""
    names: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == PACKAGE else [module]
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return {part[1] if len(part) > 1 else FACE for part in parts}


def test_every_form_of_import_is_recognised() -> None:
    code = (
        "import n2n_deploy\nimport n2n_deploy.io.mrc\nfrom n2n_deploy import data\n"
        "def f():\n    from n2n_deploy.core.errors import DataError\n"
    )
    assert imported(code) == {FACE, "io", "data", "core"}


def test_every_room_has_one_floor() -> None:
    assert floors().keys() == rooms().keys()


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_come_from_lower_floors_only(room: str) -> None:
    floor = floors()
    for path in rooms()[room]:
        for other in imported(path.read_text()) - {room}:
            where = f"{path.relative_to(ROOT)} imports {other}"
            assert other in floor, f"{where}, which is not a room"
            assert floor[other] < floor[room], f"{where}: floor {floor[other]} from floor {floor[room]}"
