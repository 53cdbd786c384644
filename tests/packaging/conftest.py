"""The wheel, built once from the files that git tracks.

The tests mirror no package folder: they are about the package as a whole, its wheel, installation and imports.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as released, built outside the checkout so that it contains no stale files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--file", str(folder / "source.tar")],
        cwd=ROOT,
        input=files,
        check=True,
    )
    subprocess.run(["tar", "--extract", "--file", str(folder / "source.tar")], cwd=source, check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))
